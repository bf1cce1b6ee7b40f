/**
 * GGUF, versions 2 and 3, little-endian: magic, counts, typed metadata, tensor descriptions, then the tensors one after
 * another, each at a multiple of `general.alignment`. The reader refuses what the format's description
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) or llama.cpp's own reader does not allow, before any of it can
 * cost memory or time.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type GgufType, ggufTypes, newerGgufTypes, readableGgufTypes, unpackGguf } from "./types.ts";
import { checkRows, type TensorData } from "../safetensors/safetensors.ts";
import type { ByteSource } from "../source.ts";

/** A metadata value. 64-bit integers that a double cannot hold stay bigint; arrays of numbers are typed arrays. */
export type GgufValue =
  | number
  | bigint
  | boolean
  | string
  | GgufArray;

/** An array in the metadata. */
export type GgufArray =
  | string[]
  | boolean[]
  | GgufArray[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** What the file says of a tensor. */
export interface GgufTensor {
  readonly type: GgufType;
  /** Rows first: the reverse of the order in the file. */
  readonly shape: number[];
  /** Byte positions in the file. */
  readonly begin: number;
  readonly end: number;
}

/** An open GGUF file whose header has been checked. */
export class GgufFile {
  private constructor(
    readonly source: ByteSource,
    readonly version: number,
    readonly alignment: number,
    readonly metadata: ReadonlyMap<string, GgufValue>,
    readonly tensors: ReadonlyMap<string, GgufTensor>,
  ) {}

  /**
   * Reads and checks the header; no tensor is read yet.
   *
   * @throws {InputError} naming the file, the key or tensor, and the rule that is broken.
   */
  static async open(source: ByteSource): Promise<GgufFile> {
    const { version, alignment, metadata, tensors } = await readHeader(source);
    return new GgufFile(source, version, alignment, metadata, tensors);
  }

  /** What the file says of a tensor. @throws {InputError} when there is none of that name. */
  entry(name: string): GgufTensor {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new InputError(`there is no tensor ${name}`, { where: this.source.name });
    return tensor;
  }

  /** A whole tensor in the storage that its type is handed on in. @throws {InputError} for types that no weight is stored in. */
  async read(name: string): Promise<TensorData> {
    const { shape, begin, end } = this.entry(name);
    return this.#unpack(name, shape, await this.source.read(begin, end - begin));
  }

  /** Rows `first` to `first + count` of a tensor; of a stack of matrices, those of the first one, then those of the next. */
  async readRows(name: string, first: number, count: number): Promise<TensorData> {
    const { shape } = this.entry(name);
    if (shape.length === 1) {
      checkRows(this.source.name, name, shape, first, count);
      // One row of blocks: no part of it can be read by itself.
      const { dtype, data } = await this.read(name);
      return { dtype, shape: [count], data: data.slice(first, first + count) };
    }
    return this.#unpack(name, [count, shape.at(-1)!], await this.readBlocks(name, first, count));
  }

  /**
   * The bytes of rows `first` to `first + count` of a tensor, blocks as they are stored. Of a matrix, because rows of a vector are no
   * whole blocks.
   */
  async readBlocks(name: string, first: number, count: number): Promise<Uint8Array<ArrayBuffer>> {
    const { shape, begin, end } = this.entry(name);
    if (shape.length === 1) {
      throw new RangeError(`tensor ${name} is a vector, whose rows are no whole blocks`);
    }
    const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    checkRows(this.source.name, name, [rows, shape.at(-1)!], first, count);
    const bytes = (end - begin) / rows;
    return await this.source.read(begin + first * bytes, count * bytes);
  }

  close(): void {
    this.source.close?.();
  }

  #unpack(name: string, shape: number[], bytes: Uint8Array<ArrayBuffer>): TensorData {
    const type = this.entry(name).type.name;
    const dtype = readableGgufTypes.get(type);
    if (!dtype) throw unreadableType(this.source.name, type, name);
    return { dtype, shape, data: unpackGguf(type, bytes) };
  }
}

