/**
 * Grouped-query attention in which every query has its own range of keys: causal attention within packed samples, and decoding
 * from a cache, are the same computation with other ranges. No [T, S] matrix ever lies in memory: the forward pass keeps only the
 * logarithm of each softmax's denominator, and the backward pass computes the weights again from it (FlashAttention, Dao et al.,
 * arXiv 2205.14135). Two backward kernels, one over queries and one over keys, need no atomics.
 *
 * @module
 */
import type { Graph, Tensor, TensorSpec, TrialInputs, Variants } from "../graph.ts";
import { ensure, type GradientContext, type LoweringContext, type Op, refuse } from "../op.ts";
import { launchApart, launchPart, launchRows } from "./attention/kernels.ts";
import {
  type AttentionAttributes,
  type AttentionPart,
  type AttentionShape,
  type AttentionVariant,
  attentionVariants,
} from "./attention/variants.ts";
import { narrowColumns, widenColumns } from "./columns.ts";

export type { AttentionAttributes };

/** Query i attends the keys `start[i] <= j < end[i]`. Both i32 [T]. */
export interface AttentionRanges {
  readonly start: Tensor;
  readonly end: Tensor;
}

/**
 * Attention of each query over its own range of keys.
 *
 * In training `end[i]` is i + 1 and `start[i]` the first token of i's sample; in decoding both are slots of the cache. Any ranges are
 * computed right, forward and backward, and cut to 0 ... S; neighbouring queries with neighbouring ranges are computed fast, or with
 * `apart` those whose ranges have nothing to do with each other. A query with an empty range gives zeros and no gradient.
 *
 * @param q f32 [T, heads * headDim]
 * @param k f32 [S, keyValueHeads * headDim]
 * @param v f32, the shape of k
 * @returns f32 [T, heads * headDim]
 * @throws {ShapeError} if the shapes do not fit, headDim is beyond 256, or the soft cap is not positive
 * @example
 * ```ts ignore
 * const y = attention(q, k, v, { start, end }, { heads: 6, keyValueHeads: 6, headDim: 48, scale: 48 ** -0.5 });
 * ```
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  ranges: AttentionRanges,
  attributes: AttentionAttributes,
): Tensor {
  const inputs = [q, k, v, ranges.start, ranges.end];
  const { heads, keyValueHeads, headDim } = attributes;
  if (headDim % 4 === 0) return q.graph.add(attentionOp, inputs, attributes)[0]!;
  ensureShapes(inputs, attributes);
  // Kernels read heads in vectors of four: zeros make them wider without a change to any product.
  const wide = Math.ceil(headDim / 4) * 4;
  const [keys, values] = [k, v].map((t) => widenColumns(t, keyValueHeads, wide)) as [Tensor, Tensor];
  const y = attention(widenColumns(q, heads, wide), keys, values, ranges, { ...attributes, headDim: wide });
  return narrowColumns(y, heads, headDim);
}

/**
 * The op behind {@linkcode attention}. Inputs: q, k, v, start, end. Outputs: the attention, and the natural logarithm of each
 * softmax's denominator, f32 [heads, T] (0 for an empty range), which the backward pass needs and nothing may differentiate through.
 */
export const attentionOp: Op<AttentionAttributes> = { name: "attention", infer, gradient, lower };

/** Attributes of {@linkcode attentionGradientOp}. */
export interface AttentionGradientAttributes extends AttentionAttributes {
  /** Whether the gradient of q is wanted: the first output. */
  readonly queries: boolean;
  /** Whether the gradients of k and v are wanted: the next two outputs. */
  readonly keys: boolean;
}

/** Gradients of {@linkcode attentionOp}. Inputs: q, k, v, start, end, its two outputs, and the gradient of the first. */
export const attentionGradientOp: Op<AttentionGradientAttributes> = {
  name: "attentionGradient",
  infer: ([q, k, v], { queries, keys }) => [
    ...(queries ? [{ shape: q!.shape, dtype: "f32" as const }] : []),
    ...(keys ? [k!, v!].map(({ shape }) => ({ shape, dtype: "f32" as const })) : []),
  ],
  lower: lowerGradient,
};

function infer(inputs: readonly Tensor[], attributes: AttentionAttributes): TensorSpec[] {
  const { heads, headDim } = attributes;
  const [q] = inputs as [Tensor];
  ensureShapes(inputs, attributes);
  ensure(headDim % 4 === 0, "attention", inputs, `headDim must be a multiple of 4, not ${headDim}`);
  return [{ shape: q.shape, dtype: "f32" }, { shape: [heads, q.dim(0)], dtype: "f32" }];
}

