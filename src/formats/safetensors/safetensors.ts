/**
 * safetensors: an 8-byte little-endian length, a JSON header of that length, then the tensors without gaps.
 * The reader is strict: whatever the format's description (https://github.com/huggingface/safetensors, README, "Format") does
 * not allow is refused, so that no file is read differently here than elsewhere.
 *
 * @module
 */
import { InputError, LimbeckError } from "../../base/errors.ts";
import type { FloatData, FloatDtype } from "../dtype.ts";
import type { ByteSource } from "../source.ts";
import { parseStrictJson } from "../strict_json.ts";
import { refuseWrongDownload } from "../wrong_download.ts";

/** Bits of one value of every dtype that the format knows. */
export const safetensorsBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** Name of a dtype as safetensors spells it. */
export type SafetensorsDtype = keyof typeof safetensorsBits;

/** What the header says of a tensor; `begin` and `end` are byte positions in the file. */
export interface SafetensorsEntry {
  readonly dtype: SafetensorsDtype;
  readonly shape: number[];
  readonly begin: number;
  readonly end: number;
}

/** A float tensor in its own storage: `Float32Array`, or `Uint16Array` with the bits of f16 or bf16. */
export interface TensorData {
  readonly dtype: FloatDtype;
  readonly shape: number[];
  readonly data: FloatData;
}

/** What {@linkcode SafetensorsFile.readArray} returns the values in. */
export type NumericArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

/** The format's own limit. */
const largestHeader = 100_000_000;

const floatDtypes: Partial<Record<SafetensorsDtype, FloatDtype>> = { F32: "f32", F16: "f16", BF16: "bf16" };

const arrayTypes = {
  BOOL: Uint8Array,
  U8: Uint8Array,
  I8: Int8Array,
  I16: Int16Array,
  U16: Uint16Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I32: Int32Array,
  U32: Uint32Array,
  F32: Float32Array,
  F64: Float64Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
} as { [D in SafetensorsDtype]?: new (buffer: ArrayBuffer) => NumericArray };

/** The storage of a float dtype, or undefined when it is none that a weight can have here. */
export function floatDtypeOf(dtype: string): FloatDtype | undefined {
  return floatDtypes[dtype as SafetensorsDtype];
}

/** An open safetensors file whose header has been checked. */
export class SafetensorsFile {
  private constructor(
    readonly source: ByteSource,
    /** The free-text entries of `__metadata__`. */
    readonly metadata: ReadonlyMap<string, string>,
    /** Every tensor by name, in the order of the bytes. */
    readonly tensors: ReadonlyMap<string, SafetensorsEntry>,
  ) {}

  /**
   * Reads and checks the header; no tensor is read yet.
   *
   * @throws {InputError} naming the file, the tensor and the rule that is broken.
   *
   * @example
   * ```ts
   * const file = await SafetensorsFile.open(await openFile("model.safetensors"));
   * const { data } = await file.read("model.norm.weight");
   * ```
   */
  static async open(source: ByteSource): Promise<SafetensorsFile> {
    const { metadata, tensors } = await readHeader(source);
    return new SafetensorsFile(source, metadata, tensors);
  }

  /** The header's entry of a tensor. @throws {InputError} when there is none. */
  entry(name: string): SafetensorsEntry {
    const entry = this.tensors.get(name);
    if (!entry) throw new InputError(`there is no tensor ${name}`, { where: this.source.name });
    return entry;
  }

  /** The raw bytes of a tensor of any dtype. */
  readBytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { begin, end } = this.entry(name);
    return this.source.read(begin, end - begin);
  }

  /** A whole f32, f16 or bf16 tensor in its own storage. @throws {InputError} for other dtypes. */
  async read(name: string): Promise<TensorData> {
    const { shape } = this.entry(name);
    const dtype = this.#floatDtype(name);
    return { dtype, shape, data: floatView(dtype, await this.readBytes(name)) };
  }

  /** A whole tensor of any dtype that has a typed array of its own. f16 and bf16 come as bits, BOOL as bytes. */
  async readArray(name: string): Promise<{ dtype: SafetensorsDtype; shape: number[]; data: NumericArray }> {
    const { dtype, shape } = this.entry(name);
    const Type = arrayTypes[dtype];
    if (!Type) {
      throw new InputError(`tensor ${name} has dtype ${dtype}, which has no array type`, {
        where: this.source.name,
      });
    }
    return { dtype, shape, data: new Type((await this.readBytes(name)).buffer) };
  }

  /** Rows `first` to `first + count` of the first dimension of a float tensor, so that a large one can be streamed. */
  async readRows(name: string, first: number, count: number): Promise<TensorData> {
    const { shape, begin, end } = this.entry(name);
    const dtype = this.#floatDtype(name);
    checkRows(this.source.name, name, shape, first, count);
    const bytes = shape[0] === 0 ? 0 : (end - begin) / shape[0];
    const data = await this.source.read(begin + first * bytes, count * bytes);
    return { dtype, shape: [count, ...shape.slice(1)], data: floatView(dtype, data) };
  }

  close(): void {
    this.source.close?.();
  }

  #floatDtype(name: string): FloatDtype {
    const { dtype } = this.entry(name);
    const float = floatDtypeOf(dtype);
    if (float) return float;
    throw new InputError(`tensor ${name} has dtype ${dtype}; weights must be F32, F16 or BF16`, {
      where: this.source.name,
      hint: "Save the model unquantised, in float32, float16 or bfloat16.",
    });
  }
}

