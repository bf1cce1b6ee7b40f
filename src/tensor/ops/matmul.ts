/**
 * Matrix products: one op for every orientation, for one product or the sum of two, with an addend.
 *
 * A LoRA linear layer is `x W^T + s (x A^T) B^T`: two products into one output. Its backward is `dy W + s (dy B) A`, again two
 * products into one. Computing the sum in one kernel saves a trip of the whole activation through memory; `optimise` finds
 * these sums in the graph, so models and adapters write plain additions.
 *
 * @module
 */
import rowScalesSource from "../../../kernels/matmul/row_scales.wgsl" with { type: "text" };
import { DeviceError } from "../../base/errors.ts";
import { expandTemplate } from "../../gpu/template.ts";
import { type Compute, type Graph, nothing, type StepScalar, type Tensor, type Variants } from "../graph.ts";
import { ensure, type GradientContext, grid, type LoweringContext, type Op, type Window } from "../op.ts";
import { byteLength, gcd, isWeight, padded, rowBytes, STORAGES } from "../weight_storage.ts";
import { windows } from "../windows.ts";
import { scaleFactor } from "./combine.ts";
import { unpackRows } from "./materialise.ts";
import { partSumsText, productText } from "./matmul/kernels.ts";
import {
  type MatmulShape,
  type MatmulVariant,
  MATRIX_DEPTH,
  type Orientation,
  partsOf,
  tileOf,
} from "./matmul/shapes.ts";
import { matmulVariants } from "./matmul/variants.ts";

export type { Orientation };

/** Attributes of {@linkcode matmulOp}. Inputs: x, w, then x2, w2 of a second product, then the addend. */
export interface MatmulAttributes {
  readonly orientation: Orientation;
  /** One factor for each product. */
  readonly factors: readonly number[];
  readonly addend: boolean;
  /**
   * Of {@linkcode matmulAccumulateOp}, whose last input is the memory of the result: what that memory holds is multiplied by this
   * scalar, or 1, and added; without, it is overwritten.
   */
  readonly accumulate?: StepScalar | 1;
  /** What the operands of the first product are rounded to, where not f32: see docs/hardware.md for what is lost. */
  readonly compute?: Compute;
}

