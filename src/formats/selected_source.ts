/**
 * A model made of rows and columns of another, nothing of it written: a {@linkcode ModelSource} that reads another and selects.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { type FloatData, type FloatDtype, fromFloat32, toFloat32 } from "./dtype.ts";
import type { ModelSource, TensorData, TensorInfo } from "./model_source.ts";
import { checkRows } from "./safetensors/safetensors.ts";

/** A tensor, as what of another it is. Its values are stored as those of `from` are. */
export interface SelectedTensor {
  readonly shape: readonly number[];
  /** The tensor whose storage it has. */
  readonly from: string;
  /** Zeros in place of all that `from` holds. */
  readonly empty?: boolean;
  /** The rows of `from` that it has, -1 for a row of zeros; all when absent. */
  readonly rows?: readonly number[] | undefined;
  /** The columns of `from` that it has, -1 for a column of zeros; all when absent. */
  readonly columns?: readonly number[] | undefined;
  /** Added to its values, in f64 before they are rounded to its storage; for vectors. */
  readonly plus?: Float64Array | undefined;
}

/** What a selected model has that its source has not. */
export interface Selection {
  readonly config: Record<string, unknown>;
  readonly tensors: ReadonlyMap<string, SelectedTensor>;
  /** The fingerprint, given that of the source. */
  fingerprint(source: string): string;
}

/**
 * A model of selected rows and columns. Closing it closes the source.
 *
 * @throws {InputError} when a tensor it selects from is not there
 */
export function selectFromModel(source: ModelSource, selection: Selection): ModelSource {
  const tensors = new Map<string, TensorInfo>();
  for (const [name, { from, shape }] of selection.tensors) {
    const info = source.tensors.get(from);
    if (!info) throw new InputError(`there is no tensor ${from}`, { where: source.path });
    tensors.set(name, { ...info, shape: [...shape] });
  }
  const readRows = async (name: string, first: number, count: number): Promise<TensorData> => {
    const selected = selection.tensors.get(name);
    if (!selected) throw new InputError(`there is no tensor ${name}`, { where: source.path });
    checkRows(source.path, name, selected.shape, first, count);
    return await select(source, selected, first, count);
  };
  return {
    path: source.path,
    kind: source.kind,
    config: selection.config,
    tensors,
    read: async (name) => await readRows(name, 0, tensors.get(name)?.shape[0] ?? 0),
    readRows,
    tokenizer: () => source.tokenizer(),
    fingerprint: async () => selection.fingerprint(await source.fingerprint()),
    close: () => source.close(),
  };
}

async function select(
  source: ModelSource,
  { from, shape, empty, rows, columns, plus }: SelectedTensor,
  first: number,
  count: number,
): Promise<TensorData> {
  const { exactDtype: dtype } = source.tensors.get(from)!;
  const width = shape.slice(1).reduce((a, b) => a * b, 1);
  // Zero bits are zeros in every storage.
  const data = dtype === "f32" ? new Float32Array(count * width) : new Uint16Array(count * width);
  const wanted = Array.from({ length: count }, (_, i) => rows ? rows[first + i]! : first + i);
  const there = wanted.filter((row) => row >= 0);
  if (!empty && there.length > 0) {
    const lowest = there.reduce((a, b) => Math.min(a, b));
    const highest = there.reduce((a, b) => Math.max(a, b));
    // One read for all: what lies between is thrown away, which costs less than many small reads.
    const read = await source.readRows(from, lowest, highest - lowest + 1);
    const stored = read.data.length / read.shape[0]!;
    wanted.forEach((row, i) => {
      if (row < 0) return;
      const values = read.data.subarray((row - lowest) * stored, (row - lowest + 1) * stored);
      if (!columns) data.set(values, i * width);
      else columns.forEach((column, j) => column >= 0 && (data[i * width + j] = values[column]!));
    });
  }
  return { dtype, shape: [count, ...shape.slice(1)], data: plus ? sum(dtype, data, plus, first) : data };
}

function sum(dtype: FloatDtype, data: FloatData, plus: Float64Array, first: number): FloatData {
  return fromFloat32(dtype, toFloat32(dtype, data).map((value, i) => value + plus[first + i]!));
}
