/**
 * How values lie in memory: in blocks of one or more values, with whatever they share. Everything that counts bytes or reads a frozen
 * weight asks this table, so a new storage is a row here, the WGSL that reads it (`kernels/include/weights.wgsl`) and its file format.
 *
 * @module
 */
import weights from "../../kernels/include/weights.wgsl" with { type: "text" };
import { ShapeError } from "../base/errors.ts";
import type { TemplateIncludes } from "../gpu/template.ts";

/** Element types. `f16` and `bf16` are storage only: kernels unpack them and accumulate in f32. */
export type DType = "f32" | "f16" | "bf16" | "i32" | "u32";

/** Shape, row-major, and element type. */
export interface TensorSpec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** How the values of one type lie in memory. */
export interface ValueStorage {
  /** Values of a block. Rows are whole blocks. */
  readonly blockValues: number;
  readonly blockBytes: number;
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
};

/** Number of elements of a shape; 1 for a scalar. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/**
 * Bytes of `count` neighbouring values.
 *
 * @throws {ShapeError} if they are no whole number of blocks
 */
export function bytesOf(dtype: DType, count: number): number {
  const { blockValues, blockBytes } = STORAGES[dtype];
  if (count % blockValues !== 0) {
    throw new ShapeError(
      `${count} values of ${dtype} are no whole number of its blocks of ${blockValues}: keep this tensor in another type`,
    );
  }
  return count / blockValues * blockBytes;
}

/** Bytes of one row: of all but the first dimension, or of one value where there is no other. */
export function rowBytes({ shape, dtype }: TensorSpec): number {
  return bytesOf(dtype, elementCount(shape.slice(1)));
}

/**
 * Bytes a tensor occupies, padded to whole 16-byte vectors so that kernels may read and write four words at a time.
 *
 * @throws {ShapeError} if its rows are no whole blocks
 */
export function byteLength({ shape, dtype }: TensorSpec): number {
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
  return { weights: wgsl };
}
