/**
 * The one shape of a batch: a flat stream of tokens, samples back to back, with each token's key range and label.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { type EncodedSample, sampleLength } from "./encode.ts";

/** Label of a position whose next token is not a target. */
export const IGNORED_LABEL = -100;

/**
 * A micro-batch of T tokens. The query at t attends the keys j with `kvStart[t] <= j < kvEnd[t]`.
 * Filler at the end has token 0, position 0, segment -1, label -100 and attends itself alone.
 */
export interface PackedBatch {
  /** Token ids, `[T]`. */
  tokens: Int32Array;
  /** Place of the token in its sample, from 0, `[T]`. */
  position: Int32Array;
  /** Number of the sample in this batch, from 0; -1 for filler, `[T]`. */
  segment: Int32Array;
  /** First key: the sample's first token, `[T]`. */
  kvStart: Int32Array;
  /** End of the keys, exclusive: t + 1, `[T]`. */
  kvEnd: Int32Array;
  /** The token at t + 1 of the same sample if it is a target, else -100, `[T]`. */
  label: Int32Array;
  /** Count of labels that are not -100. */
  supervised: number;
  /** Count of samples. */
  samples: number;
  /** Who wrote each sample, where its row says so, in the order of `segment`. */
  origins: (string | undefined)[];
  /** The samples themselves, in the order of their segments: of a pair the chosen text, then the rejected one, as samples of their own. */
  members: readonly EncodedSample[];
  /** Where the texts of pairs lie; absent where there are none. */
  pairs?: PackedPairs;
}

/** For each position of a text of a pair, where its pair lies; each `[T]`, and 0 where there is no pair. */
export interface PackedPairs {
  /** 1 where a token of the chosen text is predicted that is learnt, -1 likewise of the rejected one. */
  role: Int32Array;
  /** 1 at one position of each pair. */
  head: Int32Array;
  chosenStart: Int32Array;
  chosenEnd: Int32Array;
  rejectedStart: Int32Array;
  rejectedEnd: Int32Array;
}

/**
 * Lays samples out in one batch, in the order given.
 *
 * @param tokensPerBatch T; the samples together must not be longer
 *
 * @example
 * ```ts ignore
 * const batch = packBatch([{ ids: Int32Array.of(7, 9), supervised: Uint8Array.of(0, 1), source }], 4);
 * batch.label; // [9, -100, -100, -100]: position 0 predicts the token at 1
 * ```
 */
export function packBatch(samples: readonly EncodedSample[], tokensPerBatch: number): PackedBatch {
  const used = samples.reduce((sum, sample) => sum + sampleLength(sample), 0);
  if (used > tokensPerBatch) throw new RangeError(`${used} tokens do not fit a batch of ${tokensPerBatch}`);
  const texts = samples.flatMap((sample): EncodedSample[] => {
    const { rejected, source, ...chosen } = sample;
    return rejected ? [{ ...chosen, source }, { ...rejected, source }] : [sample];
  });
  const pairs = samples.some(({ rejected }) => rejected) ? emptyPairs(tokensPerBatch) : undefined;
  const batch: PackedBatch = {
    tokens: new Int32Array(tokensPerBatch),
    position: new Int32Array(tokensPerBatch),
    segment: new Int32Array(tokensPerBatch).fill(-1),
    kvStart: Int32Array.from({ length: tokensPerBatch }, (_, t) => t),
    kvEnd: Int32Array.from({ length: tokensPerBatch }, (_, t) => t + 1),
    label: new Int32Array(tokensPerBatch).fill(IGNORED_LABEL),
    supervised: 0,
    samples: texts.length,
    origins: texts.map((text) => text.origin),
    members: texts,
    ...(pairs ? { pairs } : {}),
  };
  let start = 0;
  const place = (
    { ids, supervised }: Pick<EncodedSample, "ids" | "supervised">,
    segment: number,
    isRejected: boolean,
  ) => {
    batch.tokens.set(ids, start);
    batch.segment.fill(segment, start, start + ids.length);
    batch.kvStart.fill(start, start, start + ids.length);
    for (let i = 0; i < ids.length; i++) {
      batch.position[start + i] = i;
      if (isRejected || i + 1 === ids.length || !supervised[i + 1]) continue;
      batch.label[start + i] = ids[i + 1];
      batch.supervised++;
    }
    start += ids.length;
  };
  let segment = 0;
  for (const sample of samples) {
    const first = start;
    place(sample, segment++, false);
    if (!sample.rejected) continue;
    place(sample.rejected, segment++, true);
    placePair(pairs!, sample, first);
  }
  return batch;
}

function emptyPairs(length: number): PackedPairs {
  const column = () => new Int32Array(length);
  return {
    ...{ role: column(), head: column() },
    ...{ chosenStart: column(), chosenEnd: column(), rejectedStart: column(), rejectedEnd: column() },
  };
}

