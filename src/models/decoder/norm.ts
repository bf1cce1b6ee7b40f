/**
 * The norms of a decoder.
 *
 * @module
 */
import type { Tensor } from "../../tensor/graph.ts";
import { rmsNorm } from "../../tensor/ops/rms_norm.ts";
import type { ModelContext } from "../context.ts";
import type { NormDescription } from "./description.ts";

/**
 * Norm of each row.
 *
 * @param norm With the whole name of its module
 * @param x f32 [T, W]
 */
export function normalise(ctx: ModelContext, { kind, name, epsilon }: NormDescription, x: Tensor): Tensor {
  const weight = ctx.weight(`${name}.weight`, [x.dim(1)]);
  if (kind !== "rms") throw new Error(kind);
  return rmsNorm(x, weight, epsilon);
}
