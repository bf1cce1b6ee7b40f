/**
 * The WGSL of matrix products: what a variant, the orientation and the sizes make of the templates.
 *
 * @module
 */
import expertTile from "../../../../kernels/include/expert_tile.wgsl" with { type: "text" };
import expertWeights from "../../../../kernels/include/expert_weights.wgsl" with { type: "text" };
import operands from "../../../../kernels/include/product_operands.wgsl" with { type: "text" };
import rope from "../../../../kernels/include/product_rope.wgsl" with { type: "text" };
import productSize from "../../../../kernels/include/product_size.wgsl" with { type: "text" };
import slice from "../../../../kernels/include/product_slice.wgsl" with { type: "text" };
import unitsOfSlice from "../../../../kernels/include/product_units.wgsl" with { type: "text" };
import store from "../../../../kernels/include/product_store.wgsl" with { type: "text" };
import unit from "../../../../kernels/include/product_unit.wgsl" with { type: "text" };
import fewRows from "../../../../kernels/matmul/few_rows.wgsl" with { type: "text" };
import partSums from "../../../../kernels/matmul/part_sums.wgsl" with { type: "text" };
import subgroup8 from "../../../../kernels/matmul/subgroup8.wgsl" with { type: "text" };
import subgroupMatrix from "../../../../kernels/matmul/subgroup_matrix.wgsl" with { type: "text" };
import tiled from "../../../../kernels/matmul/tiled.wgsl" with { type: "text" };
import { expandTemplate, type TemplateConstants, type TemplateIncludes } from "../../../gpu/template.ts";
import type { Compute, TensorSpec } from "../../graph.ts";
import { MOST_TOGETHER } from "../../op.ts";
import { weightIncludes } from "../../weight_storage.ts";
import { LONGEST_SUM } from "./hardware.ts";
import type { RotationText } from "./rotation.ts";
import {
  FEW_ROWS_COLUMNS,
  type MatmulVariant,
  MATRIX_DEPTH,
  MATRIX_TILE,
  type Orientation,
  type TiledVariant,
} from "./shapes.ts";

/** A product as the templates see it. */
export interface ProductText {
  readonly orientation: Orientation;
  /** Of the output, as far as this launch makes it. */
  readonly m: number;
  readonly n: number;
  /** Length of a row of x and of w, where they are read across. */
  readonly k: number;
  /** Depth of the second product, 0 where there is none. */
  readonly k2: number;
  readonly weight: TensorSpec;
  /** Length of a row of the output. */
  readonly outStride: number;
  /** How deep a sum gets, Infinity where only the device knows. */
  readonly depth: number;
  /** Whether K is split between workgroups. */
  readonly split?: boolean;
  /** The weight is one of many, chosen by rows. */
  readonly experts?: boolean;
  /** What is stored, for kernels that are made for it: the sum, it and the addend, or whatever the sizes say, which is the default. */
  readonly store?: "sum" | "sum_and_addend";
  /** What both operands are rounded to; f32 by default. */
  readonly compute?: Compute;
  /** Whether it is one of several that a launch makes; see `Dispatch.begins`. */
  readonly together?: boolean;
  /** What turns the output before it is stored. */
  readonly rope?: RotationText;
}

/** Size words, of each of them, that say where its operands begin. */
export const BEGINS = { x: 16, w: 17, out: 18 } as const;

/** What so long a sum is made of that would lose precision in one go. */
const BLOCK = 256;

/** Multiplications of vectors that an inner loop's turn holds, about: a loop's own cost is small beside them. */
const UNROLLED = 64;

