/**
 * Products that turn their output by rotary position embedding before they store it: which kernels can, and what it adds to their launches.
 *
 * @module
 */
import type { DeviceDescription } from "../../../gpu/description.ts";
import type { Dispatch, SizeWord, Tensor, TensorSpec } from "../../graph.ts";
import { preferred } from "../../variants.ts";
import { byteLength, STORAGES } from "../../weight_storage.ts";
import { type MatmulAttributes, type MatmulVariant, shapeOf, shares, sizes } from "./shapes.ts";
import { kindOfSmall } from "./small.ts";
import { matmulVariants } from "./variants.ts";

/** What turns the output of a product, f32 [T, heads * headDim]; see `rope.ts`. */
export interface Rotation {
  /** i32 [T]. */
  readonly positions: Tensor;
  /** f32 [P, rotated]. */
  readonly table: Tensor;
  /** [heads * headDim]: added to every row before. */
  readonly bias?: Tensor;
  readonly headDim: number;
  readonly rotated: number;
}

/** What of a rotation is in a kernel's text. */
export interface RotationText {
  /** Whether a head has columns that are not turned. */
  readonly rest: boolean;
  readonly bias?: TensorSpec;
}

/** See {@linkcode RotationText}. */
export function textOf({ headDim, rotated, bias }: Rotation): RotationText {
  return { rest: rotated < headDim, ...(bias ? { bias } : {}) };
}

/**
 * Whether a kernel has both columns of a pair in one thread. Units for small matrices give them to different ones, unless K is split: then another
 * kernel sums the parts of what they make.
 */
export function holdsPairs({ family }: MatmulVariant, isSplit: boolean): boolean {
  return isSplit || family === "tiled" || family === "few-rows";
}

/** What a launch binds behind its own operands, the table being in the place of an addend: eight in all at most, which WebGPU guarantees. */
export function boundBehind({ positions, bias }: Rotation): Tensor[] {
  return [positions, ...(bias ? [bias] : [])];
}

/** Size words behind those of a product. */
export function sizeOf({ headDim, rotated, table }: Rotation): SizeWord[] {
  return [rotated / 2, headDim / 2, table.dim(0), { f32: NaN }];
}

/** Rows and columns that a thread has of an output when it reads what turns them. */
type Each = readonly [rows: number, columns: number];

/** A thread that makes one pair. */
export const PAIR: Each = [1, 2];

/** What a thread of a kernel reads angles, positions and the row that is added for at a time. */
export function eachOf(variant: MatmulVariant): Each {
  return variant.family === "tiled" ? [variant.rowsEach, variant.columnsEach] : PAIR;
}

interface Output {
  readonly m: number;
  readonly n: number;
}

/** As many as `rope()` takes. */
export function flopsToTurn({ headDim, rotated }: Rotation, { m, n }: Output): number {
  return 3 * m * n * rotated / headDim;
}

/** The operands that turn an output, and what is read of them: each pair reads its angles, a thread the position of each of its rows. */
export function besideOf(
  { headDim, rotated, positions, table, bias }: Rotation,
  { m, n }: Output,
  [rows, columns]: Each,
): Dispatch["beside"] {
  const added = bias ? 4 * Math.ceil(m / rows) * n : 0;
  return {
    tensors: [positions, table, ...(bias ? [bias] : [])],
    bytes: 4 * m * n * (rotated / headDim + 1 / columns) + added,
  };
}

/** Whether the launch that ends such a product can turn what it stores: all of it, both columns of each pair in one thread. */
export function canRotate(
  inputs: readonly Tensor[],
  attributes: MatmulAttributes,
  rotation: Rotation,
  device: DeviceDescription,
): boolean {
  const { orientation, factors, addend, compute } = attributes;
  const { headDim, bias } = rotation;
  const [x, w] = inputs as [Tensor, Tensor];
  // A processor compiles half a second longer for the texts that turn, and saves next to nothing: docs/rejected.md.
  if (device.family !== "tiled" || orientation !== "NT" || addend || headDim % 2 !== 0) return false;
  if (bias && STORAGES[bias.dtype].running) return false;
  // One launch makes several of those.
  if (kindOfSmall(inputs, attributes) !== undefined || byteLength(w) > device.maxBindingSize) return false;
  const terms = compute ? 1 : factors.length;
  const { k } = sizes(orientation, x, w);
  const variant = preferred(
    matmulVariants,
    shapeOf(inputs, { ...attributes, factors: factors.slice(0, terms) }),
    device,
  );
  return holdsPairs(variant, shares(variant, k).parts > 1);
}
