/**
 * Matrix products: one op for every orientation, for one product or the sum of two, with an addend.
 *
 * A LoRA linear layer is `x W^T + s (x A^T) B^T`: two products into one output. Its backward is `dy W + s (dy B) A`, again two
 * products into one. Computing the sum in one kernel saves a trip of the whole activation through memory; `optimise` finds
 * these sums in the graph, so models and adapters write plain additions.
 *
 * @module
 */
import { DeviceError, ShapeError } from "../../base/errors.ts";
import type { Compute, Graph, Tensor, Variants } from "../graph.ts";
import { ensure, type GradientContext, type LoweringContext, type Op } from "../op.ts";
import { gcd, isWeight, rowBytes, STORAGES } from "../weight_storage.ts";
import { windows } from "../windows.ts";
import { scaleFactor } from "./combine.ts";
import { unpackRows } from "./materialise.ts";
import { launch, rowScales } from "./matmul/launch.ts";
import { holdsPairs, type Rotation } from "./matmul/rotation.ts";
import {
  type MatmulAttributes,
  type MatmulShape,
  type MatmulVariant,
  type Orientation,
  shapeOf,
  shares,
  sizes,
} from "./matmul/shapes.ts";
import { kindOfSmall } from "./matmul/small.ts";
import { matmulVariants } from "./matmul/variants.ts";

export type { MatmulAttributes, Orientation };

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
export const matmulOp: Op<MatmulAttributes> = {
  name: "matmul",
  infer,
  gradient,
  lower,
  together: kindOfSmall,
};

/** {@linkcode matmulOp} into given memory: a gradient summed over an accumulation window, or a chunk of a larger tensor. */
export const matmulAccumulateOp: Op<MatmulAttributes> = {
  name: "matmulAccumulate",
  infer,
  lower,
  together: kindOfSmall,
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
  lowerMatmul(context);
}

/**
 * Lowers a product.
 *
 * @param rotation What turns the output before it is stored, where `canRotate` says that it can
 */
export function lowerMatmul(context: LoweringContext<MatmulAttributes>, rotation?: Rotation): void {
  const { inputs, attributes, device } = context;
  const { compute, factors, ...others } = attributes;
  if (compute && device.shaderF16 === false) {
    throw new DeviceError(
      `products in f16 need the feature shader-f16, which this device (${device.name}) does not have`,
      { hint: "Set train.compute to f32." },
    );
  }
  if (!compute || factors.length === 1) return lowerProducts(context, false, rotation);
  // The second product is one of trained weights, which stay f32.
  const [x, w, ...second] = inputs as [Tensor, Tensor];
  const alone = { ...others, factors: [factors[1]!] };
  lowerProducts({ ...context, inputs: second, attributes: alone }, false);
  const { orientation } = attributes;
  lowerProducts(
    {
      ...context,
      inputs: [x, w],
      attributes: { orientation, factors: [factors[0]!], addend: false, compute },
    },
    true,
    rotation,
  );
}

/** @param continued Whether the products are added to what the output holds */
function lowerProducts(
  context: LoweringContext<MatmulAttributes>,
  continued: boolean,
  rotation?: Rotation,
): void {
  const { inputs, attributes, device } = context;
  const { orientation, compute } = attributes;
  const [x, w] = inputs as [Tensor, Tensor];
  const shape = shapeOf(inputs, attributes);
  const { m, n, k, k2 } = shape;
  const variant = context.choose(VARIANTS, shape);
  if (rotation && !holdsPairs(variant, shares(variant, k).parts > 1)) {
    throw new ShapeError(`${matmulVariants.name(variant)} cannot turn what it stores; this is a bug`);
  }
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
  const reusing = { ...context, scratch: reused(context) };
  const piece = unpacked ? context.scratch([parts[0]!.count, w.dim(1)], "f32") : undefined;
  for (const { first, count, binding } of parts) {
    if (piece) unpackRows(context, w, binding, piece, count);
    for (let from = alongN ? 0 : first; from < (alongN ? k : first + count); from += alongN ? depth : count) {
      launch(reusing, variant, piece ?? binding, piece ?? w, {
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
        ...(rotation ? { rotation } : {}),
      });
    }
  }
}

/** Memory that launches of one shape share: they run one after another. */
function reused(
  { scratch }: LoweringContext<MatmulAttributes>,
): LoweringContext<MatmulAttributes>["scratch"] {
  const made = new Map<string, Tensor>();
  return (shape, dtype) => {
    const key = `${dtype} ${shape}`;
    const tensor = made.get(key) ?? scratch(shape, dtype);
    made.set(key, tensor);
    return tensor;
  };
}
