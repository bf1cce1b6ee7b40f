/**
 * Text generation with a key-value cache, several sequences at once.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { ModelHooks } from "../../models/context.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { type Graph, type Tensor } from "../../tensor/graph.ts";
import { gatherRows } from "../../tensor/ops/cache.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { Model } from "../inputs/models.ts";
import { switchPoints } from "../../models/context.ts";
import { keepPrompts, writtenPrompts } from "../program/prompt_features.ts";
import { sampleToken, type SamplingOptions } from "./sampling.ts";
import { writeStream } from "../program/stream.ts";
import { traceModel } from "../program/traced_model.ts";
import { LayerReader } from "../program/layer_reader.ts";
import { type LayerSource, StreamedLayers } from "../program/streamed_layers.ts";
import { StreamedWriting, traceStreamedWriting } from "./streamed_writing.ts";

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

/** Options of one call of {@linkcode Generator.generate}. */
export interface GenerateOptions extends SamplingOptions {
  /** Most new tokens. */
  readonly maxTokens: number;
  /** Generation of a sequence ends after one of these; the token itself is not part of the result. */
  readonly stopTokens: readonly number[];
  /** Called for every new token, in order within a sequence. */
  readonly onToken?: (sequence: number, token: number) => void;
  /** Asked after each new token whether a sequence goes on; it always does when absent. */
  readonly goesOn?: (sequence: number) => boolean;
  /** Number of the first prompt in the numbering that random numbers depend on. */
  readonly firstSequence?: number;
}

/** A continuation. */
export interface GeneratedText {
  /** The new tokens, without the stop token. */
  readonly tokens: Int32Array;
  /** Whether it ended with a stop token, rather than for want of room. */
  readonly finished: boolean;
  /** That stop token. */
  readonly stopToken?: number;
}

