/**
 * Orders of rows: some converters of llama.cpp move the rows of a matrix, and of its bias with it.
 *
 * @module
 */
import type { FloatData } from "../../dtype.ts";

/**
 * `neighbours`: a head rotates its rows 2i and 2i + 1 together, where Hugging Face rotates i and i + d/2. `parts`: all queries, all keys, all
 * values, where Hugging Face has queries, keys and values of each head beside each other.
 */
export type RowOrder = "neighbours" | "parts";

/** Heads, as far as orders depend on them. */
export interface Heads {
  readonly headDim: number;
  readonly attentionHeads: number;
}

/** Rows one after another, of values or of bytes. */
export type Rows = FloatData | Uint8Array<ArrayBuffer>;

/**
 * Where each row lies in the file.
 *
 * @param rows Rows of the tensor
 * @returns undefined for a tensor that has not the shape for it, which is reported where config and tensors are compared
 */
export function storedRows(order: RowOrder, rows: number, heads: Heads): Uint32Array | undefined {
  const { headDim, attentionHeads } = heads;
  if (rows % headDim !== 0 || (order === "parts" && rows !== 3 * attentionHeads * headDim)) return undefined;
  return Uint32Array.from({ length: rows }, (_, row) => {
    const [head, place] = [Math.floor(row / headDim), row % headDim];
    if (order === "parts") return (head % 3 * attentionHeads + Math.floor(head / 3)) * headDim + place;
    const half = headDim / 2;
    return head * headDim + (place < half ? 2 * place : 2 * (place - half) + 1);
  });
}

/** Rows as the file has them. @param stored From {@linkcode storedRows} */
export function toStored<T extends Rows>(data: T, stored: Uint32Array): T {
  const width = data.length / stored.length;
  const moved = data.slice() as T;
  stored.forEach((to, row) => moved.set(data.subarray(row * width, (row + 1) * width), to * width));
  return moved;
}

/** A range of the file's rows. */
export interface RowRange {
  readonly first: number;
  readonly count: number;
}

/** Rows that are asked for, as ranges of the file's rows that hold all of them, rising, with little between. */
export function rangesOf(wanted: Uint32Array): RowRange[] {
  const rising = wanted.toSorted();
  const ranges: { first: number; count: number }[] = [];
  for (const row of rising) {
    const last = ranges.at(-1);
    if (last && row - (last.first + last.count) <= NEAR) last.count = row - last.first + 1;
    else ranges.push({ first: row, count: 1 });
  }
  return ranges;
}

/** Rows that are rather read than jumped over. */
const NEAR = 64;

/** Picks rows out of ranges that were read. */
export function pickRows<T extends Rows>(
  wanted: Uint32Array,
  ranges: readonly RowRange[],
  read: readonly T[],
): T {
  const width = read.length === 0 ? 0 : read[0]!.length / ranges[0]!.count;
  const picked = (read[0]?.constructor ?? Uint8Array) as unknown as new (length: number) => T;
  const rows = new picked(wanted.length * width);
  wanted.forEach((row, i) => {
    const at = ranges.findIndex(({ first, count }) => row >= first && row < first + count);
    const from = (row - ranges[at]!.first) * width;
    rows.set(read[at]!.subarray(from, from + width), i * width);
  });
  return rows;
}
