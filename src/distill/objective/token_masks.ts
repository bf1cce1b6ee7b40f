/**
 * Which positions each loss of an objective counts, as bits of a word for each position.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packBatch, type PackedBatch } from "../../text/packing.ts";

/** The positions that a loss counts. */
export interface TokenChoice {
  /**
   * `supervised` (default): those that predict a target. `all`: those with a next token in their sample, prompts included.
   * `unshifted`: those that hold a target, one later than those that predict it. Some papers' codes do so by mistake.
   */
  readonly tokens?: "supervised" | "all" | "unshifted";
  /** Samples of this origin alone. */
  readonly source?: string;
}

/** What the head needs of a batch. */
export interface MarkedBatch {
  /** Of each position, i32 [T]: the next token where some mask counts it, else -100. */
  readonly labels: Int32Array;
  /** Bits of each position, i32 [T]; absent where all losses count the same positions, those with a label. */
  readonly masks?: Int32Array;
  /** Positions in each mask, by bit. */
  readonly counts: readonly number[];
}

/** Bits of a word. */
const MOST = 32;

/** The different choices of an objective's losses. Mask 0 is the default. */
export class TokenMasks {
  readonly #choices: readonly Required<TokenChoice>[];

  /** @throws {InputError} more than 31 choices beside the default */
  constructor(choices: readonly TokenChoice[]) {
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

  /** Counts of no batch: a zero for each mask. */
  get none(): readonly number[] {
    return this.#choices.map(() => 0);
  }

  /** The bit of a choice that the constructor was given. */
  bit(choice: TokenChoice): number {
    return this.#choices.findIndex((c) => keyOf(c) === keyOf(choice));
  }

  /** What is said of a mask after the name of a loss; nothing of the default. */
  description(bit: number): string {
    const { tokens, source } = this.#choices[bit]!;
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
    if (!this.needed) return { labels: batch.label, counts: [batch.supervised] };
    const { tokens, segment, label, origins } = batch;
    const length = tokens.length;
    const labels = new Int32Array(length).fill(IGNORED_LABEL);
    const masks = new Int32Array(length);
    const counts = [...this.none];
    for (let t = 0; t < length && segment[t]! >= 0; t++) {
      const sample = segment[t]!;
      const hasNext = t + 1 < length && segment[t + 1] === sample;
      const isIn = {
        supervised: label[t] !== IGNORED_LABEL,
        all: hasNext,
        unshifted: t > 0 && segment[t - 1] === sample && label[t - 1] !== IGNORED_LABEL,
      };
      this.#choices.forEach(({ tokens, source }, bit) => {
        if (!isIn[tokens] || (source !== ANY && source !== origins[sample])) return;
        masks[t]! |= 1 << bit;
        counts[bit]!++;
      });
      if (masks[t] !== 0 && hasNext) labels[t] = tokens[t + 1]!;
    }
    return { labels, masks, counts };
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

function complete({ tokens = "supervised", source = ANY }: TokenChoice): Required<TokenChoice> {
  return { tokens, source };
}

function keyOf(choice: TokenChoice): string {
  const { tokens, source } = complete(choice);
  return `${tokens} ${source}`;
}
