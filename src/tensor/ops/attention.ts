/**
 * Grouped-query attention in which every query has its own range of keys: causal attention within packed samples, and decoding
 * from a cache, are the same computation with other ranges. No [T, S] matrix ever lies in memory: the forward pass keeps only the
 * logarithm of each softmax's denominator, and the backward pass computes the weights again from it (FlashAttention, Dao et al.,
 * arXiv 2205.14135). Two backward kernels, one over queries and one over keys, need no atomics.
 *
 * @module
 */
import apart from "../../../kernels/attention/apart.wgsl" with { type: "text" };
import forwardSubgroup8 from "../../../kernels/attention/forward_subgroup8.wgsl" with { type: "text" };
import forwardTiled from "../../../kernels/attention/forward_tiled.wgsl" with { type: "text" };
import keySubgroup8 from "../../../kernels/attention/key_gradient_subgroup8.wgsl" with { type: "text" };
import keyTiled from "../../../kernels/attention/key_gradient_tiled.wgsl" with { type: "text" };
import querySubgroup8 from "../../../kernels/attention/query_gradient_subgroup8.wgsl" with { type: "text" };
import queryTiled from "../../../kernels/attention/query_gradient_tiled.wgsl" with { type: "text" };
import heldSubgroup8 from "../../../kernels/include/attention_held_subgroup8.wgsl" with { type: "text" };
import productsSubgroup8 from "../../../kernels/include/attention_products_subgroup8.wgsl" with {
  type: "text",
};
import productsTiled from "../../../kernels/include/attention_products_tiled.wgsl" with { type: "text" };
import size from "../../../kernels/include/attention_size.wgsl" with { type: "text" };
import sumsTiled from "../../../kernels/include/attention_sums_tiled.wgsl" with { type: "text" };
import turns from "../../../kernels/include/turns.wgsl" with { type: "text" };
import rowsSource from "../../../kernels/attention/rows.wgsl" with { type: "text" };
import type { DeviceDescription } from "../../gpu/description.ts";
import { expandTemplate, type TemplateConstants } from "../../gpu/template.ts";
import { helperFunctions } from "../expr/mod.ts";
import type { Graph, Tensor, TensorSpec, TrialInputs, Variants } from "../graph.ts";
import { ensure, type GradientContext, grid, type LoweringContext, type Op, refuse } from "../op.ts";
import {
  type AttentionPart,
  type AttentionShape,
  attentionTraffic,
  type AttentionVariant,
  attentionVariants,
  QUERY_BLOCK,
  tiledLayout,
} from "./attention_variants.ts";
import { narrowColumns, widenColumns } from "./columns.ts";

/** Attributes of {@linkcode attentionOp}. */
export interface AttentionAttributes {
  /** Heads of queries. */
  readonly heads: number;
  /** Heads of keys and values; each serves `heads / keyValueHeads` heads of queries. */
  readonly keyValueHeads: number;
  /** Width of a head, at most 256. Multiples of 4 are fastest: others are made so on the way in, and {@linkcode attentionOp} wants them. */
  readonly headDim: number;
  /** Factor of the scores, usually `headDim ** -0.5`. */
  readonly scale: number;
  /** Scores s become softCap * tanh(s / softCap) before the softmax (Gemma 2, arXiv 2408.00118); no cap when absent. */
  readonly softCap?: number | undefined;
  /** Whether neighbouring queries have ranges of keys that have nothing to do with each other, as where several sequences are written. */
  readonly apart?: boolean | undefined;
}

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

/** What the kernels share. */
const INCLUDES = {
  attention_size: size,
  attention_held_subgroup8: heldSubgroup8,
  attention_products_subgroup8: productsSubgroup8,
  attention_products_tiled: productsTiled,
  attention_sums_tiled: sumsTiled,
  turns,
};

/** What the include `attention_size` needs, for a kernel that has scores of so many queries or keys in one value. */
function softCapConstants(softCap: number | undefined, lanes: 1 | 4): TemplateConstants {
  if (softCap === undefined) return { SOFT_CAP: false };
  const LANES = lanes === 1 ? "f32" : "vec4";
  return { SOFT_CAP: true, LANES, TANH: helperFunctions([`tanh_${LANES}`]) };
}

