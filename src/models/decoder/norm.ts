/**
 * The norms of a decoder.
 *
 * @module
 */
import type { Tensor } from "../../tensor/graph.ts";
import { layerNorm } from "../../tensor/ops/layer_norm.ts";
import { headNorm, rmsNorm } from "../../tensor/ops/rms_norm.ts";
import type { ModelContext } from "../context.ts";
import type { NormDescription } from "./description.ts";

/**
 * Norm of each row, or of each head of it.
 *
 * @param norm With the whole name of its module
 * @param x f32 [T, W]
 * @param width Of what is normed: W, or that of a head
 */
export function normalise(
  ctx: ModelContext,
  { kind, name, epsilon }: NormDescription,
  x: Tensor,
  width = x.dim(1),
): Tensor {
  const weight = ctx.weight(`${name}.weight`, [width]);
  if (kind === "layer") return layerNorm(x, weight, ctx.weight(`${name}.bias`, [width]), epsilon);
  const norm = width === x.dim(1) ? rmsNorm : headNorm;
  return norm(x, weight, epsilon, { plusOne: kind === "rms + 1" });
}
