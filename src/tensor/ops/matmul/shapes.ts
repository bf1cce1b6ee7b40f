/**
 * What the kernels of a matrix product depend on, and what sets them apart.
 *
 * @module
 */
import type { Compute, DType, StepScalar, Tensor } from "../../graph.ts";
import { STORAGES } from "../../weight_storage.ts";

/**
 * Which operand is read across its rows.
 * NT: x[M, K] w[N, K]; NN: x[M, K] w[K, N]; TN: x[K, M] w[K, N]. The output is [M, N].
 */
export type Orientation = "NT" | "NN" | "TN";

/** Attributes of `matmulOp`. Inputs: x, w, then x2, w2 of a second product, then the addend. */
export interface MatmulAttributes {
  readonly orientation: Orientation;
  /** One factor for each product. */
  readonly factors: readonly number[];
  readonly addend: boolean;
  /**
   * Of `matmulAccumulateOp`, whose last input is the memory of the result: what that memory holds is multiplied by this
   * scalar, or 1, and added; without, it is overwritten.
   */
  readonly accumulate?: StepScalar | 1;
  /** What the operands of the first product are rounded to, where not f32: see docs/hardware.md for what is lost. */
  readonly compute?: Compute;
}

/** What the choice of a kernel for a product depends on. */
export interface MatmulShape {
  readonly orientation: Orientation;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Depth of the second product, or 0. */
  readonly k2: number;
  /** Storage of w. */
  readonly weight: DType;
  /** What both operands are rounded to, where not f32. */
  readonly compute?: Compute;
}

/** Sizes of a product of these operands, and what the second says of the depth. */
export function sizes(
  orientation: Orientation,
  x: Tensor,
  w: Tensor,
): { m: number; n: number; k: number; depthOfW: number } {
  const [x0, x1] = [x.dim(0), x.dim(1)];
  const [w0, w1] = [w.dim(0), w.dim(1)];
  switch (orientation) {
    case "NT":
      return { m: x0, n: w0, k: x1, depthOfW: w1 };
    case "NN":
      return { m: x0, n: w1, k: x1, depthOfW: w0 };
    case "TN":
      return { m: x1, n: w1, k: x0, depthOfW: w0 };
  }
}

/** See {@linkcode MatmulShape}. */
export function shapeOf(
  inputs: readonly Tensor[],
  { orientation, factors, compute }: MatmulAttributes,
): MatmulShape {
  const [x, w] = inputs as [Tensor, Tensor];
  const { m, n, k } = sizes(orientation, x, w);
  const k2 = factors.length === 2 ? sizes(orientation, inputs[2]!, inputs[3]!).k : 0;
  return { orientation, m, n, k, k2, weight: w.dtype, ...(compute ? { compute } : {}) };
}

/** A kernel for products. */
export type MatmulVariant =
  | TiledVariant
  | SubgroupMatrixVariant
  /** A few rows in one tile; of `columns` columns, `lanes` threads share the sums along K for each {@linkcode FEW_ROWS_COLUMNS}. */
  | { readonly family: "few-rows"; readonly lanes: number; readonly columns: number }
  /** One subgroup of 8 lanes a workgroup, which makes `rows` x 8 `columns` values; K in parts of `depth`. */
  | {
    readonly family: "subgroup8";
    readonly rows: 8 | 16 | 32;
    readonly columns: 1 | 4;
    readonly depth: number;
  };

/** Tiles of 64 x 64 values, made by units of a device that multiply [m, k] by [k, n] for a subgroup of so many lanes. */
export interface SubgroupMatrixVariant {
  readonly family: "subgroup-matrix";
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Of the factors; sums are f32. */
  readonly component: "f32" | "f16";
  readonly lanes: number;
  /** Workgroups that share the sum along K of one tile. */
  readonly parts: number;
}

/** Columns for which x is read once where there are few rows. */
export const FEW_ROWS_COLUMNS = 4;

/** Rows and columns of such a tile, and of a slice along K. */
export const MATRIX_TILE = 64;
export const MATRIX_DEPTH = 16;

/** Any size, from tiles of which slices of both operands wait in workgroup memory. */
export interface TiledVariant {
  readonly family: "tiled";
  /** Of a tile. */
  readonly rows: number;
  readonly columns: number;
  /** Of a thread. */
  readonly rowsEach: 4 | 8;
  readonly columnsEach: 4 | 8;
  /** Of a slice along K. */
  readonly depth: 8 | 16;
  /** Slices in workgroup memory at a time. */
  readonly panels: 1 | 2;
  /** Lanes of a subgroup that spreads x from its registers, instead of workgroup memory; 0 for none. */
  readonly lanes: number;
  /** Workgroups that share the sum along K of one tile. */
  readonly parts: number;
}

/** Rows and columns that one workgroup makes. */
export function tileOf(v: MatmulVariant, m: number): [rows: number, columns: number] {
  if (v.family === "tiled") return [v.rows, v.columns];
  if (v.family === "subgroup-matrix") return [MATRIX_TILE, MATRIX_TILE];
  return v.family === "few-rows" ? [m, v.columns] : [v.rows, 8 * v.columns];
}

/** Workgroups that share the sum along K of one tile. */
export function partsOf(v: MatmulVariant): number {
  return "parts" in v ? v.parts : 1;
}

/** Workgroups that share the sums along K of each tile, and how deep the share of one is. */
export function shares(variant: MatmulVariant, k: number): { parts: number; partDepth: number } {
  // Whole units of four values for each workgroup along K, and slices where the variant has them.
  const slice = variant.family === "tiled" ? variant.depth : MATRIX_DEPTH;
  const partDepth = Math.ceil(k / partsOf(variant) / slice) * slice;
  return { parts: Math.ceil(k / partDepth), partDepth };
}

/** Bytes of a weight's value, with its share of what a block has in common. */
export function bytesOfValue(dtype: DType): number {
  const { blockBytes, blockValues } = STORAGES[dtype];
  return blockBytes / blockValues;
}

/** See {@linkcode Variants.traffic}. */
export function traffic({ m, n, k, k2, weight }: MatmulShape, v: MatmulVariant): number {
  const [rows, columns] = tileOf(v, m);
  const readers = v.family === "few-rows" ? columns / FEW_ROWS_COLUMNS : 1; // of x, in a workgroup
  const x = Math.ceil(n / columns) * readers * m * 4 * (k + k2);
  const w = Math.ceil(m / rows) * n * (k * bytesOfValue(weight) + 4 * k2);
  // Each part is written and read once, or added to what is there.
  const parts = partsOf(v);
  const launches = v.family === "subgroup8" ? Math.max(1, Math.ceil(k / v.depth)) : 1;
  const out = parts > 1 ? 2 * parts + 1 : 2 * launches - 1;
  return x + w + m * n * 4 * out;
}
