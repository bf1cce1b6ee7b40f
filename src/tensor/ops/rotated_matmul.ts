/**
 * A projection whose output is turned by rotary position embedding before it is stored: what planning makes of a product, a bias where there
 * is one, and `rope()`, where the product's kernel can. It is made after gradients have been found, so it has none.
 *
 * @module
 */
import { Tensor } from "../graph.ts";
import type { Op } from "../op.ts";
import { addRowOp } from "./add_row.ts";
import { lowerMatmul, type MatmulAttributes, matmulOp } from "./matmul.ts";
import type { Rotation } from "./matmul/rotation.ts";
import { type RopeAttributes, ropeOp } from "./rope.ts";

/** Attributes of {@linkcode rotatedMatmulOp}. */
export interface RotatedMatmulAttributes {
  readonly product: MatmulAttributes;
  readonly rope: RopeAttributes;
  /** Whether a row is added to every row before. */
  readonly bias: boolean;
}

/** What the inputs are: those of the product, positions and table as `rope()` has them, then the row that is added. */
export function rotationOf(
  inputs: readonly Tensor[],
  { rope, bias }: RotatedMatmulAttributes,
) {
  const product = inputs.slice(0, inputs.length - (bias ? 3 : 2));
  const [positions, table, row] = inputs.slice(product.length) as [Tensor, Tensor, Tensor | undefined];
  const { headDim, rotated } = rope;
  const rotation: Rotation = { positions, table, headDim, rotated, ...(row ? { bias: row } : {}) };
  return { product, rotation };
}

/** See the module. */
export const rotatedMatmulOp: Op<RotatedMatmulAttributes> = {
  name: "rotatedMatmul",
  infer(inputs, attributes) {
    const { product, rotation: { positions, table, bias } } = rotationOf(inputs, attributes);
    const [made] = matmulOp.infer(product, attributes.product);
    const x = new Tensor(inputs[0]!.graph, -1, made!, undefined, undefined);
    if (bias) addRowOp.infer([x, bias], null);
    return ropeOp.infer([x, positions, table], attributes.rope);
  },
  lower(context) {
    const { product, rotation } = rotationOf(context.inputs, context.attributes);
    lowerMatmul({ ...context, inputs: product, attributes: context.attributes.product }, rotation);
  },
};
