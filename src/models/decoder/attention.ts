/**
 * The attention of a layer: projections, norms of queries and keys, rotation, attention itself, the projection back.
 *
 * @module
 */
import type { Tensor } from "../../tensor/graph.ts";
import { attention } from "../../tensor/ops/attention.ts";
import { splitColumns } from "../../tensor/ops/columns.ts";
import { rope } from "../../tensor/ops/rope.ts";
import type { ModelContext } from "../context.ts";
import type { AttentionDescription, DescribedConfig, NormDescription } from "./description.ts";
import { biased, type LayerPlace } from "./linear.ts";
import { normalise } from "./norm.ts";

/** Attention over x [T, hiddenSize], f32 of the same shape. */
export function attend(
  ctx: ModelContext,
  config: DescribedConfig,
  described: AttentionDescription,
  { i, at, tables, ranges }: LayerPlace,
  x: Tensor,
): Tensor {
  const { attentionHeads: heads, keyValueHeads, headDim } = config;
  const { rotary, scale, window, softCap } = described;
  const tap = (name: string, x: Tensor) => ctx.tap(`model.layers.${i}.${name}`, x);
  const turned = (x: Tensor, norm: NormDescription | undefined, heads: number) => {
    const width = described.normsOver === "row" ? x.dim(1) : headDim;
    const normed = norm ? normalise(ctx, { ...norm, name: `${at}.${norm.name}` }, x, width) : x;
    if (!rotary) return normed;
    const { long, width: rotated } = rotary.rotary;
    const positions = long ? ctx.inputs.switched(long.beyond) : ctx.inputs.positions;
    return rope(normed, positions, tables.get(rotary.name)!, heads, headDim, rotated);
  };
  const [q, k, v] = projected(ctx, config, described, at, x);
  const queries = tap("queries", turned(q(), described.queryNorm, heads));
  const keys = tap("keys", turned(k(), described.keyNorm, keyValueHeads));
  const values = tap("values", v());
  const [allKeys, allValues] = [ctx.cached(`${i}.k`, keys), ctx.cached(`${i}.v`, values)];
  const attended = attention(queries, allKeys, allValues, ranges.get(window)!, {
    ...{ heads, keyValueHeads, headDim, scale },
    ...(ctx.inputs.apart ? { apart: true } : {}),
    ...(softCap === undefined ? {} : { softCap }),
  });
  return biased(ctx, at, described.output, tap("attention", attended), config.hiddenSize);
}

/** Queries, keys and values, each traced when it is asked for. */
function projected(
  ctx: ModelContext,
  { attentionHeads, keyValueHeads, headDim }: DescribedConfig,
  { projections }: AttentionDescription,
  at: string,
  x: Tensor,
): [queries: () => Tensor, keys: () => Tensor, values: () => Tensor] {
  const [queryWidth, keyWidth] = [attentionHeads * headDim, keyValueHeads * headDim];
  if ("fused" in projections) {
    const { fused, order } = projections;
    const all = biased(ctx, at, fused, x, queryWidth + 2 * keyWidth);
    const parts = order === "parts"
      ? splitColumns(all, [queryWidth, keyWidth, keyWidth])
      : splitColumns(all, [headDim, headDim, headDim], attentionHeads);
    return [() => parts[0]!, () => parts[1]!, () => parts[2]!];
  }
  const { queries, keys, values } = projections;
  return [
    () => biased(ctx, at, queries, x, queryWidth),
    () => biased(ctx, at, keys, x, keyWidth),
    () => biased(ctx, at, values, x, keyWidth),
  ];
}
