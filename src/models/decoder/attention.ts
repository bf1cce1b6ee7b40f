/**
 * The attention of a layer: projections, norms of queries and keys, rotation, attention itself, the projection back.
 *
 * @module
 */
import type { Tensor } from "../../tensor/graph.ts";
import { attention } from "../../tensor/ops/attention.ts";
import { rope } from "../../tensor/ops/rope.ts";
import { reshape } from "../../tensor/ops/views.ts";
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
    const normed = norm
      ? normaliseHeads(ctx, described, { ...norm, name: `${at}.${norm.name}` }, x, headDim)
      : x;
    return rotary ? rope(normed, ctx.inputs.positions, tables.get(rotary.name)!, heads, headDim) : normed;
  };
  const [q, k, v] = projected(ctx, config, described, at, x);
  const queries = tap("queries", turned(q(), described.queryNorm, heads));
  const keys = tap("keys", turned(k(), described.keyNorm, keyValueHeads));
  const values = tap("values", v());
  const [allKeys, allValues] = [ctx.cached(`${i}.k`, keys), ctx.cached(`${i}.v`, values)];
  const attended = attention(queries, allKeys, allValues, ranges.get(window)!, {
    ...{ heads, keyValueHeads, headDim, scale },
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
  if ("fused" in projections) throw new Error("fused");
  const { queries, keys, values } = projections;
  return [
    () => biased(ctx, at, queries, x, queryWidth),
    () => biased(ctx, at, keys, x, keyWidth),
    () => biased(ctx, at, values, x, keyWidth),
  ];
}

/** Norm of queries or keys [T, heads * headDim], of each head or of all of them at once. */
function normaliseHeads(
  ctx: ModelContext,
  { normsOver }: AttentionDescription,
  norm: NormDescription,
  x: Tensor,
  headDim: number,
): Tensor {
  if (normsOver === "row") return normalise(ctx, norm, x);
  const heads = reshape(x, [x.dim(0) * x.dim(1) / headDim, headDim]);
  return reshape(normalise(ctx, norm, heads), x.shape);
}
