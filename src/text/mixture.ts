/**
 * Several sets of samples as one stream: which set each place of the order is drawn from, and which of its samples.
 *
 * The next sample comes from the set that is furthest behind its share: the one for which (drawn + next / 2) / weight is smallest, where
 * what is drawn is counted in samples or in tokens, and `next` is 1 or the length of the sample that would come. In samples that is
 * Webster's method of apportionment (M. L. Balinski, H. P. Young, "Fair Representation", Yale 1982), and for equal weights plain
 * alternation. Chance decides the order within a set alone, so that shares are near the weights at every moment rather than in the long run.
 *
 * @module
 */
import { permutation } from "../base/random.ts";

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
  readonly seed: number;
  /** A new order of a set each time it has been read (default), or always that of its file. */
  readonly shuffle?: boolean;
}

/** A set in the midst of being drawn. */
interface Drawing {
  readonly weight: number;
  readonly count: number;
  /** Number of its first sample among all. */
  readonly first: number;
  /** Its own number, by its name. */
  readonly number: number;
  /** How often it has been read whole. */
  epoch: number;
  order: Uint32Array;
  /** Place in `order` of the next sample. */
  at: number;
  /** Samples or tokens drawn, as the mixture counts. */
  drawn: number;
}

/**
 * The orders of a mixture, epoch by epoch. An epoch has as many samples as all sets of a weight above 0 together; sets that have been read
 * begin again in a new order, whatever the epoch. The orders are a pure function of the sets, the lengths and the seed, and do not depend
 * on the order in which the sets are listed.
 */
export class Mixture {
  readonly #options: Required<MixtureOptions>;
  readonly #lengths: ArrayLike<number>;
  readonly #size: number;
  #sets: Drawing[] = [];
  /** The epoch that is drawn next. */
  #next = 0;

  /** @param lengths tokens of each sample of all sets, one set after another */
  constructor(lengths: ArrayLike<number>, options: MixtureOptions) {
    this.#lengths = lengths;
    this.#options = { shuffle: true, ...options };
    this.#size = options.sets.reduce((sum, { weight, count }) => sum + (weight > 0 ? count : 0), 0);
    this.#begin();
  }

  /** Sample numbers of an epoch, in their order. Those of the epochs before are drawn again where they have not just been. */
  order(epoch: number): Uint32Array {
    if (epoch < this.#next) this.#begin();
    while (this.#next < epoch) this.#draw(() => {});
    const order = new Uint32Array(this.#size);
    this.#draw((sample, place) => order[place] = sample);
    return order;
  }

  #begin(): void {
    const { sets } = this.#options;
    const names = sets.map(({ name }) => name).sort();
    let first = 0;
    this.#sets = sets.flatMap(({ name, weight, count }): Drawing[] => {
      const number = names.indexOf(name);
      const set = { weight, count, first, number, epoch: 0, order: new Uint32Array(), at: 0, drawn: 0 };
      first += count;
      return weight > 0 && count > 0 ? [set] : [];
    }).sort((a, b) => a.number - b.number);
    for (const set of this.#sets) set.order = this.#orderOf(set);
    this.#next = 0;
  }

  #orderOf({ count, epoch, number }: Drawing): Uint32Array {
    const { seed, shuffle } = this.#options;
    return shuffle
      ? permutation(count, seed, epoch, number)
      : Uint32Array.from({ length: count }, (_, i) => i);
  }

  #draw(take: (sample: number, place: number) => void): void {
    for (let place = 0; place < this.#size; place++) {
      let chosen = this.#sets[0]!;
      for (let i = 1, least = this.#lag(chosen); i < this.#sets.length; i++) {
        const lag = this.#lag(this.#sets[i]!);
        if (lag < least) [chosen, least] = [this.#sets[i]!, lag];
      }
      take(chosen.first + chosen.order[chosen.at]!, place);
      chosen.drawn += this.#sizeOfNext(chosen);
      if (++chosen.at < chosen.count) continue;
      chosen.at = 0;
      chosen.epoch++;
      chosen.order = this.#orderOf(chosen);
    }
    this.#next++;
  }

  /** Where the middle of its next sample would come, were all drawn in their shares. */
  #lag(set: Drawing): number {
    return (set.drawn + this.#sizeOfNext(set) / 2) / set.weight;
  }

  #sizeOfNext({ first, order, at }: Drawing): number {
    return this.#options.by === "rows" ? 1 : this.#lengths[first + order[at]!]!;
  }
}
