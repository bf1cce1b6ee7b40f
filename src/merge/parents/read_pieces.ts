/**
 * Tensors of parents as f32, whole or some rows of them, in the rows of the result.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type FloatDtype, fromFloat32, scanNonFinite, toFloat32 } from "../../formats/dtype.ts";
import type { Parents } from "./parents.ts";
import type { ParentRows, Vocabulary } from "./vocabulary.ts";

/** A tensor of a parent, by the names of both. */
export interface ParentTensor {
  readonly parent: string;
  readonly name: string;
}

/** Where values are read from and what they are rounded to first. */
export interface InputReader {
  readonly parents: Parents;
  readonly vocabulary: Vocabulary;
  /** As they are stored when absent. */
  readonly dtype: FloatDtype | undefined;
}

/**
 * Rows of a parent's tensor, f32.
 *
 * @param ofTokens Whether rows are tokens, which the result may have in another order
 * @throws {InputError} naming model and tensor, if a value is NaN or infinite, or does not fit the dtype
 */
export async function readRows(
  { parents, vocabulary, dtype }: InputReader,
  { parent, name }: ParentTensor,
  first: number,
  count: number,
  ofTokens: boolean,
): Promise<Float32Array<ArrayBuffer>> {
  const own = (first: number, count: number) => readOwnRows(parents, parent, name, first, count, dtype);
  const rows = ofTokens ? vocabulary.sources?.get(parent) : undefined;
  if (!rows) return await own(first, count);
  const shape = parents.get(parent).source.tensors.get(name)!.shape;
  const width = shape.slice(1).reduce((product, size) => product * size, 1);
  const values = new Float32Array(count * width);
  for (const { at, row, length } of runs(rows, first, count)) {
    values.set(await own(row, length), at * width);
  }
  for (let i = 0; i < count; i++) {
    const borrowed = rows.borrowed.get(first + i) ?? [];
    for (const { parent: other, row } of borrowed) {
      const donated = await readOwnRows(parents, other, name, row, 1, dtype);
      for (let k = 0; k < width; k++) values[i * width + k]! += donated[k]! / borrowed.length;
    }
  }
  return values;
}

/** Rows that follow one another in the parent too: place in the piece, row of the parent, how many. */
function* runs(
  { own }: ParentRows,
  first: number,
  count: number,
): Generator<{ at: number; row: number; length: number }> {
  for (let at = 0; at < count;) {
    const row = own[first + at]!;
    let length = 1;
    while (at + length < count && own[first + at + length] === (row < 0 ? -1 : row + length)) length++;
    if (row >= 0) yield { at, row, length };
    at += length;
  }
}

async function readOwnRows(
  parents: Parents,
  parent: string,
  name: string,
  first: number,
  count: number,
  dtype: FloatDtype | undefined,
): Promise<Float32Array<ArrayBuffer>> {
  const { source } = parents.get(parent);
  const [rows, ...row] = source.tensors.get(name)!.shape;
  const whole = first === 0 && count === rows;
  const stored = whole ? await source.read(name) : await source.readRows(name, first, count);
  const width = row.reduce((product, size) => product * size, 1);
  const checkFinite = (dtype: FloatDtype, data: typeof stored.data, what: string) => {
    const wrong = scanNonFinite(dtype, data);
    if (!wrong) return;
    throw new InputError(
      `${wrong.count} values of tensor ${name} (the first at ${first * width + wrong.first}) ${what}`,
      {
        where: parent,
        hint: "The weights are damaged, or come from a training that diverged: get the model again.",
      },
    );
  };
  checkFinite(stored.dtype, stored.data, "are NaN or infinite");
  const values = toFloat32(stored.dtype, stored.data);
  if (dtype === undefined || dtype === "f32" || dtype === stored.dtype) return values;
  const rounded = fromFloat32(dtype, values);
  checkFinite(dtype, rounded, `are too large for ${dtype}`);
  return toFloat32(dtype, rounded);
}