/** The texts of a part. */
interface Sources {
  readonly subgroup8: string;
  readonly tiled: string;
  /** What the kernel is called in messages. */
  readonly name: string;
  /** Vectors of a subgroup's sums in workgroup memory for each column. */
  readonly sums: number;
  /** Matrix products over queries and keys. */
  readonly products: number;
}

const SOURCES: Readonly<Record<AttentionPart, Sources>> = {
  "attention": {
    subgroup8: forwardSubgroup8,
    tiled: forwardTiled,
    name: "attention_forward",
    sums: 1,
    products: 2,
  },
  "attention dq": {
    subgroup8: querySubgroup8,
    tiled: queryTiled,
    name: "attention_query_gradient",
    sums: 1,
    products: 3,
  },
  "attention dk dv": {
    subgroup8: keySubgroup8,
    tiled: keyTiled,
    name: "attention_key_gradient",
    sums: 2,
    products: 4,
  },
};

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

/** Dispatches the kernel of a part that the device likes best. */
function launch(
  context: LoweringContext<AttentionAttributes>,
  part: AttentionPart,
  tensors: readonly Tensor[],
): void {
  const { inputs, attributes, device, dispatch } = context;
  const { heads, keyValueHeads, headDim, scale, softCap } = attributes;
  const [queries, keys] = [inputs[0]!.dim(0), inputs[1]!.dim(0)];
  const shape = { queries, keys, heads, keyValueHeads, headDim, capped: softCap !== undefined };
  const variant = context.choose(VARIANTS[part], shape);
  const { name, products, sums } = SOURCES[part];
  const keyed = part === "attention dk dv";
  const { rows, constants, columns, lanes } = variant.family === "tiled"
    ? tiledLaunch(part, variant, headDim)
    : subgroupLaunch(part, variant, headDim, device, sums);
  const tiles = Math.ceil((keyed ? keys : queries) / rows);
  const parts = Math.ceil(headDim / columns);
  const total = tiles * (keyed ? keyValueHeads : heads) * parts;
  dispatch({
    kernel: `${part} ${VARIANTS[part].name(variant).replace(/^subgroup8 |^tiled /, "")}`,
    wgsl: expandTemplate(`${name}_${variant.family}`, SOURCES[part][variant.family], {
      ...constants,
      ...softCapConstants(softCap, lanes),
    }, INCLUDES),
    tensors,
    size: [
      queries,
      keys,
      heads,
      heads / keyValueHeads,
      headDim / 4,
      tiles,
      total,
      { f32: (softCap ?? scale) * Math.LOG2E },
      { f32: scale },
      keyed ? Math.ceil(queries / QUERY_BLOCK) : 0,
      ...(softCap === undefined ? [] : [{ f32: scale / softCap }]),
    ],
    groups: grid(total, device),
    // An estimate: the ranges are not known. Causal attention over one sample is meant.
    flops: products * heads * headDim * queries * (queries === keys ? keys + 1 : 2 * keys),
    traffic: attentionTraffic(part, shape, variant, parts),
  });
}

/** What a variant makes of a template. */
interface Launch {
  /** Rows of a tile. */
  readonly rows: number;
  /** Columns of a head that one workgroup makes. */
  readonly columns: number;
  readonly constants: TemplateConstants;
  /** Scores in one value of the kernel. */
  readonly lanes: 1 | 4;
}

function tiledLaunch(
  part: AttentionPart,
  variant: AttentionVariant & { family: "tiled" },
  headDim: number,
): Launch {
  const { rows, block, threads } = variant;
  const layout = tiledLayout(part, variant, headDim)!;
  const { across, vectors, slice, held, columns, values } = layout;
  return {
    rows,
    columns: 4 * across * columns,
    constants: {
      ...{ ROWS: rows, BLOCK: block, THREADS: threads, ACROSS: across, VECTORS: vectors },
      ...{ SLICE: slice, HELD: held, COLUMNS: columns, VALUES: values },
    },
    lanes: 4,
  };
}

