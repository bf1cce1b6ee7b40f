/**
 * Text generation with a key-value cache, several sequences at once.
 *
 * Tokens are chosen on the GPU, and the next pass takes them in from there; they are fetched several passes at once, since a wait costs at
 * least 10 ms. What a sequence's row makes after it has ended, and before anyone knows, is thrown away; then the next prompt takes its place.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { splitSeed } from "../../base/random.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { switchPoints } from "../../models/context.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { drawWords } from "../../tensor/ops/sample_tokens.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { Model } from "../inputs/models.ts";
import {
  type GenerationNames,
  generationNames,
  type GeneratorOptions,
  prefillTokens,
  traceGeneration,
} from "../program/written/generation_blocks.ts";
import { LayerReader } from "../program/streamed/layer_reader.ts";
import { MetricsRing } from "../program/metrics/metrics_ring.ts";
import { writeStream } from "../program/fed/stream.ts";
import { type FedStream, StreamedWriting } from "../program/streamed/streamed_writing.ts";
import type { SamplingOptions } from "./sampling.ts";

export type { GeneratorOptions } from "../program/written/generation_blocks.ts";

/** Options of one call of {@linkcode Generator.generate}. */
export interface GenerateOptions extends SamplingOptions {
  /** Most new tokens; of each prompt where there are several numbers. */
  readonly maxTokens: number | readonly number[];
  /** Generation of a sequence ends after one of these; the token itself is not part of the result. */
  readonly stopTokens: readonly number[];
  /** Called for every new token, in order within a sequence. */
  readonly onToken?: (sequence: number, token: number) => void;
  /** Called when a text is complete; they end in any order. */
  readonly onDone?: (sequence: number, text: GeneratedText) => void;
  /** Asked after each new token whether a sequence goes on; it always does when absent. */
  readonly goesOn?: (sequence: number) => boolean;
  /** Number of the first prompt in the numbering that random numbers depend on. */
  readonly firstSequence?: number;
  /** Called between slices of work that take a fraction of a second each. */
  readonly onSlice?: () => void;
}

/** A continuation. */
export interface GeneratedText {
  /** The new tokens, without the stop token. */
  readonly tokens: Int32Array;
  /** Whether it ended with a stop token, rather than for want of room. */
  readonly finished: boolean;
  /** That stop token. */
  readonly stopToken?: number;
  /** Of each token, the stop token with them: its log-probability in nats under softmax(logits / temperature), before top-k and top-p. */
  readonly logProbabilities: Float32Array;
  /** Likewise, the entropy of that distribution in nats. */
  readonly entropies: Float32Array;
}

/** A generator's program. */
export function generationPlan(device: DeviceDescription, model: Model, options: GeneratorOptions): Plan {
  const program = new Program();
  traceGeneration(program, model, options);
  return plan(program, device);
}

/** Passes of `decode` between two waits, once a text has its first tokens. */
const MOST_PASSES = 8;

/** Passes whose tokens may wait on the GPU, those that take in prompts with them. */
const RING = 64;

/** A sequence in the making, in one row of the decoder and one part of the cache. */
interface Sequence {
  /** Number of its prompt. */
  readonly index: number;
  readonly prompt: Int32Array;
  /** Tokens that the host knows. */
  readonly text: number[];
  readonly logProbabilities: number[];
  readonly entropies: number[];
  /** Tokens chosen on the GPU, known or not. */
  issued: number;
  /** Most tokens. */
  readonly limit: number;
  stop?: number;
  ended: boolean;
}

function generatedText({ text, stop, logProbabilities, entropies }: Sequence): GeneratedText {
  return {
    tokens: Int32Array.from(text),
    finished: stop !== undefined,
    ...(stop === undefined ? {} : { stopToken: stop }),
    logProbabilities: Float32Array.from(logProbabilities),
    entropies: Float32Array.from(entropies),
  };
}

/** One token of a stream: which row it belongs to and its place. */
interface Feed {
  readonly row: number;
  /** Absent where it is on the GPU. */
  readonly token?: number;
  readonly position: number;
  /** Tokens of the sequence by now. */
  readonly reach: number;
}

/** A model ready to write. */
export class Generator {
  readonly #executable: Executable;
  readonly #model: Model;
  readonly #options: GeneratorOptions;
  readonly #names: GenerationNames;
  /** Whether the program is this generator's own. */
  readonly #owned: boolean;
  readonly #ring: MetricsRing<readonly (Sequence | undefined)[]>;
  readonly #switches: ReadonlySet<number>;
  readonly #reader: LayerReader | undefined;
  readonly #writing: StreamedWriting | undefined;
  /** What was fed last. */
  #fed: FedStream | undefined;

