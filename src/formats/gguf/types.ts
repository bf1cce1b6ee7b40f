/**
 * GGUF's tensor types: how many values make a block, how many bytes it takes, and how those of weights turn into f32.
 * Layouts: https://github.com/ggml-org/ggml, ggml-common.h. No step of an unpacking rounds but the last, the value itself.
 *
 * @module
 */
import { type FloatData, type FloatDtype, fromFloat32 } from "../dtype.ts";
import * as grid from "./blocks/grid_quants.ts";
import * as k from "./blocks/k_quants.ts";
import * as levels from "./blocks/levels.ts";
import * as plain from "./blocks/plain.ts";
import * as ternary from "./blocks/ternary.ts";

/** A tensor type: `block` values stored in `bytes` bytes. */
export interface GgufType {
  readonly name: string;
  readonly block: number;
  readonly bytes: number;
}

/** How the tensors of a type are handed on. */
interface Reading {
  /** The smallest storage that holds every value of the type exactly. */
  readonly dtype: FloatDtype;
  /** Absent where the bytes are the values. */
  readonly decode?: plain.DecodeBlocks;
}

const as = (dtype: FloatDtype): Reading => ({ dtype });
const f32 = (decode: plain.DecodeBlocks): Reading => ({ dtype: "f32", decode });

/** Without a reading: integers, and what products are computed with but no weight is stored in. */
const table: readonly [number: number, name: string, block: number, bytes: number, reading?: Reading][] = [
  [0, "F32", 1, 4, as("f32")],
  [1, "F16", 1, 2, as("f16")],
  [2, "Q4_0", 32, 18, f32(plain.decodeQ4_0)],
  [3, "Q4_1", 32, 20, f32(plain.decodeQ4_1)],
  [6, "Q5_0", 32, 22, f32(plain.decodeQ5_0)],
  [7, "Q5_1", 32, 24, f32(plain.decodeQ5_1)],
  [8, "Q8_0", 32, 34, f32(plain.decodeQ8_0)],
  [9, "Q8_1", 32, 36],
  [10, "Q2_K", 256, 84, f32(k.decodeQ2_K)],
  [11, "Q3_K", 256, 110, f32(k.decodeQ3_K)],
  [12, "Q4_K", 256, 144, f32(k.decodeQ4_K)],
  [13, "Q5_K", 256, 176, f32(k.decodeQ5_K)],
  [14, "Q6_K", 256, 210, f32(k.decodeQ6_K)],
  [15, "Q8_K", 256, 292],
  [16, "IQ2_XXS", 256, 66, f32(grid.decodeIQ2_XXS)],
  [17, "IQ2_XS", 256, 74, f32(grid.decodeIQ2_XS)],
  [18, "IQ3_XXS", 256, 98, f32(grid.decodeIQ3_XXS)],
  [19, "IQ1_S", 256, 50, f32(grid.decodeIQ1_S)],
  [20, "IQ4_NL", 32, 18, f32(levels.decodeIQ4_NL)],
  [21, "IQ3_S", 256, 110, f32(grid.decodeIQ3_S)],
  [22, "IQ2_S", 256, 82, f32(grid.decodeIQ2_S)],
  [23, "IQ4_XS", 256, 136, f32(levels.decodeIQ4_XS)],
  [24, "I8", 1, 1],
  [25, "I16", 1, 2],
  [26, "I32", 1, 4],
  [27, "I64", 1, 8],
  [28, "F64", 1, 8],
  [29, "IQ1_M", 256, 56, f32(grid.decodeIQ1_M)],
  [30, "BF16", 1, 2, as("bf16")],
  // A scale or nothing: an f16 as the scale is.
  [34, "TQ1_0", 256, 54, { dtype: "f16", decode: ternary.decodeTQ1_0 }],
  [35, "TQ2_0", 256, 66, { dtype: "f16", decode: ternary.decodeTQ2_0 }],
  // A power of two and two more bits.
  [39, "MXFP4", 32, 17, { dtype: "bf16", decode: levels.decodeMXFP4 }],
];

/** Every type that the format knows, by its number. Numbers 4, 5, 31 to 33 and 36 to 38 were removed from it. */
export const ggufTypes: ReadonlyMap<number, GgufType> = new Map(
  table.map(([number, name, block, bytes]) => [number, { name, block, bytes }]),
);

/** Names of types that came later and are not read. */
export const newerGgufTypes: ReadonlyMap<number, string> = new Map([[40, "NVFP4"], [41, "Q1_0"]]);

const readings: ReadonlyMap<string, Reading> = new Map(
  table.flatMap(([, name, , , reading]) => reading ? [[name, reading]] : []),
);

/** The number of a type. */
export function ggufTypeNumber(name: string): number {
  return table.find((row) => row[1] === name)![0];
}

/** A type by its name. */
export function ggufType(name: string): GgufType {
  return ggufTypes.get(ggufTypeNumber(name))!;
}

/** The types whose tensors can be read, and the smallest storage that holds their values exactly, which they are handed on in. */
export const readableGgufTypes: ReadonlyMap<string, FloatDtype> = new Map(
  [...readings].map(([name, { dtype }]) => [name, dtype]),
);

/**
 * Values of a tensor from its bytes, in the storage that {@linkcode readableGgufTypes} gives.
 *
 * @param bytes Whole blocks; they begin their buffer, which the values of floats are laid over
 */
export function unpackGguf(type: string, bytes: Uint8Array<ArrayBuffer>): FloatData {
  const reading = readings.get(type);
  if (!reading) throw new RangeError(`GGUF type ${type} cannot be unpacked`);
  const { dtype, decode } = reading;
  if (!decode) return dtype === "f32" ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  const { block, bytes: blockBytes } = ggufType(type);
  const values = new Float32Array(bytes.length / blockBytes * block);
  decode(bytes, values);
  return fromFloat32(dtype, values);
}
