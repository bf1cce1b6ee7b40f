/**
 * Training batches without end, in an order that follows from a seed.
 *
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { InputError } from "../base/errors.ts";
import { permutation } from "../base/random.ts";
import { type EncodedSample, sampleLength } from "./encode.ts";
import { type MixedBy, type MixedSet, Mixture } from "./mixture.ts";
import { checkFits, type OtherRoom, otherRoom, packBatch, type PackedBatch, planBatches } from "./packing.ts";

/** Where a {@linkcode BatchStream} stands: the next batch it will give. Plain JSON. */
export interface DataCursor {
  epoch: number;
  index: number;
  /** Identity of samples, order and batch size; a cursor means nothing for another stream. */
  key: string;
  /** Of samples that are read from the disk while they are needed: what waits to be drawn. */
  streamed?: unknown;
}

/** Batches without end. */
export interface Batches {
  next(): PackedBatch;
  /** Where they stand, for {@linkcode restore} of others over the same samples. */
  state(): DataCursor;
  /** @throws {InputError} a cursor of other samples, another seed or another batch size */
  restore(state: DataCursor): void;
  /** What has been drawn of each set of a mixture so far; empty where there is no mixture. */
  drawn(): DrawnShare[];
}

/** The next batches, which stay the next ones. */
export function upcoming(batches: Batches, count: number): PackedBatch[] {
  const here = batches.state();
  const found = Array.from({ length: count }, () => batches.next());
  batches.restore(here);
  return found;
}

/** How a {@linkcode BatchStream} orders and packs. */
export interface BatchStreamOptions {
  /** T: length of every batch. */
  tokensPerBatch: number;
  /** Whole number from 0 to 2^53 - 1. */
  seed: number;
  /** A new order every epoch (default), or the file's order. */
  shuffle?: boolean;
  /** Tokens of a batch in the second tokenizer's encoding, or privileged ones, where samples have some. */
  otherTokens?: number;
  /** Sets that the samples are of, one after another, and what their weights are shares of. One set of all samples when absent. */
  mixture?: { sets: readonly MixedSet[]; by: MixedBy };
}

/** What has been drawn of a set. */
export interface DrawnShare {
  name: string;
  samples: number;
  tokens: number;
  /** Of the tokens, those that are learnt. */
  supervisedTokens: number;
}

/**
 * Endless training batches. The plan of an epoch is a pure function of the samples, the seed and the epoch, so any batch can be made
 * without those before it.
 *
 * @example
 * ```ts ignore
 * const stream = new BatchStream(samples, { tokensPerBatch: 256, seed: 1 });
 * const batch = stream.next();
 * const saved = JSON.stringify(stream.state());
 * new BatchStream(samples, { tokensPerBatch: 256, seed: 1 }).restore(JSON.parse(saved)); // continues with the second batch
 * ```
 */
export class BatchStream implements Batches {
  readonly #samples: readonly EncodedSample[];
  readonly #options: Required<Omit<BatchStreamOptions, "mixture" | "otherTokens">>;
  readonly #lengths: Int32Array;
  readonly #other: OtherRoom | undefined;
  /** One past the last sample of each set of a mixture. */
  readonly #ends: number[] = [];
  #drawn: DrawnShare[];
  readonly #key: string;
  /** Where there is more than one set to draw from. */
  readonly #mixture: Mixture | undefined;
  #epoch = 0;
  #index = 0;
  #planned: { epoch: number; batches: number[][] } | undefined;

