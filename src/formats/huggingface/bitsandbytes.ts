/**
 * Weights that bitsandbytes has quantised to NF4, as transformers saves them: beside `X.weight`, packed codes, lie the magnitudes of its
 * blocks, the tables that codes stand for, and `X.weight.quant_state.bitsandbytes__nf4`, JSON of its shape.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { StoredNf4, TensorData, TensorInfo } from "../model_source.ts";
import {
  dequantizeNf4,
  DYNAMIC_CODE,
  NESTED_BLOCK,
  type NestedMagnitudes,
  NF4_BLOCK,
  NF4_CODE,
  restoreMagnitudes,
} from "../nf4.ts";
import { checkRows, type SafetensorsFile } from "../safetensors/safetensors.ts";

const STATE = ".quant_state.bitsandbytes__nf4";
const OTHER_STATE = /\.quant_state\.bitsandbytes__(\w+)$/;
/** What lies beside a weight, and is no tensor of the model. */
const PARTS = ["absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4"];

/** A weight in NF4. */
export class Nf4Weight implements StoredNf4 {
  readonly shape: number[];
  readonly nested: boolean;
  readonly #name: string;
  readonly #owner: (name: string) => SafetensorsFile;
  readonly #offset: number;

  private constructor(
    name: string,
    owner: (name: string) => SafetensorsFile,
    { shape, offset }: { shape: number[]; offset: number | undefined },
  ) {
    [this.#name, this.#owner, this.shape] = [name, owner, shape];
    this.nested = offset !== undefined;
    this.#offset = offset ?? 0;
  }

  /**
   * Reads what lies beside a weight.
   *
   * @param name Of the weight
   * @param owner The file that a tensor is in
   * @throws {InputError} if a part is missing, of another length, or means other numbers than NF4's
   */
  static async open(name: string, owner: (name: string) => SafetensorsFile): Promise<Nf4Weight> {
    const file = owner(`${name}${STATE}`);
    const refuse = (what: string) =>
      new InputError(`tensor ${name}: ${what}`, {
        where: file.source.name,
        hint:
          "Save the model again, in Python: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(other).",
      });
    const state = parseState(await file.readBytes(`${name}${STATE}`), refuse);
    const count = state.shape.reduce((a, b) => a * b, 1);
    const blocks = Math.ceil(count / NF4_BLOCK);
    const part = (suffix: string, dtype: string, length: number) => {
      const full = suffix ? `${name}.${suffix}` : name;
      const entry = owner(full).entry(full);
      const held = entry.shape.reduce((a, b) => a * b, 1);
      if (entry.dtype === dtype && held === length) return full;
      throw refuse(
        `${suffix || "its codes"} are ${held} values of ${entry.dtype}; a shape of [${
          state.shape.join(", ")
        }] needs ${length} of ${dtype}`,
      );
    };
    const table = async (suffix: string, expected: Float32Array) => {
      const full = part(suffix, "F32", expected.length);
      const values = (await owner(full).readArray(full)).data as Float32Array;
      if (expected.some((value, i) => values[i] !== value)) {
        throw refuse(`${suffix} holds other values than those of NF4 as bitsandbytes has them`);
      }
    };
    part("", "U8", Math.ceil(count / 2));
    part("absmax", state.offset === undefined ? "F32" : "U8", blocks);
    await table("quant_map", NF4_CODE);
    if (state.offset !== undefined) {
      part("nested_absmax", "F32", Math.ceil(blocks / NESTED_BLOCK));
      await table("nested_quant_map", DYNAMIC_CODE);
    }
    return new Nf4Weight(name, owner, state);
  }

  get info(): TensorInfo {
    return { dtype: "NF4", shape: this.shape, exactDtype: "f32" };
  }

  async packed(from: number, count: number): Promise<Uint8Array<ArrayBuffer>> {
    const { source, tensors } = this.#owner(this.#name);
    return await source.read(tensors.get(this.#name)!.begin + from / 2, Math.ceil(count / 2));
  }

  async nestedMagnitudes(): Promise<NestedMagnitudes> {
    const part = async (suffix: string) => {
      const name = `${this.#name}.${suffix}`;
      return (await this.#owner(name).readArray(name)).data;
    };
    return {
      codes: await part("absmax") as Uint8Array<ArrayBuffer>,
      factors: await part("nested_absmax") as Float32Array<ArrayBuffer>,
      offset: this.#offset,
    };
  }

  async magnitudes(): Promise<Float32Array<ArrayBuffer>> {
    if (this.nested) return restoreMagnitudes(await this.nestedMagnitudes());
    const name = `${this.#name}.absmax`;
    return (await this.#owner(name).readArray(name)).data as Float32Array<ArrayBuffer>;
  }

  /** Rows as numbers. */
  async readRows(first: number, count: number): Promise<TensorData> {
    checkRows(this.#owner(this.#name).source.name, this.#name, this.shape, first, count);
    const width = this.shape.slice(1).reduce((a, b) => a * b, 1);
    const block = Math.floor(first * width / NF4_BLOCK);
    const begin = block * NF4_BLOCK;
    const packed = await this.packed(begin, (first + count) * width - begin);
    const magnitudes = (await this.magnitudes()).subarray(block);
    return {
      dtype: "f32",
      shape: [count, ...this.shape.slice(1)],
      data: dequantizeNf4({ packed, magnitudes }, first * width - begin, count * width),
    };
  }
}

function parseState(
  bytes: Uint8Array,
  refuse: (what: string) => InputError,
): { shape: number[]; offset: number | undefined } {
  let state: Record<string, unknown>;
  try {
    state = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw refuse("its quant_state is no JSON");
  }
  const { shape, blocksize, nested_blocksize, nested_offset } = state;
  if (
    !Array.isArray(shape) || shape.length === 0 ||
    !shape.every((size) => Number.isSafeInteger(size) && size > 0)
  ) {
    throw refuse("its quant_state has no shape");
  }
  if (blocksize !== NF4_BLOCK) {
    throw refuse(`its blocks have ${JSON.stringify(blocksize)} values; only ${NF4_BLOCK} are supported`);
  }
  if (nested_offset === undefined) return { shape, offset: undefined };
  if (nested_blocksize !== NESTED_BLOCK) {
    throw refuse(
      `blocks of its scales have ${
        JSON.stringify(nested_blocksize)
      } values; only ${NESTED_BLOCK} are supported`,
    );
  }
  if (typeof nested_offset !== "number" || !Number.isFinite(nested_offset)) {
    throw refuse("its nested_offset is no number");
  }
  return { shape, offset: Math.fround(nested_offset) };
}

/**
 * The weights in NF4 among the tensors of a folder, by name; what lies beside them is taken out of `tensors`.
 *
 * @param tensors Every tensor of the files; what is quantised gets its own shape here
 * @param owner The file that a tensor is in
 * @throws {InputError} if a part of one is missing or not as it must be, or weights are quantised to other 4-bit numbers
 */
export async function takeNf4Weights(
  tensors: Map<string, TensorInfo>,
  owner: (name: string) => SafetensorsFile,
  where: string,
): Promise<Map<string, Nf4Weight>> {
  const weights = new Map<string, Nf4Weight>();
  for (const full of [...tensors.keys()]) {
    const kind = OTHER_STATE.exec(full)?.[1];
    if (kind === undefined) continue;
    if (kind !== "nf4") throw otherMethod(`bitsandbytes to ${kind}`, where);
    const name = full.slice(0, -STATE.length);
    const weight = await Nf4Weight.open(name, owner);
    weights.set(name, weight);
    tensors.set(name, weight.info);
    for (const part of PARTS) tensors.delete(`${name}.${part}`);
  }
  return weights;
}

/** What tensors of other methods are called. */
const MARKS: readonly [RegExp, string][] = [
  [/\.qweight$/, "GPTQ or AWQ"],
  [/\.SCB$/, "bitsandbytes to 8 bits"],
  [/\.weight_scale(_inv)?$/, "a method with scales beside the weights, such as FP8"],
  [/\.weight_packed$/, "compressed-tensors"],
];

/**
 * Refuses weights that are quantised by a method not known here.
 *
 * @throws {InputError} naming the method, and what to do
 */
export function refuseOtherMethods(
  config: Readonly<Record<string, unknown>>,
  names: Iterable<string>,
  where: string,
): void {
  const settings = config.quantization_config;
  if (typeof settings === "object" && settings !== null) {
    const { quant_method: method, load_in_8bit: is8bit, bnb_4bit_quant_type: type } = settings as Record<
      string,
      unknown
    >;
    if (method !== undefined && method !== "bitsandbytes") {
      throw otherMethod(typeof method === "string" ? method.toUpperCase() : JSON.stringify(method), where);
    }
    if (is8bit === true) throw otherMethod("bitsandbytes to 8 bits", where);
    if (type !== undefined && type !== "nf4") throw otherMethod(`bitsandbytes to ${type}`, where);
  }
  for (const name of names) {
    const mark = MARKS.find(([pattern]) => pattern.test(name));
    if (mark) throw otherMethod(`${mark[1]} (there is a tensor ${name})`, where);
  }
}

function otherMethod(method: string, where: string): InputError {
  return new InputError(`the weights are quantised by ${method}, which is not read`, {
    where,
    hint: "Get the model unquantised, as a GGUF file, or in bitsandbytes' nf4; " +
      "an unquantised one becomes small on the GPU with quantize: nf4 in the recipe.",
  });
}