function sizes(
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

function infer(inputs: readonly Tensor[], attributes: MatmulAttributes) {
  const { orientation, factors, addend } = attributes;
  const [x, w] = inputs as [Tensor, Tensor];
  const { m, n, k, depthOfW } = sizes(orientation, x, w);
  ensure(
    inputs.every((t) => t.shape.length === 2),
    "matmul",
    inputs,
    "every operand must have two dimensions",
  );
  ensure(k === depthOfW, "matmul", inputs, `${orientation}: inner sizes ${k} and ${depthOfW} differ`);
  ensure(x.dtype === "f32", "matmul", inputs, "the first operand must be f32");
  ensure(isWeight(w), "matmul", inputs, "the second operand must be a weight");
  if (factors.length === 2) {
    const second = sizes(orientation, inputs[2]!, inputs[3]!);
    ensure(
      second.m === m && second.n === n && second.k === second.depthOfW,
      "matmul",
      inputs,
      `the second product does not give [${m}, ${n}]`,
    );
    ensure(
      inputs[2]!.dtype === "f32" && inputs[3]!.dtype === "f32",
      "matmul",
      inputs,
      "the second product must be f32",
    );
  }
  if (addend || inputs.length > 2 * factors.length) {
    const last = inputs.at(-1)!;
    ensure(last.dim(0) === m && last.dim(1) === n, "matmul", inputs, `the addend must be [${m}, ${n}]`);
  }
  return [{ shape: [m, n], dtype: "f32" as const }];
}

/** The op behind {@linkcode matmul}. */
export const matmulOp: Op<MatmulAttributes> = { name: "matmul", infer, gradient, lower };

/** {@linkcode matmulOp} into given memory: a gradient summed over an accumulation window, or a chunk of a larger tensor. */
export const matmulAccumulateOp: Op<MatmulAttributes> = {
  name: "matmulAccumulate",
  infer,
  lower,
  mutates: true,
  alias: (_, { factors }) => ({ input: 2 * factors.length, byteOffset: 0 }),
};

/**
 * A matrix product.
 *
 * @param orientation See {@linkcode Orientation}
 * @param compute What operands are rounded to, in this product and in its gradient with respect to `x`; not where `x` is read across its rows
 * @returns f32 [M, N]
 * @throws {ShapeError} if the inner sizes differ
 */
export function matmul(
  orientation: Orientation,
  x: Tensor,
  w: Tensor,
  factor = 1,
  compute?: Compute,
): Tensor {
  const left = scaleFactor(x);
  const right = scaleFactor(w);
  return x.graph.add(matmulOp, [left.tensor, right.tensor], {
    orientation,
    factors: [factor * left.factor * right.factor],
    addend: false,
    ...(compute && orientation !== "TN" ? { compute } : {}),
  })[0]!;
}

/** A product written into memory that is there already: a part of a larger tensor, made of chunks. */
export function matmulInto(target: Tensor, orientation: Orientation, x: Tensor, w: Tensor): Tensor {
  return x.graph.add(matmulAccumulateOp, [x, w, target], { orientation, factors: [1], addend: false })[0]!;
}

/** y = x W^T for a weight stored [out, in], the layout of `nn.Linear`. x: f32 [T, in]; the result: f32 [T, out]. */
export function linear(x: Tensor, weight: Tensor, compute?: Compute): Tensor {
  return matmul("NT", x, weight, 1, compute);
}

function gradient(context: GradientContext<MatmulAttributes>): (Tensor | undefined)[] {
  const { inputs, attributes, outputGradients, needed } = context;
  const dy = outputGradients[0]!;
  const result: (Tensor | undefined)[] = inputs.map(() => undefined);
  attributes.factors.forEach((factor, term) => {
    const compute = term === 0 ? attributes.compute : undefined;
    const [x, w] = [inputs[2 * term]!, inputs[2 * term + 1]!];
    const [needX, needW] = [needed[2 * term], needed[2 * term + 1]];
    switch (attributes.orientation) {
      case "NT":
        if (needX) result[2 * term] = matmul("NN", dy, w, factor, compute);
        if (needW) result[2 * term + 1] = matmul("TN", dy, x, factor);
        break;
      case "NN":
        if (needX) result[2 * term] = matmul("NT", dy, w, factor, compute);
        if (needW) result[2 * term + 1] = matmul("TN", x, dy, factor);
        break;
      case "TN":
        if (needX) result[2 * term] = matmul("NT", w, dy, factor);
        if (needW) result[2 * term + 1] = matmul("NN", x, dy, factor);
        break;
    }
  });
  if (attributes.addend) result[result.length - 1] = dy;
  return result;
}

/**
 * Software devices unpack weights in blocks in the loader where few rows are made. From so many rows on, a piece of them is unpacked
 * once, and all tiles of rows read the numbers: with 256 rows the loader would unpack each eight times. bench/quantised_bench.ts has both.
 */
const UNPACKED_ROWS = 64;

/** Values of such a piece: a megabyte stays in the second-level cache. */
const UNPACKED_VALUES = 2 ** 18;

/** The kernels of {@linkcode matmulOp}. */
const VARIANTS: Variants<MatmulShape, MatmulVariant> = { ...matmulVariants, trial };

/** One product of that shape, of a weight in that storage, with a second one where there is one. */
function trial(graph: Graph, { orientation, m, n, k, k2, weight, compute }: MatmulShape): void {
  const x = (name: string, depth: number) =>
    graph.input(name, orientation === "TN" ? [depth, m] : [m, depth], "f32");
  const w = (depth: number) => orientation === "NT" ? [n, depth] : [depth, n];
  const first = [x("x", k), graph.weight("w", w(k), weight)];
  const second = k2 > 0 ? [x("x2", k2), graph.input("w2", w(k2), "f32")] : [];
  const factors = k2 > 0 ? [1, 1] : [1];
  graph.output(
    "out",
    graph.add(matmulOp, [...first, ...second], {
      ...{ orientation, factors, addend: false },
      ...(compute ? { compute } : {}),
    })[0]!,
  );
}

function lower(context: LoweringContext<MatmulAttributes>): void {
  const { inputs, attributes, device } = context;
  const { compute, factors, ...others } = attributes;
  if (compute && device.shaderF16 === false) {
    throw new DeviceError(
      `products in f16 need the feature shader-f16, which this device (${device.name}) does not have`,
      { hint: "Set train.compute to f32." },
    );
  }
  if (!compute || factors.length === 1) return lowerProducts(context, false);
  // The second product is one of trained weights, which stay f32.
  const [x, w, ...second] = inputs as [Tensor, Tensor];
  const alone = { ...others, factors: [factors[1]!] };
  lowerProducts({ ...context, inputs: second, attributes: alone }, false);
  const { orientation } = attributes;
  lowerProducts({
    ...context,
    inputs: [x, w],
    attributes: { orientation, factors: [factors[0]!], addend: false, compute },
  }, true);
}

/** @param continued Whether the products are added to what the output holds */
function lowerProducts(context: LoweringContext<MatmulAttributes>, continued: boolean): void {
  const { inputs, attributes, device } = context;
  const { orientation, factors, compute } = attributes;
  const [x, w] = inputs as [Tensor, Tensor];
  const { m, n, k } = sizes(orientation, x, w);
  const k2 = factors.length === 2 ? sizes(orientation, inputs[2]!, inputs[3]!).k : 0;
  const shape = { orientation, m, n, k, k2, weight: w.dtype, ...(compute ? { compute } : {}) };
  const variant = context.choose(VARIANTS, shape);
  const fast = variant.family === "subgroup8";
  const depth = fast ? Math.min(k, variant.depth) : k;
  const scales = compute ? rowScales(context, x) : undefined;

  // Parts of w that one binding holds: along N for NT, along K otherwise. Whatever is cut with it must begin at an aligned byte
  // too: the rows of w2 beside those of w, the rows of x where both are read across.
  const alongN = orientation === "NT";
  const unpacked = fast && m >= UNPACKED_ROWS && STORAGES[w.dtype].running === true && orientation !== "TN";
  const beside = alongN ? k2 : orientation === "TN" ? m : 1;
  const about = Math.min(
    alongN ? Infinity : depth,
    unpacked ? Math.ceil(UNPACKED_VALUES / w.dim(1)) : Infinity,
  );
  const cut = {
    multiple: Math.max(4, 64 / gcd(64, beside)),
    ...(orientation === "TN"
      ? { most: Math.min(depth, Math.floor(device.maxBindingSize / rowBytes(x))) }
      : { about }),
  };
  const parts = windows(w, device, cut);
  const piece = unpacked ? context.scratch([parts[0]!.count, w.dim(1)], "f32") : undefined;
  for (const { first, count, binding } of parts) {
    if (piece) unpackRows(context, w, binding, piece, count);
    for (let from = alongN ? 0 : first; from < (alongN ? k : first + count); from += alongN ? depth : count) {
      launch(context, variant, piece ?? binding, piece ?? w, {
        m,
        n: alongN ? count : n,
        k: alongN ? Math.min(depth, k - from) : count,
        k2: from === 0 ? k2 : 0,
        xStride: k,
        xColumn: from,
        outStride: n,
        outColumn: alongN ? first : 0,
        firstRow: first,
        continued: continued || from > 0,
        ...(scales ? { scales } : {}),
      });
    }
  }
}

interface Part {
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
}

/** Powers of two that bring the rows of x [M, K] into the range of f16, and their inverses: [M, 2]. */
function rowScales(context: LoweringContext<MatmulAttributes>, x: Tensor): Tensor {
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

function launch(
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

  // Whole units of four values for each workgroup along K, and slices where the variant has them.
  const slice = variant.family === "tiled" ? variant.depth : MATRIX_DEPTH;
  const wanted = partsOf(variant);
  const partDepth = Math.ceil(k / wanted / slice) * slice;
  const parts = Math.ceil(k / partDepth);
  const split = parts > 1 ? context.scratch([parts, m, n], "f32") : undefined;

  const addend = attributes.addend && !part.continued;
  const [second, first] = attributes.factors.length === 2
    ? [attributes.factors[1]!, attributes.factors[0]!]
    : [1, attributes.factors[0]!];
  const x = orientation === "TN" && k < inputs[0]!.dim(0) ? rowsOf(inputs[0]!, part.firstRow, k) : inputs[0]!;
  const secondWeight = orientation === "NT" && terms === 2 && n < inputs[3]!.dim(0)
    ? rowsOf(inputs[3]!, part.firstRow, n)
    : inputs[3]!;
  const nobody = nothing(inputs[0]!.graph);
  const stored = [
    addend ? 1 : 0,
    part.continued || accumulate === 1 ? 2 : accumulate ? 1 : 0,
    accumulate === undefined || accumulate === 1 ? 0 : accumulate,
    { f32: first },
  ];
  context.dispatch({
    kernel: `matmul ${orientation}${terms === 2 ? " x2" : ""} ${weight.dtype}${
      part.scales ? " in f16" : ""
    } ${variant.family === "subgroup8" ? "" : `${variant.family} `}${rows}x${columns}`,
    wgsl: productText(variant, {
      ...{ orientation, m, n, k: part.xStride, k2, weight, outStride: part.outStride },
      depth: partDepth,
      split: split !== undefined,
      ...(part.continued || accumulate ? {} : { store: addend ? "sum_and_addend" : "sum" }),
      ...(attributes.compute ? { compute: attributes.compute } : {}),
    }),
    tensors: [
      x,
      w,
      addend && !split ? inputs.at(-1)! : nobody,
      split ?? outputs[0]!,
      ...(terms === 2 ? [inputs[2]!, secondWeight] : []),
      ...(part.scales ? [part.scales] : []),
    ],
    size: [
      ...[m, n, k, part.k2, part.xStride, orientation === "TN" ? 0 : part.xColumn],
      ...(split ? [n, 0] : [part.outStride, part.outColumn]),
      ...[tilesM, tiles],
      ...(split ? [0, 0, 0, { f32: 1 }] : stored),
      { f32: second / first },
      partDepth,
    ],
    groups: grid(tiles * parts, device),
    flops: 2 * m * n * (k + k2),
  });
  if (!split) return;
  const values = n % 4 === 0 && part.outStride % 4 === 0 && part.outColumn % 4 === 0 ? 4 : 1;
  const units = m * n / values;
  context.dispatch({
    kernel: "matmul parts",
    wgsl: partSumsText(values),
    tensors: [split, addend ? inputs.at(-1)! : nobody, outputs[0]!],
    size: [
      ...[m, n, parts, 0, 0, 0, part.outStride, part.outColumn, 0, units],
      ...stored,
      { f32: 1 },
      0,
    ],
    groups: grid(Math.ceil(units / 64), device),
    flops: parts * m * n,
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
