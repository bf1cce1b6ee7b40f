/**
 * The MLP of a layer.
 *
 * @module
 */
import type { Tensor } from "../../tensor/graph.ts";
import { splitColumns } from "../../tensor/ops/columns.ts";
import { activate, gated } from "../../tensor/ops/activation.ts";
import type { ModelContext } from "../context.ts";
import type { DescribedConfig, MlpDescription } from "./description.ts";
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
    default:
      throw new Error(mlp.kind);
  }
}