  private constructor(
    executable: Executable,
    model: Model,
    options: GeneratorOptions,
    prefix: string,
    owned: boolean,
    weights: ReadonlyMap<string, GpuBuffer> = new Map(),
  ) {
    [this.#executable, this.#model, this.#options, this.#owned] = [executable, model, options, owned];
    const names = this.#names = generationNames(prefix);
    const sources = [
      { name: names.tokens, words: options.sequences },
      { name: names.measures, words: 2 * options.sequences },
    ];
    this.#ring = new MetricsRing(executable.gpu, executable, sources, RING);
    this.#switches = new Set(switchPoints(executable.plan.storages.keys(), `${names.decode}.`));
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
    const executable = await compile(gpu, generationPlan(gpu.description, model, options), { weights });
    return new Generator(executable, model, options, "", true, weights);
  }

  /** The generator whose blocks {@linkcode traceGeneration} has put into a program, under a prefix. Their kernels must be ready. */
  static within(
    executable: Executable,
    model: Model,
    options: GeneratorOptions,
    prefix: string,
  ): Generator {
    return new Generator(executable, model, options, prefix, false);
  }

  /**
   * Continues each prompt. Of more prompts than there are rows, the next is begun when a text is done.
   *
   * @param prompts Token ids, each with at least one token
   * @throws {InputError} if a prompt is empty, or leaves no room for a token
   */
  async generate(prompts: readonly Int32Array[], options: GenerateOptions): Promise<GeneratedText[]> {
    const { sequences: rows, length } = this.#options;
    prompts.forEach((prompt, i) => {
      if (prompt.length === 0 || prompt.length >= length) {
        throw new InputError(
          `prompt ${i + 1} has ${prompt.length} tokens; it must have at least 1 and at most ${length - 1}`,
        );
      }
    });
    const { maxTokens } = options;
    const all = prompts.map((prompt, index): Sequence => {
      const most = typeof maxTokens === "number" ? maxTokens : maxTokens[index]!;
      const limit = Math.min(most, length - prompt.length);
      return {
        ...{ index, prompt, limit, text: [], logProbabilities: [], entropies: [], issued: 0 },
        ended: limit < 1,
      };
    });
    const waiting = all.filter(({ ended }) => !ended);
    const at = new Array<Sequence | undefined>(rows).fill(undefined);
    let passes = 1;
    for (;;) {
      const begun: number[] = [];
      at.forEach((sequence, row) => {
        if (sequence && !sequence.ended) return;
        at[row] = waiting.shift();
        if (at[row]) begun.push(row);
      });
      if (at.every((sequence) => !sequence)) break;
      if (begun.length > 0) {
        this.#keepPrompts(at, begun);
        await this.#takeIn(at, begun, options);
        // The first tokens are wanted soon.
        passes = 1;
      }
      await this.#decode(at, passes, options);
      // A pass too many is cheap, unless it reads the whole model.
      passes = this.#writing ? 1 : Math.min(2 * passes, MOST_PASSES);
    }
    return all.map(generatedText);
  }

  /** Chooses up to so many tokens of each sequence that goes on, and fetches them. */
  async #decode(
    at: readonly (Sequence | undefined)[],
    passes: number,
    options: GenerateOptions,
  ): Promise<void> {
    for (let pass = 0; pass < passes; pass++) {
      const feeds: Feed[] = [];
      const again: number[] = [];
      at.forEach((sequence, row) => {
        if (!sequence || sequence.ended || sequence.issued >= sequence.limit) return;
        const position = sequence.prompt.length + sequence.issued - 1;
        // What is in the cache of a sequence that grows beyond such a length was rotated as in a short one: it is taken in again.
        if (this.#switches.has(position)) again.push(row);
        else feeds.push({ row, position, reach: position + 1 });
      });
      if (again.length > 0) {
        await this.#collect(options);
        const rows = again.filter((row) => !at[row]!.ended);
        if (rows.length > 0) await this.#takeIn(at, rows, options);
      }
      if (feeds.length === 0) {
        if (again.length > 0) continue;
        break;
      }
      const { sequences } = this.#options;
      const byRow = new Array<Feed | undefined>(sequences).fill(undefined);
      for (const feed of feeds) byRow[feed.row] = feed;
      this.#feed(this.#names.decode, byRow, sequences);
      await this.#choose(this.#names.decode, at, new Set(feeds.map(({ row }) => row)), options);
      if (this.#ring.full) await this.#collect(options);
      options.onSlice?.();
    }
    await this.#collect(options);
  }

  /** Takes in all known tokens of some rows, and chooses one after each. */
  async #takeIn(
    at: readonly (Sequence | undefined)[],
    rows: readonly number[],
    options: GenerateOptions,
  ): Promise<void> {
    const { prefill } = this.#names;
    const feeds = rows.flatMap((row) => {
      const { prompt, text } = at[row]!;
      const reach = prompt.length + text.length;
      return [...prompt, ...text].map((token, position): Feed => ({ row, token, position, reach }));
    });
    const size = prefillTokens(this.#options);
    for (let first = 0; first < feeds.length; first += size) {
      const chunk = feeds.slice(first, first + size);
      const last = new Int32Array(this.#options.sequences);
      const whole = new Set<number>();
      chunk.forEach(({ row, position, reach }, i) => {
        if (position < reach - 1) return;
        last[row] = i;
        whole.add(row);
      });
      this.#executable.write(`${prefill}.last`, last);
      this.#feed(prefill, chunk, size);
      await this.#choose(prefill, at, whole, options);
      if (this.#ring.full) await this.#collect(options);
      options.onSlice?.();
    }
  }

  /** Runs a block whose stream is written, which chooses a token of each of some rows. */
  async #choose(
    block: string,
    at: readonly (Sequence | undefined)[],
    rows: ReadonlySet<number>,
    { temperature, topK, topP, seed, firstSequence = 0 }: GenerateOptions,
  ): Promise<void> {
    const words = drawWords(at.map((sequence, row) =>
      rows.has(row)
        ? {
          ...{ temperature, topK, topP, seed: splitSeed(seed) },
          ...{ place: sequence!.issued, sequence: firstSequence + sequence!.index },
        }
        : undefined
    ));
    this.#executable.write(`${block}.draws`, words);
    if (this.#writing) await this.#writing.run(block, this.#fed!);
    this.#executable.run(block);
    if (rows.size === 0) return;
    for (const row of rows) at[row]!.issued++;
    this.#ring.push(at.map((sequence, row) => rows.has(row) ? sequence : undefined));
  }

  /** Waits for the tokens that were chosen, and gives them to their sequences. */
  async #collect({ stopTokens, onToken, onDone, goesOn }: GenerateOptions): Promise<void> {
    const stop = new Set(stopTokens);
    for (const { tag, values } of await this.#ring.collect()) {
      const [tokens, measures] = values as [Float32Array, Float32Array];
      const ids = new Int32Array(tokens.buffer, tokens.byteOffset, tokens.length);
      tag.forEach((sequence, row) => {
        if (!sequence || sequence.ended) return;
        const token = ids[row]!;
        sequence.logProbabilities.push(measures[2 * row]!);
        sequence.entropies.push(measures[2 * row + 1]!);
        if (stop.has(token)) [sequence.stop, sequence.ended] = [token, true];
        else {
          sequence.text.push(token);
          onToken?.(sequence.index, token);
          sequence.ended = !(goesOn?.(sequence.index) ?? true) || sequence.text.length >= sequence.limit;
        }
        if (sequence.ended) onDone?.(sequence.index, generatedText(sequence));
      });
    }
  }

  /** Writes a stream's inputs. Rows without a feed write no cache and attend to nothing. */
  #feed(block: string, feeds: readonly (Feed | undefined)[], rows: number): void {
    const { length } = this.#options;
    const column = (value: (f: Feed) => number, filler: number) =>
      Int32Array.from({ length: rows }, (_, i) => (feeds[i] ? value(feeds[i]!) : filler));
    const stream = {
      positions: column((f) => f.position, 0),
      start: column((f) => f.row * length, 0),
      end: column((f) => f.row * length + f.position + 1, 0),
      ...(block === this.#names.prefill ? { tokens: column((f) => f.token!, 0) } : {}),
    };
    const reach = (t: number) => feeds[t]?.reach ?? 0;
    const slots = column((f) => f.row * length + f.position, -1);
    this.#fed = { arrays: stream, slots, reach };
    if (this.#writing) return;
    writeStream(this.#executable, stream, reach, `${block}.`);
    this.#executable.write(`${block}.slots`, slots);
    if (this.#looksAtPrompts) this.#executable.write(`${block}.sequences`, column((f) => f.row, -1));
  }

  get #looksAtPrompts(): boolean {
    return this.#executable.plan.blocks.has(this.#names.prompts);
  }

  /** Lets the adapter see the whole prompts of some rows, which may be taken in piece by piece. */
  #keepPrompts(at: readonly (Sequence | undefined)[], rows: readonly number[]): void {
    if (!this.#looksAtPrompts) return;
    const { prompts } = this.#names;
    const { sequences, length } = this.#options;
    const tokens = new Int32Array(sequences * length);
    for (const row of rows) tokens.set(at[row]!.prompt, row * length);
    const column = (value: (row: number) => number) =>
      Int32Array.from({ length: sequences }, (_, row) => value(row));
    this.#executable.write(`${prompts}.tokens`, tokens);
    this.#executable.write(`${prompts}.start`, column((row) => row * length));
    this.#executable.write(`${prompts}.end`, column((row) => row * length + (at[row]?.prompt.length ?? 0)));
    this.#executable.write(`${prompts}.slots`, column((row) => rows.includes(row) ? row : -1));
    this.#executable.run(prompts);
  }

  /** Frees caches and buffers, but what it shares with others. */
  destroy(): void {
    this.#reader?.close();
    this.#ring.destroy();
    if (this.#owned) this.#executable.destroy();
  }
}
