/**
 * Samples that the student has written, as batches hold them.
 *
 * @module
 */
import type { EncodedSample } from "../../../text/encode.ts";
import type { PackedBatch } from "../../../text/packing.ts";
import { NOT_DRAWN } from "../../objective/importance.ts";

/** A sample that the student has written. */
export interface WrittenSample extends EncodedSample {
  /** Of the supervised tokens, which are the last ones, when they were drawn. */
  readonly logProbabilities: readonly number[];
}

function isWritten(sample: EncodedSample): sample is WrittenSample {
  return "logProbabilities" in sample;
}

/** The log-probability of each position's label when the student drew it, f32 [T]; {@linkcode NOT_DRAWN} where it did not. */
export function drawnLogProbabilities({ members, tokens }: PackedBatch): Float32Array {
  const found = new Float32Array(tokens.length).fill(NOT_DRAWN);
  let end = 0;
  for (const sample of members) {
    end += sample.ids.length;
    // The label of a position is the token after it.
    if (isWritten(sample)) found.set(sample.logProbabilities, end - 1 - sample.logProbabilities.length);
  }
  return found;
}
