/**
 * How values lie in memory: in blocks of one or more values, with whatever they share. Everything that counts bytes or reads a frozen
 * weight asks this table, so a new storage is a row here, the WGSL that reads it (`kernels/include/weights.wgsl`) and its file format.
 *
 * @module
 */
import half from "../../kernels/include/half.wgsl" with { type: "text" };
import weights from "../../kernels/include/weights.wgsl" with { type: "text" };
import weightsNf4 from "../../kernels/include/weights_nf4.wgsl" with { type: "text" };
import weightsQ40 from "../../kernels/include/weights_q4_0.wgsl" with { type: "text" };
import weightsQ4K from "../../kernels/include/weights_q4_k.wgsl" with { type: "text" };
import weightsQ6K from "../../kernels/include/weights_q6_k.wgsl" with { type: "text" };
import weightsQ80 from "../../kernels/include/weights_q8_0.wgsl" with { type: "text" };
import { ShapeError } from "../base/errors.ts";
import type { TemplateIncludes } from "../gpu/template.ts";

/** Types of weights in blocks that share scales: GGUF's q8_0, q4_0, q4_k and q6_k; NF4, with scales as they are or quantised again. */
export type BlockDtype = "q8_0" | "q4_0" | "q4_k" | "q6_k" | "nf4" | "nf4-double";

/** Element types. `f16`, `bf16` and those in blocks are storage only: kernels unpack them and accumulate in f32. */
export type DType = "f32" | "f16" | "bf16" | "i32" | "u32" | BlockDtype;

/** Shape, row-major, and element type. */
export interface TensorSpec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** How the values of one type lie in memory. */
export interface ValueStorage {
  /** Values of a block. */
  readonly blockValues: number;
  readonly blockBytes: number;
  /** Blocks run across the ends of rows, and the last one need not be full. Otherwise rows are whole blocks. */
  readonly running?: boolean;
  /** Kernels write it too; otherwise it is for frozen weights alone. */
  readonly computed: boolean;
  /** The include `weights` of kernels that read it as a weight, told its name as WEIGHT; absent for integers. */
  readonly wgsl?: string;
}

/** Every element type. */
export const STORAGES: Readonly<Record<DType, ValueStorage>> = {
  f32: { blockValues: 1, blockBytes: 4, computed: true, wgsl: weights },
  f16: { blockValues: 1, blockBytes: 2, computed: false, wgsl: weights },
  bf16: { blockValues: 1, blockBytes: 2, computed: false, wgsl: weights },
  i32: { blockValues: 1, blockBytes: 4, computed: true },
  u32: { blockValues: 1, blockBytes: 4, computed: true },
  // Whole words, so that kernels read them in one piece: two of GGUF's blocks at a time where one has an odd number of 16 bits.
  q8_0: running(64, 68, weightsQ80),
  q4_0: running(64, 36, weightsQ40),
  q4_k: running(256, 144, weightsQ4K),
  q6_k: running(512, 420, weightsQ6K),
  nf4: running(64, 36, weightsNf4),
  "nf4-double": running(2048, 1064, weightsNf4),
};

function running(blockValues: number, blockBytes: number, wgsl: string): ValueStorage {
  return { blockValues, blockBytes, running: true, computed: false, wgsl };
}

/** Number of elements of a shape; 1 for a scalar. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/**
 * Bytes of `count` neighbouring values, the first of which begins a block.
 *
 * @throws {ShapeError} if they are no whole number of blocks, where they must be
 */
export function bytesOf(dtype: DType, count: number): number {
  const { blockValues, blockBytes, running } = STORAGES[dtype];
  if (running) return Math.ceil(count / blockValues) * blockBytes;
  if (count % blockValues !== 0) {
    throw noWholeBlocks(dtype, count);
  }
  return count / blockValues * blockBytes;
}

function noWholeBlocks(dtype: DType, count: number): ShapeError {
  return new ShapeError(
    `${count} values of ${dtype} are no whole number of its blocks of ${
      STORAGES[dtype].blockValues
    }: keep this tensor in another type`,
  );
}

/** The fewest units of so many values, one after another, that are whole blocks. */
export function wholeBlockUnits(dtype: DType, unitValues: number): number {
  const { blockValues } = STORAGES[dtype];
  return blockValues / gcd(blockValues, unitValues);
}

/** Greatest common divisor. */
export function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

/**
 * Bytes of one row: of all but the first dimension, or of one value where there is no other.
 *
 * @throws {ShapeError} if it is no whole number of blocks
 */
export function rowBytes({ shape, dtype }: TensorSpec): number {
  const count = elementCount(shape.slice(1));
  if (count % STORAGES[dtype].blockValues !== 0) throw noWholeBlocks(dtype, count);
  return bytesOf(dtype, count);
}

/**
 * Bytes a tensor occupies, padded to whole 16-byte vectors so that kernels may read and write four words at a time.
 *
 * @throws {ShapeError} if its rows are no whole blocks
 */
export function byteLength({ shape, dtype }: TensorSpec): number {
  if (STORAGES[dtype].running) return padded(bytesOf(dtype, elementCount(shape)));
  return padded(elementCount(shape.slice(0, -1)) * bytesOf(dtype, shape.at(-1) ?? 1));
}

/** Bytes rounded up to whole vectors of four words. */
export function padded(bytes: number): number {
  return Math.ceil(bytes / 16) * 16;
}

/** Whether kernels can read it as a weight. */
export function isWeight({ dtype }: TensorSpec): boolean {
  return STORAGES[dtype].wgsl !== undefined;
}

/**
 * What the template of a kernel that reads `weight` includes as `weights`.
 *
 * @throws {ShapeError} if no kernel can read it as a weight
 */
export function weightIncludes({ dtype }: TensorSpec): TemplateIncludes {
  const { wgsl } = STORAGES[dtype];
  if (wgsl === undefined) throw new ShapeError(`${dtype} is no type of weights`);
  return { weights: wgsl, half };
}