/** The blocks `prefill` and `decode` of a model, and `prompts` where its adapter looks at them. */
export function generationPlan(device: DeviceDescription, model: Model, options: GeneratorOptions): Plan {
  const { sequences, length, attach, streamed } = options;
  const program = new Program();
  let looksAtPrompts = false;
  const block = (name: string, tokens: number, last: (graph: Graph, hidden: Tensor) => Tensor) => {
    const graph = program.block(name);
    const cacheRows = sequences * length;
    if (streamed) {
      const sizes = { name, tokens, length, cacheRows };
      const { hidden, logits } = traceStreamedWriting(program, graph, streamed.layers, sizes);
      graph.output("logits", logits(last(graph, hidden)));
      return;
    }
    const stream = { length, cacheRows, prefix: `${name}.` };
    const { hidden, logits } = traceModel(graph, "model", model, tokens, stream, {
      attach: attach && ((prompt) => attach(graph, prompt)),
      prompt() {
        looksAtPrompts = true;
        return writtenPrompts(graph, name, tokens, { sequences, model });
      },
    });
    graph.output("logits", logits(last(graph, hidden)));
  };
  block(
    "prefill",
    prefillTokens(options),
    (graph, hidden) => gatherRows(hidden, graph.input("prefill.last", [sequences], "i32")),
  );
  block("decode", sequences, (_, hidden) => hidden);
  if (looksAtPrompts) keepPrompts(program.block(PROMPTS), model, options);
  return plan(program, device);
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

/** Name of the block that looks at prompts before any of their tokens is taken in. */
const PROMPTS = "prompts";

function prefillTokens(options: Pick<GeneratorOptions, "prefillTokens">): number {
  return options.prefillTokens ?? 128;
}

/** One token of a stream: which sequence it belongs to, its id and its place. */
interface Feed {
  readonly sequence: number;
  readonly token: number;
  readonly position: number;
  /** Tokens of the sequence that are known by now. */
  readonly reach: number;
}

/** A model ready to write. */
export class Generator {
  readonly #executable: Executable;
  readonly #model: Model;
  readonly #options: GeneratorOptions;
  readonly #reader: LayerReader | undefined;
  readonly #writing: StreamedWriting | undefined;

  private constructor(
    executable: Executable,
    model: Model,
    weights: ReadonlyMap<string, GpuBuffer>,
    options: GeneratorOptions,
  ) {
    this.#executable = executable;
    this.#model = model;
    this.#options = options;
    const { sequences, length, streamed } = options;
    if (!streamed) return;
    const { layers } = streamed;
    const reader = streamed.take ? undefined : this.#reader = new LayerReader(executable, layers, weights);
    const take = streamed.take ?? ((layer: number) => reader!.take(layer));
    this.#writing = new StreamedWriting(executable, { layers, take }, sequences * length);
  }

  /**
   * Compiles the generator.
   *
   * @param weights Buffers of the model's weights, and of the adapter's parameters, by storage name
   */
  static async create(
    gpu: Gpu,
    model: Model,
    weights: ReadonlyMap<string, GpuBuffer>,
    options: GeneratorOptions,
  ): Promise<Generator> {
    return new Generator(
      await compile(gpu, generationPlan(gpu.description, model, options), { weights }),
      model,
      weights,
      options,
    );
  }

  /**
   * Continues each prompt.
   *
   * @param prompts Token ids, each with at least one token
   * @throws {InputError} if a prompt is empty, or leaves no room for a token
   */
  async generate(prompts: readonly Int32Array[], options: GenerateOptions): Promise<GeneratedText[]> {
    prompts.forEach((prompt, i) => {
      if (prompt.length === 0 || prompt.length >= this.#options.length) {
        throw new InputError(
          `prompt ${i + 1} has ${prompt.length} tokens; it must have at least 1 and at most ${
            this.#options.length - 1
          }`,
        );
      }
    });
    const results: GeneratedText[] = [];
    for (let first = 0; first < prompts.length; first += this.#options.sequences) {
      const some = prompts.slice(first, first + this.#options.sequences);
      results.push(...await this.#generateTogether(some, first, options));
    }
    return results;
  }

  async #generateTogether(
    prompts: readonly Int32Array[],
    first: number,
    options: GenerateOptions,
  ): Promise<GeneratedText[]> {
    const texts = prompts.map((): number[] => []);
    const ends = new Map<number, number>();
    const results = () =>
      texts.map((t, i): GeneratedText => ({
        tokens: Int32Array.from(t),
        finished: ends.has(i),
        ...(ends.has(i) ? { stopToken: ends.get(i)! } : {}),
      }));
    const stop = new Set(options.stopTokens);
    const base = (options.firstSequence ?? 0) + first;
    /** Takes the logits of a sequence's last token; returns whether the sequence goes on. */
    const take = (sequence: number, logits: Float32Array): boolean => {
      const text = texts[sequence]!;
      const token = sampleToken(logits, options, base + sequence, text.length);
      if (stop.has(token)) {
        ends.set(sequence, token);
        return false;
      }
      text.push(token);
      options.onToken?.(first + sequence, token);
      return (options.goesOn?.(first + sequence) ?? true) && text.length < options.maxTokens &&
        prompts[sequence]!.length + text.length < this.#options.length;
    };
    if (options.maxTokens < 1) return results();

    this.#keepPrompts(prompts);
    /** Takes in whole sequences, and a token after each; returns those that go on. */
    const takeIn = async (sequences: readonly number[]): Promise<number[]> => {
      const lengthOf = (sequence: number) => prompts[sequence]!.length + texts[sequence]!.length;
      const feeds = sequences.flatMap((sequence) =>
        [...prompts[sequence]!, ...texts[sequence]!].map((token, position): Feed => ({
          ...{ sequence, token, position },
          reach: lengthOf(sequence),
        }))
      );
      const size = prefillTokens(this.#options);
      const goOn: number[] = [];
      for (let at = 0; at < feeds.length; at += size) {
        const chunk = feeds.slice(at, at + size);
        const lastOf = new Map<number, number>();
        chunk.forEach((f, row) => f.position === f.reach - 1 && lastOf.set(f.sequence, row));
        const last = new Int32Array(this.#options.sequences);
        for (const [sequence, row] of lastOf) last[sequence] = row;
        this.#executable.write("prefill.last", last);
        await this.#feed("prefill", chunk, size);
        if (lastOf.size === 0) continue;
        const logits = await this.#logits("prefill");
        goOn.push(...[...lastOf.keys()].filter((sequence) => take(sequence, logits(sequence))));
      }
      return goOn;
    };
    let active = await takeIn(prompts.map((_, sequence) => sequence));
    const switches = new Set(switchPoints(this.#executable.plan.storages.keys(), "decode."));
    while (active.length > 0) {
      const chunk = active.map((sequence): Feed => {
        const position = prompts[sequence]!.length + texts[sequence]!.length - 1;
        return { sequence, token: texts[sequence]!.at(-1)!, position, reach: position + 1 };
      });
      // What is in the cache of a sequence that grows beyond such a length was rotated as in a short one: it is taken in again.
      const [again, next] = [true, false].map((isAgain) =>
        chunk.filter(({ position }) => switches.has(position) === isAgain)
      ) as [Feed[], Feed[]];
      active = [];
      if (again.length > 0) active.push(...await takeIn(again.map(({ sequence }) => sequence)));
      if (next.length === 0) continue;
      await this.#feed("decode", next, this.#options.sequences);
      const logits = await this.#logits("decode");
      active.push(...next.filter(({ sequence }, row) => take(sequence, logits(row))).map((f) => f.sequence));
    }
    return results();
  }

  /** Writes a stream's inputs and runs its block. Rows beyond the feeds write no cache and attend to nothing. */
  async #feed(block: string, feeds: readonly Feed[], rows: number): Promise<void> {
    const { length } = this.#options;
    const column = (value: (f: Feed) => number, filler: number) =>
      Int32Array.from({ length: rows }, (_, i) => (feeds[i] ? value(feeds[i]!) : filler));
    const arrays = {
      tokens: column((f) => f.token, 0),
      positions: column((f) => f.position, 0),
      start: column((f) => f.sequence * length, 0),
      end: column((f) => f.sequence * length + f.position + 1, 0),
    };
    const slots = column((f) => f.sequence * length + f.position, -1);
    const reach = (t: number) => feeds[t]?.reach ?? 0;
    if (this.#writing) return await this.#writing.run(block, { arrays, slots, reach });
    writeStream(this.#executable, arrays, reach, `${block}.`);
    this.#executable.write(`${block}.slots`, slots);
    if (this.#looksAtPrompts) this.#executable.write(`${block}.sequences`, column((f) => f.sequence, -1));
    this.#executable.run(block);
  }

  get #looksAtPrompts(): boolean {
    return this.#executable.plan.blocks.has(PROMPTS);
  }

  /** Lets the adapter see whole prompts, which may be taken in piece by piece. */
  #keepPrompts(prompts: readonly Int32Array[]): void {
    if (!this.#looksAtPrompts) return;
    const { sequences, length } = this.#options;
    const tokens = new Int32Array(sequences * length);
    prompts.forEach((prompt, i) => tokens.set(prompt, i * length));
    const column = (value: (i: number) => number) =>
      Int32Array.from({ length: sequences }, (_, i) => value(i));
    this.#executable.write(`${PROMPTS}.tokens`, tokens);
    this.#executable.write(`${PROMPTS}.start`, column((i) => i * length));
    this.#executable.write(`${PROMPTS}.end`, column((i) => i * length + (prompts[i]?.length ?? 0)));
    this.#executable.write(`${PROMPTS}.slots`, column((i) => i));
    this.#executable.run(PROMPTS);
  }

  async #logits(block: string): Promise<(row: number) => Float32Array> {
    const { data } = (await this.#executable.read(["logits"], block)).get("logits")!;
    const width = this.#model.config.vocabularySize;
    return (row) => (data as Float32Array).subarray(row * width, (row + 1) * width);
  }

  /** Frees caches and buffers; shared weights stay. */
  destroy(): void {
    this.#reader?.close();
    this.#executable.destroy();
  }
}
