/**
 * The blocks of a program that writes text: prompts are taken in, tokens are chosen on the GPU and go into the next pass from there.
 *
 * @module
 */
import type { DeviceDescription } from "../../../gpu/description.ts";
import type { ModelHooks } from "../../../models/context.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { gatherRows } from "../../../tensor/ops/cache.ts";
import { DRAW_WORDS, sampleTokens } from "../../../tensor/ops/sample_tokens.ts";
import type { Program } from "../../../tensor/plan.ts";
import type { Model } from "../../inputs/models.ts";
import { keepPrompts, writtenPrompts } from "../fed/prompt_features.ts";
import { type LayerSource, StreamedLayers } from "../streamed/streamed_layers.ts";
import { traceStreamedWriting } from "../streamed/streamed_writing.ts";
import { traceModel } from "../traced_model.ts";

/** What a generator is made for. */
export interface GeneratorOptions {
  /** Sequences decoded at once, B. */
  readonly sequences: number;
  /** Longest sequence, prompt included. */
  readonly length: number;
  /** Tokens of prompts that one pass takes in. */
  readonly prefillTokens?: number;
  /**
   * Hooks of what is trained on the student, given the prompt of each token, f32 [T, H]; its parameters are found among `weights` by the
   * name of their state.
   */
  readonly attach?: (graph: Graph, prompt: () => Tensor) => ModelHooks;
  /**
   * Where layers come from disk, for a model with nothing attached. Where nobody takes layers for it, the generator reads them into
   * buffers of its own.
   */
  readonly streamed?: LayerSource;
}

/** Where generation lies in its program. */
export interface GenerationPlace {
  /** Before the names of blocks, inputs and states; empty in a program of its own. */
  readonly prefix?: string;
  /** Rows of the tables that the program's models share: one more than its largest position. That of the generator when absent. */
  readonly positions?: number;
}

/** Names in a program of what generation has there. */
export interface GenerationNames {
  /** Takes in prompts, many tokens at once. */
  readonly prefill: string;
  /** Takes in the last token of each sequence. */
  readonly decode: string;
  /** Looks at prompts before any of their tokens is taken in, where an adapter wants to see them. */
  readonly prompts: string;
  /** State i32 [B]: the last token chosen in each row, which the next pass of `decode` takes in. */
  readonly tokens: string;
  /** State f32 [B, 2]: its log-probability and the entropy of its row; see `sampleTokens`. */
  readonly measures: string;
}

/** What generation calls its blocks and states under a prefix. */
export function generationNames(prefix = ""): GenerationNames {
  return {
    prefill: `${prefix}prefill`,
    decode: `${prefix}decode`,
    prompts: `${prefix}prompts`,
    tokens: `${prefix}decode.tokens`,
    measures: `${prefix}measures`,
  };
}

/** Tokens of prompts that one pass takes in. */
export function prefillTokens(options: Pick<GeneratorOptions, "prefillTokens">): number {
  return options.prefillTokens ?? 128;
}

/** The layers of a model that a generator reads from disk. */
export function streamedLayers(
  device: DeviceDescription,
  model: Model,
  options: Pick<GeneratorOptions, "length" | "prefillTokens">,
): StreamedLayers {
  const sizes = { tokens: prefillTokens(options), positions: options.length };
  return new StreamedLayers(model, sizes, device, new Set());
}

/** Traces the blocks of a generator: see {@linkcode GenerationNames}. */
export function traceGeneration(
  program: Program,
  model: Model,
  options: GeneratorOptions,
  { prefix = "", positions = options.length }: GenerationPlace = {},
): void {
  const { sequences, length, attach, streamed } = options;
  const names = generationNames(prefix);
  let looksAtPrompts = false;
  const block = (
    name: string,
    tokens: number,
    last: (graph: Graph, hidden: Tensor) => Tensor,
    chosen?: (graph: Graph) => Tensor,
  ) => {
    const graph = program.block(name);
    const stream = {
      ...{ length: positions, cacheRows: sequences * length, prefix: `${name}.` },
      ...(chosen ? { tokens: chosen(graph), apart: true } : {}),
    };
    const { hidden, logits } = streamed
      ? traceStreamedWriting(program, graph, streamed.layers, {
        ...{ name, tokens, length: positions, cacheRows: sequences * length },
        ...(chosen ? { chosen } : {}),
      })
      : traceModel(graph, "model", model, tokens, stream, {
        attach: attach && ((prompt) => attach(graph, prompt)),
        prompt() {
          looksAtPrompts = true;
          return writtenPrompts(graph, name, tokens, { sequences, model });
        },
      });
    sampleTokens(
      logits(last(graph, hidden)),
      graph.input(`${name}.draws`, [sequences, DRAW_WORDS], "u32"),
      lastTokens(graph),
      graph.state(names.measures, [sequences, 2], "f32", "keys and values"),
    );
  };
  const lastTokens = (graph: Graph) => graph.state(names.tokens, [sequences], "i32", "keys and values");
  block(
    names.prefill,
    prefillTokens(options),
    (graph, hidden) => gatherRows(hidden, graph.input(`${names.prefill}.last`, [sequences], "i32")),
  );
  block(names.decode, sequences, (_, hidden) => hidden, lastTokens);
  if (looksAtPrompts) keepPrompts(program.block(names.prompts), model, options);
}