/** Refuses rows that a tensor does not have. */
export function checkRows(
  where: string,
  name: string,
  shape: readonly number[],
  first: number,
  count: number,
): void {
  const rows = shape[0] ?? 0;
  if (
    !Number.isSafeInteger(first) || !Number.isSafeInteger(count) || first < 0 || count < 0 ||
    first + count > rows
  ) {
    throw new InputError(
      `rows ${first} to ${first + count} of tensor ${name} were asked for; its shape is [${shape}]`,
      {
        where,
      },
    );
  }
}

/** Lays a typed array over bytes read from a file; files are little-endian, as every machine that runs this is. */
function floatView(dtype: FloatDtype, bytes: Uint8Array<ArrayBuffer>): FloatData {
  return dtype === "f32" ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
}

async function readHeader(source: ByteSource) {
  const where = source.name;
  const damaged = "The file is damaged, cut short, or not a safetensors file; fetch or write it again.";
  if (source.size < 8) {
    throw new InputError(`has ${source.size} bytes, too few for a header`, { where, hint: damaged });
  }
  await refuseWrongDownload(source);
  const length = new DataView((await source.read(0, 8)).buffer).getBigUint64(0, true);
  if (length > BigInt(largestHeader)) {
    throw new InputError(`the header claims ${length} bytes; at most ${largestHeader} are allowed`, {
      where,
      hint: damaged,
    });
  }
  const headerEnd = 8 + Number(length);
  if (headerEnd > source.size) {
    throw new InputError(`the header claims ${length} bytes, but only ${source.size - 8} follow`, {
      where,
      hint: damaged,
    });
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      await source.read(8, Number(length)),
    );
  } catch (cause) {
    if (cause instanceof LimbeckError) throw cause;
    throw new InputError("the header is not UTF-8", { where, hint: damaged, cause });
  }
  if (text[0] !== "{") throw new InputError("the header does not begin with {", { where, hint: damaged });
  const header = parseStrictJson(text, `${where}: header`, { numbers: "unsigned" });
  if (!(header instanceof Map)) throw new InputError("the header is not an object", { where, hint: damaged });

  const metadata = new Map<string, string>();
  const entries: [string, SafetensorsEntry][] = [];
  for (const [name, value] of header) {
    if (name === "__metadata__") {
      if (!(value instanceof Map)) throw new InputError("__metadata__ is not an object", { where });
      for (const [key, entry] of value) {
        if (typeof entry !== "string") throw new InputError(`__metadata__.${key} is not a string`, { where });
        metadata.set(key, entry);
      }
    } else {
      entries.push([name, parseEntry(where, name, value, headerEnd)]);
    }
  }

  entries.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let expected = headerEnd;
  for (const [name, { begin, end }] of entries) {
    if (begin !== expected) {
      const what = begin < expected ? "overlaps the tensor before it" : "leaves a hole before it";
      throw new InputError(`tensor ${name} ${what}: it begins at byte ${begin}, expected ${expected}`, {
        where,
        hint: damaged,
      });
    }
    expected = end;
  }
  if (expected !== source.size) {
    const what = expected > source.size ? "the file is cut short" : "bytes follow the last tensor";
    throw new InputError(`${what}: the tensors end at byte ${expected}, the file at ${source.size}`, {
      where,
      hint: damaged,
    });
  }
  return { metadata, tensors: new Map(entries) };
}

function parseEntry(where: string, name: string, value: unknown, headerEnd: number): SafetensorsEntry {
  function wrong(what: string): never {
    throw new InputError(`tensor ${name}: ${what}`, { where });
  }
  if (!(value instanceof Map)) wrong("its description is not an object");
  for (const key of value.keys()) {
    if (key !== "dtype" && key !== "shape" && key !== "data_offsets") wrong(`unknown field ${key}`);
  }
  const dtype: unknown = value.get("dtype");
  if (typeof dtype !== "string" || !Object.hasOwn(safetensorsBits, dtype)) {
    wrong(`unknown dtype ${JSON.stringify(dtype)}`);
  }
  const shape = integers(value.get("shape"));
  if (!shape) wrong("shape is not a list of unsigned integers");
  const offsets = integers(value.get("data_offsets"));
  if (offsets?.length !== 2) wrong("data_offsets is not a pair of unsigned integers");
  const [begin, end] = offsets;
  if (begin > end) wrong(`it ends at byte ${end}, before it begins at ${begin}`);

  // Every partial product is checked, even where a later 0 would bring the whole back into range.
  let count = 1;
  for (const size of shape) {
    count *= size;
    if (!Number.isSafeInteger(count)) wrong(`its shape [${shape}] has more values than can be counted`);
  }
  const bits = count * safetensorsBits[dtype as SafetensorsDtype];
  if (!Number.isSafeInteger(bits)) wrong(`its shape [${shape}] has more bytes than can be counted`);
  if (bits % 8 !== 0) wrong(`${count} values of ${dtype} do not fill whole bytes`);
  if (end - begin !== bits / 8) {
    wrong(`${dtype} [${shape}] needs ${bits / 8} bytes, but it is given ${end - begin}`);
  }
  return { dtype: dtype as SafetensorsDtype, shape, begin: headerEnd + begin, end: headerEnd + end };
}

function integers(value: unknown): number[] | undefined {
  return Array.isArray(value) && value.every((entry) => typeof entry === "number") ? value : undefined;
}
