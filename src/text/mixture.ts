/**
 * Several sets of samples as one stream of batches: which set each sample of a batch is drawn from.
 *
 * The next sample comes from the set that is furthest behind its share: the one for which (drawn + next / 2) / weight is smallest, where
 * what is drawn is counted in rows or in tokens, and `next` is 1 or the length of the sample that waits longest. In rows that is Webster's
 * method of apportionment (M. L. Balinski, H. P. Young, "Fair Representation", Yale 1982), and for equal weights plain alternation. Where
 * no sample of that set fits into what is left of a batch, the next one gives one, as long as that puts it no further ahead than a batch.
 * Chance decides the order within a set alone, so that shares are kept at every moment and not only in the long run.
 *
 * @module
 */
import { permutation } from "../base/random.ts";
import type { OtherRoom } from "./packing.ts";

/** What weights are shares of; a row that was split counts as often as it has samples. */
export type MixedBy = "rows" | "tokens";

/** One set of a mixture. */
export interface MixedSet {
  readonly name: string;
  /** From 0; only its ratio to those of other sets counts. Nothing is drawn of a set of weight 0. */
  readonly weight: number;
  /** Its samples' number among all. They follow one another. */
  readonly count: number;
}

/** How several sets are drawn. */
export interface MixtureOptions {
  /** In the order in which their samples follow one another. At least one has a sample and a weight above 0. */
  readonly sets: readonly MixedSet[];
  readonly by: MixedBy;
  /** T: length of every batch; no sample is longer. */
  readonly tokensPerBatch: number;
  readonly seed: number;
  /** A new order of a set each time it has been read, or always that of its file. */
  readonly shuffle: boolean;
  /** Where a batch holds the samples' encodings of a second tokenizer too; no sample is longer than it. */
  readonly other?: OtherRoom;
}

/** Waiting samples of a set that are looked at to fill a batch. */
const LOOK_AHEAD = 64;

/** A set in the midst of being drawn. */
interface Drawing {
  /** Its share of all weights. */
  readonly share: number;
  readonly count: number;
  /** Number of its first sample among all. */
  readonly first: number;
  /** Its own number, by its name. */
  readonly number: number;
  /** How often it has been read whole. */
  epoch: number;
  order: Uint32Array;
  /** Place in `order` of the next sample that is not waiting. */
  at: number;
  /** Samples, by their numbers among all, that will be drawn next, as far as they fit. */
  readonly waiting: number[];
  /** Rows or tokens drawn. */
  drawn: number;
}

/**
 * The batches of a mixture, epoch by epoch. An epoch has as many samples as all sets of a weight above 0 together, and those that fill its
 * last batch; a set that has been read whole begins again in a new order, whatever the epoch. The batches are a pure function of the sets,
 * the lengths and the seed, and do not depend on the order in which the sets are listed.
 */
export class Mixture {
  readonly #options: MixtureOptions;
  readonly #lengths: ArrayLike<number>;
  /** Samples of an epoch. */
  readonly #size: number;
  /** What a batch holds about, in rows or tokens: as much a set may get ahead. */
  readonly #batch: number;
  #sets: Drawing[] = [];
  /** The epoch that is drawn next. */
  #next = 0;

  /** @param lengths tokens of each sample of all sets, one set after another */
  constructor(lengths: ArrayLike<number>, options: MixtureOptions) {
    this.#lengths = lengths;
    this.#options = options;
    this.#begin();
    this.#size = this.#sets.reduce((sum, { count }) => sum + count, 0);
    const meanLength = this.#sets.reduce((mean, { share, first, count }) => {
      let tokens = 0;
      for (let i = first; i < first + count; i++) tokens += lengths[i]!;
      return mean + share * tokens / count;
    }, 0);
    this.#batch = options.tokensPerBatch / (options.by === "tokens" ? 1 : meanLength);
  }

  /** Batches of an epoch as lists of sample numbers. The epochs before are drawn again where they have not just been. */
  plan(epoch: number): number[][] {
    if (epoch < this.#next) this.#begin();
    while (this.#next < epoch) this.#drawEpoch();
    return this.#drawEpoch();
  }

  #begin(): void {
    const { sets } = this.#options;
    const all = sets.reduce((sum, { weight, count }) => sum + (count > 0 ? weight : 0), 0);
    const names = sets.map(({ name }) => name).sort();
    let first = 0;
    this.#sets = sets.flatMap(({ name, weight, count }): Drawing[] => {
      const number = names.indexOf(name);
      const set = { share: weight / all, count, first, number, epoch: 0, at: 0, drawn: 0, waiting: [] };
      first += count;
      return weight > 0 && count > 0 ? [{ ...set, order: this.#orderOf(set) }] : [];
    }).sort((a, b) => a.number - b.number);
    for (const set of this.#sets) this.#refill(set);
    this.#next = 0;
  }

  #orderOf({ count, epoch, number }: Pick<Drawing, "count" | "epoch" | "number">): Uint32Array {
    const { seed, shuffle } = this.#options;
    return shuffle
      ? permutation(count, seed, epoch, number)
      : Uint32Array.from({ length: count }, (_, i) => i);
  }

  /** Lets samples wait. A new round of a set begins when the one before is over, so that nothing is drawn twice before all is once. */
  #refill(set: Drawing): void {
    if (set.waiting.length === 0 && set.at === set.count) {
      set.at = 0;
      set.epoch++;
      set.order = this.#orderOf(set);
    }
    while (set.waiting.length < LOOK_AHEAD && set.at < set.count) {
      set.waiting.push(set.first + set.order[set.at++]!);
    }
  }

  #drawEpoch(): number[][] {
    const batches: number[][] = [];
    for (let drawn = 0; drawn < this.#size; drawn += batches.at(-1)!.length) batches.push(this.#drawBatch());
    this.#next++;
    return batches;
  }

  #drawBatch(): number[] {
    const batch: number[] = [];
    const { tokensPerBatch, other } = this.#options;
    let [room, beside] = [tokensPerBatch, other?.tokensPerBatch ?? 0];
    const take = () => this.#take(room, beside);
    for (let sample = take(); sample !== undefined; sample = take()) {
      batch.push(sample);
      room -= this.#lengths[sample]!;
      beside -= other?.lengths[sample] ?? 0;
    }
    return batch;
  }

  /** Draws a sample of at most so many tokens; undefined where none fits, or would put its set too far ahead. */
  #take(room: number, beside: number): number | undefined {
    const { other } = this.#options;
    const behind = this.#sets.map((set) => ({ set, lag: this.#lag(set) })).sort((a, b) => a.lag - b.lag);
    for (const { set, lag } of behind) {
      if (lag - behind[0]!.lag > this.#batch) return undefined;
      const place = set.waiting.findIndex((sample) =>
        this.#lengths[sample]! <= room && (other?.lengths[sample] ?? 0) <= beside
      );
      if (place < 0) continue;
      const [sample] = set.waiting.splice(place, 1) as [number];
      set.drawn += this.#sizeOf(sample);
      this.#refill(set);
      return sample;
    }
    return undefined;
  }

  /** Rows or tokens that would be drawn of all when the middle of its next sample comes, were all drawn in their shares. */
  #lag({ drawn, waiting, share }: Drawing): number {
    return (drawn + this.#sizeOf(waiting[0]!) / 2) / share;
  }

  #sizeOf(sample: number): number {
    return this.#options.by === "rows" ? 1 : this.#lengths[sample]!;
  }
}