  /** @throws {InputError} no samples, or one that is longer than a batch */
  constructor(samples: readonly EncodedSample[], options: BatchStreamOptions) {
    checkFits(samples, options.tokensPerBatch);
    this.#samples = samples;
    const { mixture, otherTokens, ...rest } = options;
    this.#other = otherRoom(samples, otherTokens);
    this.#options = { shuffle: true, ...rest };
    this.#lengths = Int32Array.from(samples, sampleLength);
    for (const { count } of mixture?.sets ?? []) this.#ends.push((this.#ends.at(-1) ?? 0) + count);
    this.#drawn = mixture?.sets.map(({ name }) => emptyShare(name)) ?? [];
    this.#mixture = mixture && mixture.sets.length > 1
      ? new Mixture(this.#lengths, {
        ...{ ...mixture, ...this.#options },
        ...(this.#other ? { other: this.#other } : {}),
      })
      : undefined;
    this.#key = identity(samples, this.#options, this.#mixture && mixture, otherTokens);
  }

  /** The batches of an epoch as lists of sample numbers. */
  plan(epoch: number): readonly (readonly number[])[] {
    if (this.#planned?.epoch !== epoch) this.#planned = { epoch, batches: this.#batches(epoch) };
    return this.#planned.batches;
  }

  #batches(epoch: number): number[][] {
    if (this.#mixture) return this.#mixture.plan(epoch);
    const count = this.#samples.length;
    const order = this.#options.shuffle
      ? permutation(count, this.#options.seed, epoch)
      : Uint32Array.from({ length: count }, (_, i) => i);
    return planBatches(this.#lengths, order, this.#options.tokensPerBatch, undefined, this.#other);
  }

  /** What has been drawn of each set of a mixture so far, in the order of the sets; empty where there is no mixture. */
  drawn(): DrawnShare[] {
    return this.#drawn.map((share) => ({ ...share }));
  }

  #count(samples: ArrayLike<number>): void {
    if (this.#drawn.length === 0) return;
    for (let i = 0; i < samples.length; i++) {
      const share = this.#drawn[this.#ends.findIndex((end) => samples[i]! < end)]!;
      share.samples++;
      share.tokens += this.#lengths[samples[i]!]!;
      share.supervisedTokens += this.#samples[samples[i]!]!.supervised.reduce((sum, s) => sum + s, 0);
    }
  }

  /** Counts what a stream that stands here has drawn, from its plan, so that one that continues says the same as one that never stopped. */
  #countAgain(): void {
    this.#drawn = this.#drawn.map(({ name }) => emptyShare(name));
    if (this.#drawn.length === 0) return;
    for (let epoch = 0; epoch < this.#epoch; epoch++) {
      this.#batches(epoch).forEach((batch) => this.#count(batch));
    }
    for (const batch of this.plan(this.#epoch).slice(0, this.#index)) this.#count(batch);
  }

  /** Batch number `index` of an epoch. */
  batchAt(epoch: number, index: number): PackedBatch {
    const batch = this.plan(epoch)[index];
    if (batch === undefined) throw new RangeError(`epoch ${epoch} has no batch ${index}`);
    return packBatch(batch.map((i) => this.#samples[i]), this.#options.tokensPerBatch);
  }

  /** The next batch; after the last of an epoch comes the first of the next. */
  next(): PackedBatch {
    const batch = this.batchAt(this.#epoch, this.#index);
    this.#count(this.plan(this.#epoch)[this.#index]!);
    this.#index++;
    if (this.#index === this.plan(this.#epoch).length) {
      this.#epoch++;
      this.#index = 0;
    }
    return batch;
  }

  /** Where the stream stands; give it to {@linkcode restore} of a stream over the same samples. */
  state(): DataCursor {
    return { epoch: this.#epoch, index: this.#index, key: this.#key };
  }

  /**
   * Continues where another stream stood.
   *
   * @throws {InputError} a cursor of other samples, another seed or another batch size, or one that is not a cursor
   */
  restore(state: DataCursor): void {
    if (state.key !== this.#key) throw otherStream();
    const whole = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
    if (!whole(state.epoch) || !whole(state.index) || state.index >= this.plan(state.epoch).length) {
      throw new InputError(`the data cursor is not valid: epoch ${state.epoch}, index ${state.index}`);
    }
    this.#epoch = state.epoch;
    this.#index = state.index;
    this.#countAgain();
  }
}

/** What is said of a cursor that belongs to other samples. */
export function otherStream(): InputError {
  return new InputError("the data, the seed or the batch size differ from those of the saved run", {
    hint: "Resume with the same files and recipe, or start a new run.",
  });
}

function emptyShare(name: string): DrawnShare {
  return { name, samples: 0, tokens: 0, supervisedTokens: 0 };
}

function identity(
  samples: readonly EncodedSample[],
  options: Omit<BatchStreamOptions, "mixture" | "otherTokens">,
  mixture: BatchStreamOptions["mixture"],
  otherTokens: number | undefined,
): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([options.tokensPerBatch, options.seed, options.shuffle, samples.length]));
  if (mixture) {
    const sets = mixture.sets.map(({ name, weight, count }) => [name, weight, count]);
    hash.update(JSON.stringify([mixture.by, sets]));
  }
  if (otherTokens !== undefined) hash.update(`beside ${otherTokens}`);
  hashSamples(hash, samples);
  return hash.digest("hex");
}

/** Adds samples to a hash: their tokens, which of them are learnt, and who wrote them. */
export function hashSamples(hash: Hash, samples: readonly EncodedSample[]): void {
  for (const { ids, supervised, origin, rejected, other, privileged } of samples) {
    hash.update(Int32Array.of(ids.length));
    hash.update(ids);
    hash.update(supervised);
    if (origin !== undefined) hash.update(origin);
    if (rejected) hash.update("rejected").update(rejected.ids).update(rejected.supervised);
    if (privileged) hash.update(Int32Array.of(privileged.at, privileged.ids.length)).update(privileged.ids);
    if (!other) continue;
    hash.update(Int32Array.of(other.ids.length, other.groups.length));
    for (const part of [other.ids, other.supervised, other.groups]) hash.update(part);
  }
}
