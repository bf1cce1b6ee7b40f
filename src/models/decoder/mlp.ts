/**
 * The MLP of a layer.
 *
 * @module
 */
import type { Tensor } from "../../tensor/graph.ts";
import { splitColumns } from "../../tensor/ops/columns.ts";
import { activate, gated } from "../../tensor/ops/activation.ts";
import { expertWeights, mixture } from "../../tensor/ops/experts.ts";
import { linear } from "../../tensor/ops/matmul.ts";
import type { ExpertLayer, ModelContext } from "../context.ts";
import type { DescribedConfig, ExpertsDescription, MlpDescription } from "./description.ts";
import { biased, type LayerPlace } from "./linear.ts";

/** The MLP over x [T, hiddenSize], f32 of the same shape. */
export function feedForward(
  ctx: ModelContext,
  { hiddenSize }: DescribedConfig,
  mlp: MlpDescription,
  { at }: LayerPlace,
  x: Tensor,
): Tensor {
  switch (mlp.kind) {
    case "gated": {
      const gate = biased(ctx, at, mlp.gate, x, mlp.width);
      const up = biased(ctx, at, mlp.up, x, mlp.width);
      return biased(ctx, at, mlp.down, gated(gate, up, mlp.activation), hiddenSize);
    }
    case "fused": {
      const both = biased(ctx, at, mlp.gateUp, x, 2 * mlp.width);
      const [gate, up] = splitColumns(both, [mlp.width, mlp.width]) as [Tensor, Tensor];
      return biased(ctx, at, mlp.down, gated(gate, up, mlp.activation), hiddenSize);
    }
    case "plain": {
      const up = biased(ctx, at, mlp.up, x, mlp.width);
      return biased(ctx, at, mlp.down, activate(up, mlp.activation), hiddenSize);
    }
    case "experts":
      return mixed(ctx, mlp, `${at}.`, x);
  }
}

/** A mixture of experts. The router is no layer that adapters see: what chooses experts stays as it is. Adapters see all experts at once. */
function mixed(
  ctx: ModelContext,
  { router, experts, count, perToken, normalised, gate, up, down, activation, width }:
    & MlpDescription
    & ExpertsDescription,
  before: string,
  x: Tensor,
): Tensor {
  const hiddenSize = x.dim(1);
  const at = `${before}${experts}`;
  const layer = (name: string, modules: readonly string[], out: number, width: number): ExpertLayer => ({
    name: `${at}.${name}`,
    experts: count,
    ...{ out, in: width },
    modules: (expert) => modules.map((module) => `${at}.${expert}.${module}`),
  });
  const logits = linear(x, ctx.weight(`${before}${router}.weight`, [count, hiddenSize]));
  const stacked = (name: string, shape: readonly [number, number]) =>
    ctx.stacked(count, (i) => `${at}.${i}.${name}.weight`, shape);
  const [gates, ups] = [stacked(gate, [width, hiddenSize]), stacked(up, [width, hiddenSize])];
  const downs = stacked(down, [hiddenSize, width]);
  const weights = expertWeights(logits, perToken, { normalise: normalised });
  return mixture(
    x,
    weights,
    perToken,
    (rows, linear) => {
      // The names under which transformers holds all experts in one parameter.
      const inner = layer("gate_up_proj", [gate, up], 2 * width, hiddenSize);
      const [g, u] = ctx.experts(inner, rows, [gates, ups], linear) as [Tensor, Tensor];
      const outer = layer("down_proj", [down], hiddenSize, width);
      return ctx.experts(outer, gated(g, u, activation), [downs], linear)[0]!;
    },
  );
}