/** Columns of a head of which a software device keeps a lane's rows in registers: more would take long to compile. */
const WIDEST_HELD = 8;

function subgroupLaunch(
  part: AttentionPart,
  { own, spread }: AttentionVariant & { family: "subgroup8" },
  headDim: number,
  device: DeviceDescription,
  sums: number,
): Launch {
  // Each column takes one value of each lane and sum.
  const columns = Math.min(headDim, Math.floor(device.maxWorkgroupMemory / (32 * own * sums) / 4) * 4);
  return {
    rows: 8 * own,
    columns,
    constants: {
      ...(part === "attention" ? { QUERIES: own, KEYS: spread } : {}),
      ...(part === "attention dq" ? { KEYS: spread } : {}),
      ...(part === "attention dk dv" ? { QUERIES: spread } : {}),
      COLUMNS: columns,
      HELD: headDim <= WIDEST_HELD ? headDim / 4 : 0,
    },
    lanes: own,
  };
}

function lower(context: LoweringContext<AttentionAttributes>): void {
  if (context.attributes.apart) return lowerApart(context);
  launch(context, "attention", [...context.inputs, ...context.outputs]);
}

function lowerApart({ inputs, outputs, attributes, device, dispatch }: LoweringContext<AttentionAttributes>) {
  const [queries, keys] = [inputs[0]!.dim(0), inputs[1]!.dim(0)];
  const { heads, keyValueHeads, headDim, scale, softCap } = attributes;
  const SUBGROUP = device.family === "subgroup8";
  const [THREADS, BLOCK] = SUBGROUP ? [8, 16] : [64, 64];
  const total = queries * heads;
  dispatch({
    kernel: "attention apart",
    wgsl: expandTemplate("attention_apart", apart, {
      ...{ SUBGROUP, THREADS, BLOCK, COLUMNS: Math.ceil(headDim / 4 / THREADS) },
      ...softCapConstants(softCap, 1),
    }, INCLUDES),
    tensors: [...inputs, ...outputs],
    size: [
      ...[queries, keys, heads, heads / keyValueHeads, headDim / 4, 1, total],
      { f32: (softCap ?? scale) * Math.LOG2E },
      { f32: scale },
      0,
      ...(softCap === undefined ? [] : [{ f32: scale / softCap }]),
    ],
    groups: grid(total, device),
    // An estimate: each query has its part of the keys.
    flops: 4 * heads * headDim * keys,
    traffic: 4 * heads * ((2 * headDim) * (keys + queries) + 3 * queries),
  });
}

function lowerGradient(context: LoweringContext<AttentionGradientAttributes>): void {
  const { inputs, outputs, attributes, device, scratch, dispatch } = context;
  const [q, k, v, start, end, out, logsumexp, dout] = inputs as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];
  const { heads, headDim } = attributes;
  const [queries, keys] = [q.dim(0), k.dim(0)];

  const rows = scratch([heads, queries, 4], "u32");
  const blockCount = Math.ceil(queries / QUERY_BLOCK);
  const blocks = scratch([blockCount, 2], "i32");
  const tiles = Math.ceil(queries / 64);
  dispatch({
    kernel: "attention rows",
    wgsl: expandTemplate("attention_rows", rowsSource, {}),
    tensors: [out, dout, logsumexp, start, end, rows, blocks],
    size: [queries, keys, heads, headDim / 4, tiles, tiles * heads],
    groups: grid(tiles * heads, device),
    flops: 2 * queries * heads * headDim,
    // Both halves of the product, the logarithm and the range of every query of every head; the rows, and the blocks.
    traffic: 4 * (heads * queries * (2 * headDim + 1 + 2 + 4) + 2 * blockCount),
  });
  if (attributes.queries) launch(context, "attention dq", [q, k, v, rows, dout, outputs[0]!]);
  if (attributes.keys) {
    launch(context, "attention dk dv", [q, k, v, rows, dout, blocks, ...outputs.slice(-2)]);
  }
}
