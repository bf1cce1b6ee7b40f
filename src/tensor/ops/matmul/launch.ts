/**
 * Launching the kernels of matrix products.
 *
 * @module
 */
import rowScalesSource from "../../../../kernels/matmul/row_scales.wgsl" with { type: "text" };
import { expandTemplate } from "../../../gpu/template.ts";
import { nothing, type Tensor } from "../../graph.ts";
import { grid, type LoweringContext, type Window } from "../../op.ts";
import { byteLength, padded, rowBytes } from "../../weight_storage.ts";
import { BEGINS, partSumsText, productText } from "./kernels.ts";
import {
  besideOf,
  boundBehind,
  eachOf,
  flopsToTurn,
  PAIR,
  type Rotation,
  sizeOf,
  textOf,
} from "./rotation.ts";
import { type MatmulAttributes, type MatmulVariant, shares, tileOf } from "./shapes.ts";
import { kindOfSmall } from "./small.ts";

/** What a launch makes of a product. */
export interface Part {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly k2: number;
  readonly xStride: number;
  readonly xColumn: number;
  readonly outStride: number;
  readonly outColumn: number;
  readonly firstRow: number;
  /** Adds to what an earlier part has put into the output. */
  readonly continued: boolean;
  /** Of the rows of x, where operands are rounded to f16. */
  readonly scales?: Tensor;
  /** What turns the output before it is stored, where the variant can; see `holdsPairs`. */
  readonly rotation?: Rotation;
}

/** Powers of two that bring the rows of x [M, K] into the range of f16, and their inverses: [M, 2]. */
export function rowScales(context: LoweringContext<MatmulAttributes>, x: Tensor): Tensor {
  const [m, k] = x.shape as [number, number];
  const scales = context.scratch([m, 2], "f32");
  context.dispatch({
    kernel: "row scales",
    wgsl: expandTemplate("row_scales", rowScalesSource, { XV: k % 4 === 0 ? 4 : 1 }),
    tensors: [x, scales],
    size: [m, k],
    groups: grid(m, context.device),
  });
  return scales;
}

/** Launches the kernel of a part, and the one that sums what workgroups have shared. */
export function launch(
  context: LoweringContext<MatmulAttributes>,
  variant: MatmulVariant,
  w: Tensor | Window,
  weight: Tensor,
  part: Part,
): void {
  const { inputs, outputs, attributes, device } = context;
  const { orientation, accumulate } = attributes;
  const { m, n, k } = part;
  const terms = attributes.factors.length === 2 && part.k2 > 0 ? 2 : 1;
  const k2 = terms === 2 ? part.k2 : 0;
  const [rows, columns] = tileOf(variant, m);
  const [tilesM, tilesN] = [Math.ceil(m / rows), Math.ceil(n / columns)];
  const tiles = tilesM * tilesN;

  const { parts, partDepth } = shares(variant, k);
  const split = parts > 1 ? context.scratch([parts, m, n], "f32") : undefined;

  const addend = attributes.addend && !part.continued;
  const [second, first] = attributes.factors.length === 2
    ? [attributes.factors[1]!, attributes.factors[0]!]
    : [1, attributes.factors[0]!];
  const x = orientation === "TN" && k < inputs[0]!.dim(0) ? rowsOf(inputs[0]!, part.firstRow, k) : inputs[0]!;
  const secondWeight = orientation === "NT" && terms === 2 && n < inputs[3]!.dim(0)
    ? rowsOf(inputs[3]!, part.firstRow, n)
    : inputs[3]!;
  const together = kindOfSmall(inputs, attributes) !== undefined &&
    (variant.family === "subgroup8" || variant.family === "tiled");
  const nobody = nothing(inputs[0]!.graph);
  const { rotation } = part;
  const turned = split ? undefined : rotation;
  const stored = [
    addend ? 1 : 0,
    part.continued || accumulate === 1 ? 2 : accumulate ? 1 : 0,
    accumulate === undefined || accumulate === 1 ? 0 : accumulate,
    { f32: first },
  ];
  context.dispatch({
    kernel: `matmul ${orientation}${terms === 2 ? " x2" : ""} ${weight.dtype}${part.scales ? " in f16" : ""}${
      turned ? " rope" : ""
    } ${variant.family === "subgroup8" ? "" : `${variant.family} `}${rows}x${columns}`,
    wgsl: productText(variant, {
      ...{ orientation, m, n, k: part.xStride, k2, weight, outStride: part.outStride },
      depth: partDepth,
      split: split !== undefined,
      ...(part.continued || accumulate ? {} : { store: addend ? "sum_and_addend" : "sum" }),
      ...(attributes.compute ? { compute: attributes.compute } : {}),
      together,
      ...(turned ? { rope: textOf(turned) } : {}),
    }),
    tensors: [
      x,
      w,
      turned ? turned.table : addend && !split ? inputs.at(-1)! : nobody,
      split ?? outputs[0]!,
      ...(terms === 2 ? [inputs[2]!, secondWeight] : []),
      ...(part.scales ? [part.scales] : []),
      ...(turned ? boundBehind(turned) : []),
    ],
    size: [
      ...[m, n, k, part.k2, part.xStride, orientation === "TN" ? 0 : part.xColumn],
      ...(split ? [n, 0] : [part.outStride, part.outColumn]),
      ...[tilesM, tiles],
      ...(split ? [0, 0, 0, { f32: 1 }] : stored),
      { f32: second / first },
      partDepth,
      ...(together ? [0, 0, 0, 0] : []),
      ...(turned ? sizeOf(turned) : []),
    ],
    groups: grid(tiles * parts, device),
    ...(together ? { begins: [BEGINS.x, BEGINS.w, undefined, BEGINS.out] } : {}),
    flops: 2 * m * n * (k + k2) + (turned ? flopsToTurn(turned, part) : 0),
    ...(turned ? { beside: besideOf(turned, part, eachOf(variant)) } : {}),
  });
  if (!split) return;
  const values = n % 4 === 0 && part.outStride % 4 === 0 && part.outColumn % 4 === 0 ? 4 : 1;
  const units = m * n / (rotation ? 2 : values);
  context.dispatch({
    kernel: `matmul parts${rotation ? " rope" : ""}`,
    wgsl: partSumsText(values, together, rotation && textOf(rotation)),
    tensors: [
      split,
      rotation ? rotation.table : addend ? inputs.at(-1)! : nobody,
      outputs[0]!,
      ...(rotation ? boundBehind(rotation) : []),
    ],
    size: [
      ...[m, n, parts, 0, 0, 0, part.outStride, part.outColumn, 0, units],
      ...stored,
      { f32: 1 },
      0,
      ...(together ? [0, 0, 0, 0] : []),
      ...(rotation ? sizeOf(rotation) : []),
    ],
    groups: grid(Math.ceil(units / 64), device),
    ...(together ? { begins: [BEGINS.x, undefined, BEGINS.out] } : {}),
    flops: parts * m * n + (rotation ? flopsToTurn(rotation, part) : 0),
    ...(rotation ? { beside: besideOf(rotation, part, PAIR) } : {}),
  });
}

/** `count` rows of an f32 matrix from `first` on. */
function rowsOf(tensor: Tensor, first: number, count: number): Window {
  const byteOffset = first * rowBytes(tensor);
  return {
    tensor,
    byteOffset,
    byteLength: Math.min(padded(count * rowBytes(tensor)), byteLength(tensor) - byteOffset),
  };
}