/** Writes where a pair lies that begins at `first`. */
function placePair(pairs: PackedPairs, { ids, supervised, rejected }: EncodedSample, first: number): void {
  const middle = first + ids.length;
  const end = middle + rejected!.ids.length;
  const of = (flags: Uint8Array, start: number, role: number) =>
    flags.forEach((flag, i) => i > 0 && flag && (pairs.role[start + i - 1] = role));
  of(supervised, first, 1);
  of(rejected!.supervised, middle, -1);
  pairs.head[first] = 1;
  pairs.chosenStart.fill(first, first, end);
  pairs.chosenEnd.fill(middle, first, end);
  pairs.rejectedStart.fill(middle, first, end);
  pairs.rejectedEnd.fill(end, first, end);
}

/** How many waiting samples are looked at to fill a batch; more fills better, but planning costs more. */
const LOOK_AHEAD = 64;

/** What of a second tokenizer's encodings, or of privileged tokens, goes into a batch: of each sample, and together. */
export interface OtherRoom {
  readonly lengths: ArrayLike<number>;
  readonly tokensPerBatch: number;
}

/** The room that samples take in a second stream, where they have one: that of privileged tokens beside the student's own. */
export function otherRoom(
  samples: readonly EncodedSample[],
  tokensPerBatch: number | undefined,
): OtherRoom | undefined {
  if (tokensPerBatch === undefined) return undefined;
  const lengths = Int32Array.from(samples, ({ other, privileged }) => (other ?? privileged)?.ids.length ?? 0);
  return { lengths, tokensPerBatch };
}

/** The samples of a batch as a second tokenizer has them. */
export function packOther(samples: readonly EncodedSample[], tokensPerBatch: number): PackedBatch {
  return packBatch(
    samples.map(({ source, other }) => ({ ids: other!.ids, supervised: other!.supervised, source })),
    tokensPerBatch,
  );
}

/**
 * Groups samples into batches: each batch takes the first waiting sample, then whichever of the next ones still fit, in order.
 * No sample waits for ever, since the first in line always goes into the next batch.
 *
 * @param lengths tokens of each sample, all at most `tokensPerBatch`
 * @param order sample numbers in the order they wait
 * @param lookAhead waiting samples to consider; 1 packs strictly in order
 * @param other where a batch holds the samples' encodings of a second tokenizer too: both have to fit
 */
export function planBatches(
  lengths: ArrayLike<number>,
  order: ArrayLike<number>,
  tokensPerBatch: number,
  lookAhead: number = LOOK_AHEAD,
  other?: OtherRoom,
): number[][] {
  const batches: number[][] = [];
  const window: number[] = [];
  let next = 0;
  const refill = () => {
    while (window.length < lookAhead && next < order.length) window.push(order[next++]);
  };
  refill();
  while (window.length > 0) {
    const batch: number[] = [];
    let room = tokensPerBatch;
    let beside = other?.tokensPerBatch ?? 0;
    for (let i = 0; i < window.length && room > 0;) {
      const otherLength = other?.lengths[window[i]] ?? 0;
      if (lengths[window[i]] <= room && otherLength <= beside) {
        room -= lengths[window[i]];
        beside -= otherLength;
        batch.push(...window.splice(i, 1));
        refill();
      } else i++;
    }
    batches.push(batch);
  }
  return batches;
}

/** @throws {InputError} no samples, or one that is longer than a batch */
export function checkFits(samples: readonly EncodedSample[], tokensPerBatch: number): void {
  if (!Number.isInteger(tokensPerBatch) || tokensPerBatch < 1) {
    throw new InputError(`tokens per batch must be a whole number from 1, not ${tokensPerBatch}`);
  }
  if (samples.length === 0) throw new InputError("there are no samples to make batches of");
  for (const sample of samples) {
    const { source, rejected } = sample;
    const length = sampleLength(sample);
    if (length > tokensPerBatch) {
      throw new InputError(
        `the ${rejected ? "pair" : "sample"} has ${length} tokens, but a micro-batch holds ${tokensPerBatch}`,
        {
          where: `${source.file}:${source.line}`,
          hint: `Raise train.tokensPerMicroBatch to at least ${rejected ? "twice " : ""}data.contextLength.`,
        },
      );
    }
  }
}

/**
 * Batches in file order, for evaluation.
 *
 * @param otherTokens Tokens of a batch in the second tokenizer's encoding, or privileged ones, where samples have some
 * @throws {InputError} no samples, or one that is longer than a batch
 */
export function packSequential(
  samples: readonly EncodedSample[],
  tokensPerBatch: number,
  otherTokens?: number,
): PackedBatch[] {
  checkFits(samples, tokensPerBatch);
  const lengths = samples.map(sampleLength);
  const other = otherRoom(samples, otherTokens);
  return planBatches(lengths, samples.map((_, i) => i), tokensPerBatch, 1, other)
    .map((batch) => packBatch(batch.map((i) => samples[i]), tokensPerBatch));
}
