/**
 * Which positions each loss of an objective counts, as bits of a word for each position.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { GroupRows } from "../../losses/group_contract.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { ON_POLICY } from "../recipe/recipe.ts";
import { IGNORED_LABEL, packBatch, type PackedBatch } from "../../text/packing.ts";
import { countedGroups } from "./groups/places.ts";

/** The positions that a loss counts. */
export interface TokenChoice {
  /**
   * `supervised` (default): those that predict a target. `all`: those with a next token in their sample, prompts included.
   * `unshifted`: those that hold a target, one later than those that predict it. Some papers' codes do so by mistake. `pair`: those that
   * predict what is learnt of either text of a pair. `pairHead`: one for each pair.
   */
  readonly tokens?: "supervised" | "all" | "unshifted" | "pair" | "pairHead";
  /** Samples of this origin alone. */
  readonly source?: string;
  /** Samples of the training data alone, and none that the student has written in the run. */
  readonly data?: boolean;
}

/** What the head needs of a batch. */
export interface MarkedBatch {
  /** Of each position, i32 [T]: the next token where some mask counts it, else -100. */
  readonly labels: Int32Array;
  /** Bits of each position, i32 [T]; absent where all losses count the same positions, those with a label. */
  readonly masks?: Int32Array;
  /** Positions in each mask, by bit; then groups of tokens, by what stands for them. */
  readonly counts: readonly number[];
}

/** Bits of a word. */
const MOST = 32;

/** The different choices of an objective's losses. Mask 0 is the default. */
export class TokenMasks {
  readonly #choices: readonly Required<TokenChoice>[];
  readonly #groups: readonly GroupRows[];

  /**
   * @param groups What stands for the groups of tokens that some losses compare
   * @throws {InputError} more than 31 choices beside the default
   */
  constructor(choices: readonly TokenChoice[], groups: readonly GroupRows[] = []) {
    this.#groups = [...new Set(groups)];
    const found = new Map([{}, ...choices].map((choice) => [keyOf(choice), complete(choice)]));
    if (found.size > MOST) {
      throw new InputError(
        `the losses count ${found.size} different sets of tokens; at most ${MOST} can be told apart`,
        {
          where: "recipe objective",
          hint: "Give fewer losses a source of their own.",
        },
      );
    }
    this.#choices = [...found.values()];
  }

  /** Whether some loss counts other positions than the supervised ones, so that kernels must be told which. */
  get needed(): boolean {
    return this.#choices.length > 1;
  }

  /** Counts of no batch: a zero for each mask, and for each count of groups. */
  get none(): readonly number[] {
    return [...this.#choices, ...this.#groups].map(() => 0);
  }

  /** The place, among the counts, of groups with such rows. */
  groupCount(rows: GroupRows): number {
    return this.#choices.length + this.#groups.indexOf(rows);
  }

  /** The bit of a choice that the constructor was given. */
  bit(choice: TokenChoice): number {
    return this.#choices.findIndex((c) => keyOf(c) === keyOf(choice));
  }

  /** What is said of a mask after the name of a loss; nothing of the default. */
  description(bit: number): string {
    const choice = this.#choices[bit];
    if (!choice) return "";
    const { tokens, source } = choice;
    // What of a choice is about the run's own texts is the same for all held-out samples.
    return (tokens === "supervised" ? "" : ` of ${tokens} tokens`) +
      (source === ANY ? "" : ` of source ${source}`);
  }

  /** Positions of a sample that some loss counts, from 0, rising: the same wherever it lies in a batch. */
  positions(sample: EncodedSample): number[] {
    return countedPositions(this.mark(packBatch([sample], sample.ids.length)), 0, sample.ids.length);
  }

  /** Supervised positions of a sample. */
  supervised(sample: EncodedSample): number {
    return this.mark(packBatch([sample], sample.ids.length)).counts[0]!;
  }

  /** Marks the positions of a batch. */
  mark(batch: PackedBatch): MarkedBatch {
    const groups = this.#groups.map((rows) =>
      batch.members.reduce((sum, member) => sum + countedGroups(member, rows).length, 0)
    );
    if (!this.needed) return { labels: batch.label, counts: [batch.supervised, ...groups] };
    const { tokens, segment, label, origins, pairs } = batch;
    const length = tokens.length;
    const labels = new Int32Array(length).fill(IGNORED_LABEL);
    const masks = new Int32Array(length);
    const counts = this.#choices.map(() => 0);
    for (let t = 0; t < length && segment[t]! >= 0; t++) {
      const sample = segment[t]!;
      const hasNext = t + 1 < length && segment[t + 1] === sample;
      const isIn = {
        supervised: label[t] !== IGNORED_LABEL,
        all: hasNext,
        pair: pairs !== undefined && pairs.role[t] !== 0,
        pairHead: pairs !== undefined && pairs.head[t] !== 0,
        unshifted: t > 0 && segment[t - 1] === sample && label[t - 1] !== IGNORED_LABEL,
      };
      this.#choices.forEach(({ tokens, source, data }, bit) => {
        if (!isIn[tokens] || (source !== ANY && source !== origins[sample])) return;
        if (data && origins[sample] === ON_POLICY) return;
        masks[t]! |= 1 << bit;
        counts[bit]!++;
      });
      if (masks[t] !== 0 && hasNext) labels[t] = tokens[t + 1]!;
    }
    return { labels, masks, counts: [...counts, ...groups] };
  }
}

/** Positions of a batch, from `start` up to `end`, that some loss counts. */
export function countedPositions({ labels, masks }: MarkedBatch, start: number, end: number): number[] {
  const found: number[] = [];
  for (let t = start; t < end; t++) if (masks ? masks[t] !== 0 : labels[t] !== IGNORED_LABEL) found.push(t);
  return found;
}

/** Samples of every origin. No row has it: an empty source counts as none. */
const ANY = "";

function complete(
  { tokens = "supervised", source = ANY, data = false }: TokenChoice,
): Required<TokenChoice> {
  return { tokens, source, data };
}

function keyOf(choice: TokenChoice): string {
  const { tokens, source, data } = complete(choice);
  return `${tokens} ${data} ${source}`;
}
