/**
 * Writing GGUF files, version 3, one tensor in memory at a time.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import { writeAtomically } from "../files.ts";
import type { WrittenType } from "./mixture.ts";
import { ggufType, ggufTypeNumber } from "./types.ts";

/** A metadata value together with its type in the file. */
export type GgufWriteValue =
  | { type: "u32" | "f32"; value: number }
  | { type: "bool"; value: boolean }
  | { type: "string"; value: string }
  | { type: "strings"; value: readonly string[] }
  | { type: "bools"; value: readonly boolean[] }
  | { type: "f32s"; value: Float32Array }
  | { type: "i32s"; value: Int32Array };

/** A tensor to be written; its shape has the rows first. */
export interface GgufSpec {
  readonly name: string;
  readonly type: WrittenType;
  readonly shape: readonly number[];
}

const alignment = 32;
const valueTypes = { u32: 4, f32: 6, bool: 7, string: 8, strings: 8, bools: 7, f32s: 6, i32s: 5 } as const;
const arrayType = 9;

/** Appends little-endian values to a growing buffer. */
class HeaderBytes {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  /** The position of `count` new bytes. May replace the buffer, so it comes before any use of it. */
  #room(count: number): number {
    if (this.length + count > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(2 * this.#bytes.length, this.length + count));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    const at = this.length;
    this.length += count;
    return at;
  }

  uint32(value: number): void {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
  }

  uint64(value: number): void {
    const at = this.#room(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  float32(value: number): void {
    const at = this.#room(4);
    this.#view.setFloat32(at, value, true);
  }

  bytes(values: Uint8Array): void {
    const at = this.#room(values.length);
    this.#bytes.set(values, at);
  }

  string(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.uint64(encoded.length);
    this.bytes(encoded);
  }

  value(value: GgufWriteValue): void {
    const isArray = value.type.endsWith("s");
    if (isArray) this.uint32(arrayType);
    this.uint32(valueTypes[value.type]);
    switch (value.type) {
      case "u32":
        return this.uint32(value.value);
      case "f32":
        return this.float32(value.value);
      case "bool":
        return this.bytes(Uint8Array.of(value.value ? 1 : 0));
      case "string":
        return this.string(value.value);
      case "strings":
        this.uint64(value.value.length);
        return value.value.forEach((text) => this.string(text));
      case "bools":
        this.uint64(value.value.length);
        return this.bytes(Uint8Array.from(value.value, Number));
      case "f32s":
      case "i32s": {
        const { buffer, byteOffset, byteLength, length } = value.value;
        this.uint64(length);
        return this.bytes(new Uint8Array(buffer, byteOffset, byteLength));
      }
    }
  }

  /** What was appended, with zeros up to the next multiple of the alignment. */
  padded(): Uint8Array {
    this.#room(padding(this.length));
    return this.#bytes.subarray(0, this.length);
  }
}

/**
 * Writes a GGUF file, whole or not at all.
 *
 * @param metadata Keys in the order of the file.
 * @param produce Delivers the bytes of a tensor, in its type, when its turn comes.
 * @throws {LimbeckError} when a tensor's bytes are not as many as its shape and type say.
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufWriteValue>,
  tensors: readonly GgufSpec[],
  produce: (tensor: GgufSpec) => Promise<ArrayBufferView>,
): Promise<void> {
  const header = new HeaderBytes();
  header.bytes(new TextEncoder().encode("GGUF"));
  header.uint32(3);
  header.uint64(tensors.length);
  header.uint64(metadata.size);
  for (const [key, value] of metadata) {
    header.string(key);
    header.value(value);
  }
  let offset = 0;
  for (const tensor of tensors) {
    header.string(tensor.name);
    header.uint32(tensor.shape.length);
    for (const size of tensor.shape.toReversed()) header.uint64(size);
    header.uint32(ggufTypeNumber(tensor.type));
    header.uint64(offset);
    const bytes = ggufTensorBytes(tensor);
    offset += bytes + padding(bytes);
  }
  const head = header.padded();

  await writeAtomically(path, async (sink) => {
    await sink.write(head);
    for (const tensor of tensors) {
      const { buffer, byteOffset, byteLength } = await produce(tensor);
      const expected = ggufTensorBytes(tensor);
      if (byteLength !== expected) {
        throw new LimbeckError(
          `tensor ${tensor.name}: ${tensor.type} [${tensor.shape}] needs ${expected} bytes, ${byteLength} came`,
        );
      }
      await sink.write(new Uint8Array(buffer, byteOffset, byteLength));
      await sink.write(new Uint8Array(padding(byteLength)));
    }
  }, { size: head.length + offset });
}

/** Bytes that a tensor takes, without padding. */
export function ggufTensorBytes({ type, shape }: Omit<GgufSpec, "name">): number {
  const { block, bytes } = ggufType(type);
  return shape.reduce((product, size) => product * size, 1) / block * bytes;
}

function padding(length: number): number {
  return (alignment - length % alignment) % alignment;
}
