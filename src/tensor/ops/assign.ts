/**
 * Elementwise computation into memory that is there already: running means, masks, limits of parameters.
 *
 * @module
 */
import type { Expression } from "../expr/mod.ts";
import type { Tensor } from "../graph.ts";
import { ensure, type Op, rootOf } from "../op.ts";
import {
  elementwiseExpression,
  ensureSpread,
  lowerPointwise,
  type PointwiseAttributes,
} from "./pointwise.ts";

/** target[t, n] = expression of the target's own element and those of the other inputs at (t, n). */
const assignOp: Op<PointwiseAttributes> = {
  name: "assign",
  mutates: true,
  alias: () => ({ input: 0, byteOffset: 0 }),
  infer(inputs) {
    const [target, ...operands] = inputs;
    ensureSpread("assign", inputs, target!.shape);
    ensure(
      rootOf(target!).root.storage?.kind === "state",
      "assign",
      inputs,
      "the first operand must be a state: only what is kept between steps can be assigned",
    );
    ensure(!operands.includes(target!), "assign", inputs, "the target is given once");
    return [{ shape: target!.shape, dtype: "f32" }];
  },
  lower: (context) => lowerPointwise(context, true),
};

/**
 * Assigns each element of a state, or of a part of one. What reads the state later in the block sees the new values.
 *
 * @param target f32, the memory of a state
 * @param operands At most six f32 tensors: of the target's shape, or a row [N], a column [T, 1] or a single number, which are repeated.
 *   Their memory and the target's do not overlap
 * @param body The new element, from the old one and the operands'; step scalars may be named in it
 * @returns The target: the same memory
 * @throws {ShapeError} if an operand does not fit, or the target is no state
 * @example
 * ```ts ignore
 * assign(mean, [gradient], (m, g) => m.mul(0.9).add(g.abs().mul(0.1)));
 * ```
 */
export function assign(
  target: Tensor,
  operands: readonly Tensor[],
  body: (...elements: Expression[]) => Expression,
): Tensor {
  const inputs = [target, ...operands];
  return target.graph.add(assignOp, inputs, elementwiseExpression(inputs, body))[0]!;
}
