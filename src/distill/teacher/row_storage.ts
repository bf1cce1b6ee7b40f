/**
 * What the rows of every payload can do.
 *
 * @module
 */
import type { TargetFeed } from "../program/fed/teacher_rows.ts";

/** Rows of a format, as they are stored. */
export interface RowStorage {
  /** Bytes of a row, a multiple of four. */
  readonly bytes: number;
  /** The inputs of a program with so many positions. */
  feed(positions: number): RowFeed;
}

/** Takes rows into the inputs of a program. */
export interface RowFeed {
  readonly inputs: TargetFeed["inputs"];
  /** Reads the row at a byte of `from`, a multiple of four, for a position. */
  read(from: ArrayBuffer, at: number, position: number): void;
}
