/**
 * Ranges of a plan's buffers.
 *
 * @module
 */

/** A range of one of the plan's buffers. */
export interface Range {
  readonly buffer: number;
  readonly offset: number;
  readonly bytes: number;
}

/** Whether both are the same bytes. */
export function isSameRange(a: Range, b: Range): boolean {
  return a.buffer === b.buffer && a.offset === b.offset && a.bytes === b.bytes;
}

/** Whether a byte is in both. */
export function overlaps(a: Range, b: Range): boolean {
  return a.buffer === b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

/** The least range that holds all of them; undefined where they are of several buffers. */
export function cover(ranges: readonly Range[]): Range | undefined {
  const { buffer } = ranges[0]!;
  if (ranges.some((r) => r.buffer !== buffer)) return undefined;
  const offset = Math.min(...ranges.map((r) => r.offset));
  return { buffer, offset, bytes: Math.max(...ranges.map((r) => r.offset + r.bytes)) - offset };
}