function ensureShapes(inputs: readonly Tensor[], attributes: AttentionAttributes): void {
  const { heads, keyValueHeads, headDim, softCap } = attributes;
  const [q, k, v, start, end] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor];
  const check = (condition: boolean, why: string) => ensure(condition, "attention", inputs, why);
  check(
    Number.isInteger(headDim) && headDim > 0 && headDim <= 256,
    `headDim must be a whole number up to 256, not ${headDim}`,
  );
  check(
    keyValueHeads > 0 && heads > 0 && heads % keyValueHeads === 0,
    `${heads} heads cannot share ${keyValueHeads} heads of keys and values evenly`,
  );
  check(softCap === undefined || softCap > 0, `a soft cap must be a positive number, not ${softCap}`);
  check([q, k, v].every((t) => t.dtype === "f32"), "q, k and v must be f32");
  check([q, k, v].every((t) => t.shape.length === 2), "q, k and v must have two dimensions");
  check(q.dim(1) === heads * headDim, `q must be [T, ${heads} * ${headDim}]`);
  check(k.dim(1) === keyValueHeads * headDim, `k must be [S, ${keyValueHeads} * ${headDim}]`);
  check(String(k.shape) === String(v.shape), "k and v must have one shape");
  check(q.dim(0) > 0 && k.dim(0) > 0, "there must be a query and a key");
  check(
    [start, end].every((t) => t.dtype === "i32" && t.shape.length === 1 && t.dim(0) === q.dim(0)),
    "start and end must be i32 [T]",
  );
}

function gradient(context: GradientContext<AttentionAttributes>): (Tensor | undefined)[] {
  const { inputs, outputs, attributes, outputGradients, needed } = context;
  const [dout, dLogsumexp] = outputGradients;
  if (dLogsumexp) {
    refuse("attention", inputs, "nothing may be differentiated through the logarithm of the denominator");
  }
  if (!dout) return [];
  const queries = needed[0]!;
  const keys = needed[1]! || needed[2]!;
  const made = dout.graph.add(attentionGradientOp, [...inputs, ...outputs, dout], {
    ...attributes,
    queries,
    keys,
  });
  return [queries ? made[0] : undefined, ...(keys ? made.slice(-2) : [])];
}

/** The kernels of a part; see {@linkcode attentionVariants}. */
function variants(part: AttentionPart): Variants<AttentionShape, AttentionVariant> {
  return { ...attentionVariants(part), trial: (graph, shape) => trial(part, graph, shape) };
}

const VARIANTS: Readonly<Record<AttentionPart, Variants<AttentionShape, AttentionVariant>>> = {
  "attention": variants("attention"),
  "attention dq": variants("attention dq"),
  "attention dk dv": variants("attention dk dv"),
};

/** The part over one causal sample, or where there are more keys than queries, over all keys. */
function trial(part: AttentionPart, graph: Graph, shape: AttentionShape): TrialInputs {
  const { queries, keys, heads, keyValueHeads, headDim, capped } = shape;
  const wide = (name: string) => graph.input(name, [queries, heads * headDim], "f32");
  const narrow = (name: string) => graph.input(name, [keys, keyValueHeads * headDim], "f32");
  const range = (name: string) => graph.input(name, [queries], "i32");
  const operands = [wide("q"), narrow("k"), narrow("v"), range("start"), range("end")];
  const attributes: AttentionAttributes = {
    ...{ heads, keyValueHeads, headDim, scale: headDim ** -0.5 },
    ...(capped ? { softCap: 30 } : {}),
  };
  const ends = Int32Array.from({ length: queries }, (_, i) => queries === keys ? i + 1 : keys);
  const inputs = { start: new Int32Array(queries), end: ends };
  if (part === "attention") {
    graph.output("out", graph.add(attentionOp, operands, attributes)[0]!);
    return inputs;
  }
  const logsumexp = graph.input("logsumexp", [heads, queries], "f32");
  const made = graph.add(attentionGradientOp, [...operands, wide("out"), logsumexp, wide("dout")], {
    ...attributes,
    queries: part === "attention dq",
    keys: part === "attention dk dv",
  });
  made.forEach((t, i) => graph.output(`gradient${i}`, t));
  // About that of products of numbers around 1: the weights stay finite.
  return { ...inputs, logsumexp: new Float32Array(heads * queries).fill(Math.log(keys) + 2) };
}

function lower(context: LoweringContext<AttentionAttributes>): void {
  if (context.attributes.apart) return launchApart(context);
  launchPart(context, "attention", VARIANTS["attention"], [...context.inputs, ...context.outputs]);
}

function lowerGradient(context: LoweringContext<AttentionGradientAttributes>): void {
  const { inputs, outputs, attributes } = context;
  const [q, k, v, , , , , dout] = inputs;
  const { rows, blocks } = launchRows(context);
  const launch = (part: AttentionPart, ...others: readonly Tensor[]) =>
    launchPart(context, part, VARIANTS[part], [q!, k!, v!, rows, dout!, ...others]);
  if (attributes.queries) launch("attention dq", outputs[0]!);
  if (attributes.keys) launch("attention dk dv", blocks, ...outputs.slice(-2));
}
