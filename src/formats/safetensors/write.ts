/**
 * Writing safetensors files, one tensor in memory at a time.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import { type ByteSink, writeAtomically } from "../files.ts";
import { safetensorsBits, type SafetensorsDtype } from "./safetensors.ts";

/** A tensor to be written. */
export interface SafetensorsSpec {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

/** Delivers the bytes of a tensor when its turn comes: at once, or in pieces. */
export type TensorProducer = (
  tensor: SafetensorsSpec,
) => ArrayBufferView | Promise<ArrayBufferView> | AsyncIterable<ArrayBufferView>;

/**
 * The header of a file with these tensors, and the order and size it gives them: larger dtypes first, then by name, so
 * that every tensor is aligned and the same tensors always make the same file.
 */
export function planSafetensors(
  tensors: Iterable<SafetensorsSpec>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): { header: Uint8Array; order: SafetensorsSpec[]; size: number } {
  const order = [...tensors].sort((a, b) =>
    safetensorsBits[b.dtype] - safetensorsBits[a.dtype] || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
  );
  const fields: string[] = [];
  if (Object.keys(metadata).length > 0) fields.push(`"__metadata__":${JSON.stringify(metadata)}`);
  const names = new Set(["__metadata__"]);
  let begin = 0;
  for (const { name, dtype, shape } of order) {
    if (names.has(name)) {
      throw new LimbeckError(`a safetensors file cannot hold one more tensor named ${name}`);
    }
    names.add(name);
    const end = begin + tensorBytes(dtype, shape);
    fields.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`);
    begin = end;
  }
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return { header, order, size: header.length + begin };
}

/** Bytes of a tensor. */
export function tensorBytes(dtype: SafetensorsDtype, shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1) * safetensorsBits[dtype] / 8;
}

/** Writes a safetensors file into a sink, asking for one tensor after another. */
export async function writeSafetensorsTo(
  sink: ByteSink,
  plan: ReturnType<typeof planSafetensors>,
  produce: TensorProducer,
): Promise<void> {
  await sink.write(plan.header);
  for (const tensor of plan.order) {
    const before = sink.position;
    const produced = produce(tensor);
    const pieces = Symbol.asyncIterator in produced ? produced : [await produced];
    for await (const piece of pieces) {
      await sink.write(new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength));
    }
    const expected = tensorBytes(tensor.dtype, tensor.shape);
    if (sink.position - before !== expected) {
      throw new LimbeckError(
        `tensor ${tensor.name}: ${tensor.dtype} [${tensor.shape}] needs ${expected} bytes, ${
          sink.position - before
        } came`,
      );
    }
  }
}

/**
 * Writes a safetensors file, whole or not at all, one tensor in memory at a time.
 *
 * @example
 * ```ts
 * await writeSafetensors("a.safetensors", [{ name: "w", dtype: "F32", shape: [2] }], () => new Float32Array([1, 2]));
 * ```
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<SafetensorsSpec>,
  produce: TensorProducer,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  const plan = planSafetensors(tensors, metadata);
  await writeAtomically(path, (sink) => writeSafetensorsTo(sink, plan, produce), { size: plan.size });
}
