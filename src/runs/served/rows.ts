/**
 * From what a server says of a text to the rows of a cache.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { RowCodec, type RowFormat } from "../../distill/teacher/cached_rows.ts";
import { HiddenCodec, type HiddenFormat } from "../../distill/teacher/hidden_rows.ts";
import { EMPTY_TAIL } from "../../losses/sparse_target.ts";
import type { PlaceScores } from "../../served/answers.ts";
import type { WantedSample } from "../child/served_samples.ts";

/**
 * Least probability of all tokens together that are not among the K likeliest. Servers tell f32, and the sum of K of them is known to
 * about as much; what is left can be less, but not none.
 */
const LEAST_REST = 2 ** -24;

/**
 * The rows of a sample, one for each of its positions. Row t is what the server says may follow token t: the K likeliest as logits, which
 * log-probabilities are, and of the others together log(1 - sum p), both as distances from the likeliest.
 *
 * @throws {InputError} a position is the last, and the server did not say what may follow it
 */
export function rowsOf(
  { positions, ids: { length }, where }: WantedSample,
  { ids, logProbabilities, hasNext }: PlaceScores,
  format: RowFormat,
): Uint8Array<ArrayBuffer> {
  const codec = new RowCodec(format);
  const top = format.target.entries;
  const bytes = new Uint8Array(positions.length * codec.bytes);
  positions.forEach((t, i) => {
    if (t + 1 === length && !hasNext) {
      throw new InputError("the server does not say what may follow the last token, which a loss asks for", {
        where,
        hint: "Leave out tokens: unshifted of the loss, or ask a server that tells ids with its logprobs.",
      });
    }
    const row = (t + 1) * top;
    const values = Float32Array.from(logProbabilities.subarray(row, row + top));
    const good = codec.write(
      { ids: ids.subarray(row, row + top), values, tails: [tailOf(values, format.vocabulary)] },
      bytes.buffer,
      i * codec.bytes,
    );
    if (good) return;
    const most = format.vocabulary - 1;
    throw new InputError(
      `the server names tokens that the student does not have, whose ids go up to ${most}`,
      {
        where,
        hint: "Its model has another vocabulary: teacher and student must have the same one.",
      },
    );
  });
  return bytes;
}

/** Likewise, of hidden states. */
export function hiddenRowsOf(
  { positions }: WantedSample,
  states: Float32Array,
  format: HiddenFormat,
): Uint8Array<ArrayBuffer> {
  const codec = new HiddenCodec(format);
  const bytes = new Uint8Array(positions.length * codec.bytes);
  positions.forEach((t, i) => {
    codec.write(states.subarray(t * format.width, (t + 1) * format.width), bytes.buffer, i * codec.bytes);
  });
  return bytes;
}

/** log of what the others weigh, as a distance from the likeliest. */
function tailOf(values: Float32Array, vocabulary: number): number {
  if (values.length === vocabulary) return EMPTY_TAIL;
  const sum = values.reduce((total, value) => total + Math.exp(value), 0);
  return Math.log(Math.max(1 - sum, LEAST_REST)) - values[0]!;
}
