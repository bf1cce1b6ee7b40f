/**
 * Where the rows of experts lie: each expert's begin at a tile of 32.
 *
 * @module
 */
import type { Value } from "./harness.ts";

/** Tiles i32 [tiles, 2] and ranges i32 [experts, 2], as the kernels are told, and whose each row is: -1 is nobody. */
export function places(counts: readonly number[]) {
  const [tiles, ranges, expertOfRow]: [number[], number[], number[]] = [[], [], []];
  counts.forEach((count, e) => {
    ranges.push(expertOfRow.length, count);
    for (let left = count; left > 0; left -= 32) {
      tiles.push(e, Math.min(left, 32));
      for (let r = 0; r < 32; r++) expertOfRow.push(r < left ? e : -1);
    }
  });
  const i32 = (data: number[]): Value => ({
    shape: [data.length / 2, 2],
    dtype: "i32",
    data: Int32Array.from(data),
  });
  return { tiles: i32(tiles), ranges: i32(ranges), expertOfRow };
}