/** The text of a variant's kernel. */
export function productText(variant: MatmulVariant, product: ProductText): string {
  const { orientation, m, n, k, k2, weight, outStride } = product;
  const constants = {
    ...{ ORIENTATION: orientation, TERMS: k2 > 0 ? 2 : 1, WEIGHT: weight.dtype },
    EXPERTS: product.experts === true,
    TOGETHER: product.together ? MOST_TOGETHER : 0,
    // Behind x, w, the table and the output.
    ...ropeConstants(product.rope, 4 + (k2 > 0 ? 2 : 0) + (product.compute ? 1 : 0)),
  };
  const includes = {
    ...(product.experts ? expertIncludes(weight) : weightIncludes(weight)),
    ...ropeIncludes(product.rope),
    product_size: productSize,
  };
  if (variant.family === "subgroup8") {
    const { rows: ROWS, columns: COLUMNS } = variant;
    const STORE = product.store ?? "any";
    return expandTemplate("matmul_subgroup8", subgroup8, { ...constants, ROWS, COLUMNS, STORE }, includes);
  }
  const values = (...sizes: number[]) => sizes.every((size) => size % 4 === 0) ? 4 : 1;
  const units = {
    XV: values(orientation === "TN" ? m : k),
    WV: values(weight.shape.at(-1)!),
    SV: values(...orientation === "NT" ? [k2] : orientation === "NN" ? [k2, n] : [m, n]),
    OV: orientation === "NT" ? 1 : values(outStride, n),
  };
  const shared = { ...includes, product_operands: operands, product_store: store, product_unit: unit };
  if (variant.family === "few-rows") {
    const { lanes: LANES, columns: COLUMNS } = variant;
    const ROWS = [1, 2, 4, 8].find((rows) => rows >= m)!;
    const tile = {
      ROWS,
      LANES,
      COLUMNS,
      EACH: FEW_ROWS_COLUMNS,
      THREADS: LANES * COLUMNS / FEW_ROWS_COLUMNS,
    };
    return expandTemplate("few_rows", fewRows, { ...constants, ...units, ...tile }, shared);
  }
  const texts = { ...shared, product_units: unitsOfSlice };
  if (variant.family === "subgroup-matrix") {
    const { m: MATRIX_M, n: MATRIX_N, k: MATRIX_K, component: COMPONENT, lanes: SUBGROUP } = variant;
    const tile = { ROWS: MATRIX_TILE, COLUMNS: MATRIX_TILE, DEPTH: MATRIX_DEPTH, LANES: 0 };
    const THREADS = 4 * SUBGROUP;
    const X_UNITS = MATRIX_TILE * MATRIX_DEPTH / 4 / THREADS;
    return expandTemplate("subgroup_matrix", subgroupMatrix, {
      ...{ ...constants, ...units, ...tile, OV: 1, THREADS, X_UNITS, SPLIT: product.split === true },
      ...{ MATRIX_M, MATRIX_N, MATRIX_K, COMPONENT, SUBGROUP },
    }, texts);
  }
  const { rows, columns, rowsEach, columnsEach, depth, panels, lanes } = variant;
  const tile = {
    ...{ ROWS: rows, COLUMNS: columns, ROWS_EACH: rowsEach, COLUMNS_EACH: columnsEach },
    ...{ THREADS: threadsOf(variant), DEPTH: depth, PANELS: panels, LANES: lanes },
    X_UNITS: lanes > 0 ? Math.ceil(rowsEach * depth / 4 / lanes) : rows * depth / 4 / threadsOf(variant),
    GROUPS: Math.min(depth / 4, Math.max(1, UNROLLED / (rowsEach * columnsEach))),
    BLOCK: product.depth > LONGEST_SUM ? BLOCK : 0,
    SPLIT: product.split === true,
    COMPUTE: product.compute ?? "f32",
  };
  return expandTemplate(
    "matmul_tiled",
    tiled,
    { ...constants, ...units, ...tile },
    { ...texts, product_slice: slice },
  );
}

/** Threads of a workgroup. */
function threadsOf(v: TiledVariant): number {
  return v.rows / v.rowsEach * (v.columns / v.columnsEach);
}

/** The kernel that sums what parts of a product have given. */
export function partSumsText(values: 1 | 4, together: boolean, rotation?: RotationText): string {
  const constants = { OV: values, EXPERTS: false, TOGETHER: together ? MOST_TOGETHER : 0 };
  return expandTemplate(
    "part_sums",
    partSums,
    // Behind the parts, the table and the output.
    { ...constants, ...ropeConstants(rotation, 3) },
    { ...ropeIncludes(rotation), product_size: productSize, product_store: store },
  );
}

/** @param behind The binding of what a rotation binds behind a kernel's own operands. */
function ropeConstants(rotation: RotationText | undefined, behind: number): TemplateConstants {
  if (!rotation) return { ROPE: false };
  const { rest, bias } = rotation;
  return { ROPE: true, REST: rest, BIAS: bias?.dtype ?? "none", POSITIONS: behind, BIAS_AT: behind + 1 };
}

/** The row that is added is read as weights are, beside a weight. */
function ropeIncludes(rotation: RotationText | undefined): TemplateIncludes {
  if (!rotation) return {};
  const { bias } = rotation;
  if (!bias) return { product_rope: rope };
  const { weights } = weightIncludes(bias);
  const renamed = weights!
    .replaceAll("weight(", "bias_value(").replaceAll("Weight", "Bias")
    .replace(/\bw\b(?=[:[])/g, "bias").replaceAll("@binding(1)", "@binding($BIAS_AT)");
  return { product_rope: rope, bias: renamed };
}

/** The kernels' weight is one of many. */
function expertIncludes(weight: TensorSpec): TemplateIncludes {
  const { weights, ...others } = weightIncludes(weight);
  return {
    ...others,
    stored_weights: weights!.replaceAll("fn weight(", "fn stored_weight("),
    weights: expertWeights,
    expert_tile: expertTile,
  };
}
