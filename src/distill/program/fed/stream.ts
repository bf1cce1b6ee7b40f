/**
 * Writing a packed stream into a program.
 *
 * @module
 */
import { switchedRows } from "../../../models/context.ts";
import type { Executable } from "../../../tensor/executable.ts";

/** The arrays of a stream, each i32 [T]; see `StreamInputs`. */
export interface StreamArrays {
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly start: Int32Array;
  readonly end: Int32Array;
}

/** Of a stream whose tokens another kernel makes, all but those. */
export type WrittenStream = Omit<StreamArrays, "tokens"> & Partial<Pick<StreamArrays, "tokens">>;

/**
 * Writes a stream's arrays, and what models of the program derive from them.
 *
 * @param reach How many tokens the sequence of each position has, as far as it is known
 * @param prefix Of the stream's inputs
 */
export function writeStream(
  executable: Executable,
  stream: WrittenStream,
  reach: (t: number) => number,
  prefix = "",
): void {
  for (const [name, data] of Object.entries(stream) as [string, Int32Array][]) {
    executable.write(`${prefix}${name}`, data);
  }
  const names = executable.plan.storages.keys();
  for (const [name, rows] of switchedRows(names, stream.positions, reach, prefix)) {
    executable.write(name, rows);
  }
}

/** Likewise, of samples that are packed whole. */
export function writeSamples(executable: Executable, stream: StreamArrays, prefix = ""): void {
  const ends = sampleEnds(stream.start);
  writeStream(executable, stream, (t) => ends[t]! - stream.start[t]!, prefix);
}

/** One past the last position of each position's sample, i32 [T]. */
export function sampleEnds(start: Int32Array): Int32Array {
  const ends = new Int32Array(start.length);
  for (let t = start.length - 1; t >= 0; t--) {
    ends[t] = start[t + 1] === start[t] ? ends[t + 1]! : t + 1;
  }
  return ends;
}
