/**
 * A model in a block of a program: the one place where training, measuring, the teacher's pass and writing trace their decoders.
 *
 * @module
 */
import {
  ModelContext,
  type ModelHooks,
  type ModelTracing,
  streamInputs,
  type StreamOptions,
  type WeightSpecs,
} from "../../models/context.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Model } from "../inputs/models.ts";
import type { HeadInput } from "../objective/chunked_loss.ts";
import { streamPrompts } from "./fed/prompt_features.ts";

/** How a model takes part in a block. */
export interface ModelRole
  extends Pick<ModelTracing, "onTap" | "onLayer" | "recompute" | "gated" | "narrowed"> {
  /** How its weights are named and stored, where that is not as the model says. */
  readonly weights?: WeightSpecs;
  /** Hooks of what is trained on it, given the prompt of each position, f32 [T, H]. */
  readonly attach?: ((prompt: () => Tensor) => ModelHooks) | undefined;
  /** The prompt of each position; found in the stream when absent, which then holds whole samples. */
  readonly prompt?: () => Tensor;
}

/** A model's head. */
export interface HeadTrace {
  /** The head's weight [vocabularySize, hiddenSize]. */
  headWeight(): Tensor;
  /** Logits f32 [n, vocabularySize] of hidden states [n, hiddenSize], with what is trained on the head. */
  logits(hidden: Tensor): Tensor;
  /** Whether they are the product with the weight and nothing more, as long as nothing is trained on the head. */
  readonly plain: boolean;
}

/** A model in a block. */
export interface Side extends HeadInput {
  /** Its inner values by name. */
  readonly taps: ReadonlyMap<string, Tensor>;
}

/** A model traced up to its final norm. */
export interface ModelTrace extends HeadTrace {
  /** f32 [T, hiddenSize] */
  readonly hidden: Tensor;
}

/**
 * Traces a model over a stream of `tokens` tokens.
 *
 * @param name Tells the models of a block apart
 */
export function traceModel(
  graph: Graph,
  name: string,
  model: Model,
  tokens: number,
  stream: StreamOptions,
  { attach, prompt, weights = model.specs, ...options }: ModelRole = {},
): ModelTrace {
  const { family, config } = model.architecture;
  const inputs = streamInputs(graph, tokens, stream);
  const hooks = attach?.(prompt ?? (() => streamPrompts(graph, model, inputs.tokens)));
  const ctx = new ModelContext(graph, name, inputs, weights, { ...hooks, ...options });
  return { hidden: graph.within(name, () => family.decoder(ctx, config)), ...headOf(ctx, model) };
}

/**
 * A model's head alone, over hidden states that another block has made.
 *
 * @param hooks Of what is trained on it
 */
export function traceHead(
  graph: Graph,
  name: string,
  model: Model,
  tokens: number,
  stream: StreamOptions,
  hooks: ModelHooks = {},
): HeadTrace {
  return headOf(
    new ModelContext(graph, name, streamInputs(graph, tokens, stream), model.specs, hooks),
    model,
  );
}

function headOf(ctx: ModelContext, { architecture }: Model): HeadTrace {
  const { family, config, headWeight, tensors, plainHead } = architecture;
  return {
    plain: plainHead,
    headWeight: () => ctx.weight(headWeight, tensors.get(headWeight)!),
    logits: (hidden) => family.head(ctx, config, hidden),
  };
}

/**
 * A model's side of the losses over logits.
 *
 * @param adapted Whether the head is more than its weight, because of what is trained on it
 */
export function headInput(
  { hidden, headWeight, logits, plain }: ModelTrace,
  adapted: boolean,
): HeadInput {
  return { hidden, weight: headWeight(), ...(adapted || !plain ? { adapted: logits } : {}) };
}