/** The error for a type of the format that is not read here. */
export function unreadableType(where: string, type: string, tensor: string): InputError {
  return new InputError(`tensor ${tensor} is stored as ${type}, which cannot be read`, {
    where,
    hint:
      `Readable types: ${
        [...readableGgufTypes.keys()].join(", ")
      }. Use a Q8_0 or F16 file of the same model, or ` +
      "convert this one with llama-quantize --allow-requantize file.gguf out.gguf Q8_0.",
  });
}

/** Thrown by the parser when the part of the file it was given does not reach far enough. */
class NeedMoreBytes {}

const firstPart = 1 << 20;
const largestHeader = 1 << 29;
const deepestArray = 4;
const longestKey = 65535;
const longestName = 64;
const mostDimensions = 4;

/** The header's length is not written anywhere, so growing parts of the file are parsed until one holds all of it. */
async function readHeader(source: ByteSource): Promise<ReturnType<typeof parseHeader>> {
  for (let size = firstPart;; size *= 4) {
    const part = await source.read(0, Math.min(size, source.size));
    try {
      return parseHeader(part, source);
    } catch (error) {
      if (!(error instanceof NeedMoreBytes)) throw error;
      if (size >= largestHeader) {
        throw new InputError(`metadata and tensor descriptions take more than ${largestHeader} bytes`, {
          where: source.name,
        });
      }
    }
  }
}

