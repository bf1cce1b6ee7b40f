/**
 * The kernels of attention: what a variant makes of their templates, and their launches.
 *
 * @module
 */
import apart from "../../../../kernels/attention/apart.wgsl" with { type: "text" };
import forwardSubgroup8 from "../../../../kernels/attention/forward_subgroup8.wgsl" with { type: "text" };
import forwardTiled from "../../../../kernels/attention/forward_tiled.wgsl" with { type: "text" };
import keySubgroup8 from "../../../../kernels/attention/key_gradient_subgroup8.wgsl" with { type: "text" };
import keyTiled from "../../../../kernels/attention/key_gradient_tiled.wgsl" with { type: "text" };
import querySubgroup8 from "../../../../kernels/attention/query_gradient_subgroup8.wgsl" with {
  type: "text",
};
import queryTiled from "../../../../kernels/attention/query_gradient_tiled.wgsl" with { type: "text" };
import rowsSource from "../../../../kernels/attention/rows.wgsl" with { type: "text" };
import heldSubgroup8 from "../../../../kernels/include/attention_held_subgroup8.wgsl" with { type: "text" };
import productsSubgroup8 from "../../../../kernels/include/attention_products_subgroup8.wgsl" with {
  type: "text",
};
import productsTiled from "../../../../kernels/include/attention_products_tiled.wgsl" with { type: "text" };
import size from "../../../../kernels/include/attention_size.wgsl" with { type: "text" };
import sumSource from "../../../../kernels/sum_axis.wgsl" with { type: "text" };
import sumsTiled from "../../../../kernels/include/attention_sums_tiled.wgsl" with { type: "text" };
import turns from "../../../../kernels/include/turns.wgsl" with { type: "text" };
import type { DeviceDescription } from "../../../gpu/description.ts";
import { expandTemplate, type TemplateConstants } from "../../../gpu/template.ts";
import { helperFunctions } from "../../expr/mod.ts";
import type { Tensor, Variants } from "../../graph.ts";
import { grid, type LoweringContext } from "../../op.ts";
import {
  type AttentionAttributes,
  type AttentionPart,
  type AttentionShape,
  attentionTraffic,
  type AttentionVariant,
  groupSumTraffic,
  QUERY_BLOCK,
  tiledLayout,
  WIDEST_HELD,
} from "./variants.ts";

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

/** Dispatches the kernel of a part that the device likes best. */
export function launchPart(
  context: LoweringContext<AttentionAttributes>,
  part: AttentionPart,
  variants: Variants<AttentionShape, AttentionVariant>,
  tensors: readonly Tensor[],
): void {
  const { inputs, attributes, device, dispatch, scratch } = context;
  const { heads, keyValueHeads, headDim, scale, softCap } = attributes;
  const [queries, keys] = [inputs[0]!.dim(0), inputs[1]!.dim(0)];
  const shape = { queries, keys, heads, keyValueHeads, headDim, capped: softCap !== undefined };
  const variant = context.choose(variants, shape);
  const { name, products, sums } = SOURCES[part];
  const keyed = part === "attention dk dv";
  const { rows, constants, columns, lanes } = variant.family === "tiled"
    ? tiledLaunch(part, variant, headDim)
    : subgroupLaunch(part, variant, headDim, device, sums);
  const tiles = Math.ceil((keyed ? keys : queries) / rows);
  const parts = Math.ceil(headDim / columns);
  const apart = keyed && variant.family === "tiled" && variant.apart === true;
  const total = tiles * (keyed && !apart ? keyValueHeads : heads) * parts;
  const group = heads / keyValueHeads;
  const width = keyValueHeads * headDim;
  const results = apart ? [0, 1].map(() => scratch([group, keys * width], "f32")) : [];
  dispatch({
    kernel: `${part} ${variants.name(variant).replace(/^subgroup8 |^tiled /, "")}`,
    wgsl: expandTemplate(`${name}_${variant.family}`, SOURCES[part][variant.family], {
      ...constants,
      ...softCapConstants(softCap, lanes),
    }, INCLUDES),
    tensors: apart ? [...tensors.slice(0, -2), ...results] : tensors,
    size: [
      queries,
      keys,
      heads,
      group,
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
  results.forEach((made, i) => {
    const columns = keys * width;
    dispatch({
      kernel: "sum rows",
      wgsl: expandTemplate("sum_axis", sumSource, { AXIS: "rows" }),
      tensors: [made, tensors.at(i - 2)!],
      size: [group, columns, Math.ceil(columns / 64)],
      groups: grid(Math.ceil(columns / 64), device),
      flops: group * columns,
      traffic: groupSumTraffic(shape, variant) / 2,
    });
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
      ...{ SLICE: slice, HELD: held, COLUMNS: columns, VALUES: values, APART: variant.apart === true },
    },
    lanes: 4,
  };
}

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

/** Dispatches the kernel for single queries whose ranges lie apart. */
export function launchApart(
  { inputs, outputs, attributes, device, dispatch }: LoweringContext<AttentionAttributes>,
) {
  const [queries, keys] = [inputs[0]!.dim(0), inputs[1]!.dim(0)];
  const { heads, keyValueHeads, headDim, scale, softCap } = attributes;
  const SUBGROUP = device.family === "subgroup8";
  const [THREADS, BLOCK] = SUBGROUP ? [8, 16] as const : [64, 64] as const;
  const total = queries * heads;
  const blocks = Math.ceil(keys / queries / BLOCK);
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
    // Lanes without workgroup memory read the query for every block; all threads read its range.
    traffic: 4 * heads *
      (2 * headDim * keys + queries * (headDim * (1 + (SUBGROUP ? THREADS * blocks : 1)) + 2 * THREADS + 1)),
  });
}

/** Dispatches what gathers the numbers that the backward pass knows of each query. Returns them, and the hulls of blocks of queries. */
export function launchRows(
  { inputs, attributes, device, scratch, dispatch }: LoweringContext<AttentionAttributes>,
): { rows: Tensor; blocks: Tensor } {
  const [q, k, , start, end, out, logsumexp, dout] = inputs as [
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
  return { rows, blocks };
}