function parseHeader(bytes: Uint8Array<ArrayBuffer>, source: ByteSource) {
  const where = source.name;
  const view = new DataView(bytes.buffer);
  let at = 0;
  let reading = "the header";

  function wrong(
    what: string,
    hint = "The file is damaged, cut short or not a GGUF file; fetch or write it again.",
  ): never {
    throw new InputError(`${reading}: ${what}`, { where, hint });
  }

  /** Moves over `count` bytes that are about to be read; `count` may be any number a file can claim. */
  function take(count: number | bigint): number {
    if (count > source.size - at) wrong(`needs ${count} bytes at ${at}, but the file ends at ${source.size}`);
    if (count > bytes.length - at) throw new NeedMoreBytes();
    const from = at;
    at += Number(count);
    return from;
  }

  const uint32 = () => view.getUint32(take(4), true);
  const uint64 = () => view.getBigUint64(take(8), true);

  function string(longest: number): string {
    const length = uint64();
    if (length > longest) wrong(`a string of ${length} bytes, where at most ${longest} are possible`);
    const from = take(length);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(from, at));
    } catch {
      wrong("a string is not UTF-8");
    }
  }

  function integer(value: bigint): number | bigint {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  function boolean(byte: number): boolean {
    if (byte > 1) wrong(`${byte} is neither 0 (false) nor 1 (true)`);
    return byte === 1;
  }

  function array(depth: number): GgufArray {
    if (depth > deepestArray) wrong(`arrays are nested more than ${deepestArray} deep`);
    const type = uint32();
    const length = uint64();
    const Numbers = numericArrays[type];
    if (Numbers) {
      const from = take(length * BigInt(Numbers.BYTES_PER_ELEMENT));
      return new Numbers(bytes.slice(from, at).buffer);
    }
    // Refuses a count that the rest of the file cannot hold before anything is made for it.
    const least = { 7: 1n, 8: 8n, 9: 12n }[type];
    if (least === undefined) wrong(`unknown value type ${type} in an array`);
    if (length * least > source.size - at) wrong(`an array of ${length} elements does not fit into the file`);
    if (type === 7) return Array.from({ length: Number(length) }, () => boolean(bytes[take(1)]));
    if (type === 8) return Array.from({ length: Number(length) }, () => string(source.size));
    return Array.from({ length: Number(length) }, () => array(depth + 1));
  }

  function value(type: number): GgufValue {
    switch (type) {
      case 0:
        return view.getUint8(take(1));
      case 1:
        return view.getInt8(take(1));
      case 2:
        return view.getUint16(take(2), true);
      case 3:
        return view.getInt16(take(2), true);
      case 4:
        return uint32();
      case 5:
        return view.getInt32(take(4), true);
      case 6:
        return view.getFloat32(take(4), true);
      case 7:
        return boolean(bytes[take(1)]);
      case 8:
        return string(source.size);
      case 9:
        return array(1);
      case 10:
        return integer(uint64());
      case 11:
        return integer(view.getBigInt64(take(8), true));
      case 12:
        return view.getFloat64(take(8), true);
    }
    wrong(`unknown value type ${type}`);
  }

  const magic = uint32();
  if (magic !== 0x46554747) wrong("it does not begin with GGUF");
  const version = uint32();
  if (version >= 1 << 24) wrong("it is big-endian; only little-endian files can be read");
  if (version !== 2 && version !== 3) wrong(`version ${version}; versions 2 and 3 can be read`);
  const tensorCount = uint64();
  const valueCount = uint64();
  // A description takes at least 32 bytes, a key with its value at least 13.
  if (tensorCount * 32n + valueCount * 13n > source.size - at) {
    wrong(`${tensorCount} tensors and ${valueCount} metadata values do not fit into the file`);
  }

  const metadata = new Map<string, GgufValue>();
  let alignment = 32;
  for (let i = 0; i < valueCount; i++) {
    reading = `metadata value ${i + 1} of ${valueCount}`;
    const key = string(longestKey);
    reading = `metadata key ${key}`;
    if (metadata.has(key)) wrong("it occurs twice");
    const type = uint32();
    metadata.set(key, value(type));
    if (key !== "general.alignment") continue;
    if (type !== 4) wrong("it is not an unsigned 32-bit integer");
    alignment = metadata.get(key) as number;
    if (alignment === 0 || (alignment & (alignment - 1)) !== 0) wrong(`${alignment} is not a power of two`);
  }

  const tensors = new Map<string, { type: GgufType; shape: number[]; offset: bigint; size: bigint }>();
  for (let i = 0; i < tensorCount; i++) {
    reading = `tensor description ${i + 1} of ${tensorCount}`;
    const name = string(longestName);
    reading = `tensor ${name}`;
    if (tensors.has(name)) wrong("it is described twice");
    const dimensions = uint32();
    if (dimensions === 0 || dimensions > mostDimensions) {
      wrong(`${dimensions} dimensions; 1 to ${mostDimensions} are possible`);
    }
    const sizes = Array.from({ length: dimensions }, uint64);
    const typeNumber = uint32();
    const type = ggufTypes.get(typeNumber);
    if (!type) {
      const newer = newerGgufTypes.get(typeNumber);
      if (newer) {
        wrong(`it is stored as ${newer}, which cannot be read`, "Use a Q8_0 or F16 file of the same model.");
      }
      wrong(`unknown type ${typeNumber}`);
    }
    if (sizes[0] % BigInt(type.block) !== 0n) {
      wrong(`rows of ${sizes[0]} values are not whole blocks of ${type.block}, as ${type.name} needs`);
    }
    const count = sizes.reduce((product, size) => product * size, 1n);
    const size = count / BigInt(type.block) * BigInt(type.bytes);
    // A size of 0 must not hide dimensions that no file can hold.
    if (size > source.size || sizes.some((size) => size > Number.MAX_SAFE_INTEGER)) {
      wrong(`[${sizes}] values of ${type.name} do not fit into the file`);
    }
    tensors.set(name, { type, shape: sizes.map(Number).reverse(), offset: uint64(), size });
  }

  const dataBegin = Math.ceil(at / alignment) * alignment;
  const placed = new Map<string, GgufTensor>();
  let expected = 0n;
  for (const [name, { type, shape, offset, size }] of tensors) {
    reading = `tensor ${name}`;
    if (offset !== expected) {
      wrong(`it lies at offset ${offset}, where ${expected} follows from the tensors before it`);
    }
    const begin = dataBegin + Number(offset);
    const end = begin + Number(size);
    if (end > source.size) wrong(`it ends at byte ${end}, but the file at ${source.size}`);
    placed.set(name, { type, shape, begin, end });
    expected += (size + BigInt(alignment) - 1n) / BigInt(alignment) * BigInt(alignment);
  }
  return { version, alignment, metadata, tensors: placed };
}

const numericArrays: Record<
  number,
  { new (buffer: ArrayBuffer): GgufArray; readonly BYTES_PER_ELEMENT: number } | undefined
> = {
  0: Uint8Array,
  1: Int8Array,
  2: Uint16Array,
  3: Int16Array,
  4: Uint32Array,
  5: Int32Array,
  6: Float32Array,
  10: BigUint64Array,
  11: BigInt64Array,
  12: Float64Array,
};
