/**
 * Linear combinations of tensors of one shape: sums, differences, multiples.
 *
 * @module
 */
import source from "../../../kernels/combine.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type Tensor } from "../graph.ts";
import { applies, ensure, grid, type Op } from "../op.ts";

/** Attributes of {@linkcode combineOp}: one factor for each input. */
export interface CombineAttributes {
  readonly factors: readonly number[];
}

/** sum_i factor_i * x_i over one to four tensors of one shape. */
export const combineOp: Op<CombineAttributes> = {
  name: "combine",
  infer(inputs) {
    const [first] = inputs;
    for (const t of inputs) {
      ensure(String(t.shape) === String(first!.shape), "combine", inputs, "all shapes must be equal");
      ensure(t.dtype === "f32", "combine", inputs, "all operands must be f32");
    }
    return [{ shape: first!.shape, dtype: "f32" }];
  },
  gradient: ({ attributes, outputGradients, needed }) =>
    attributes.factors.map((f, i) => (needed[i] ? scale(outputGradients[0]!, f) : undefined)),
  lower({ inputs, outputs, attributes, device, dispatch }) {
    const vectors = Math.ceil(elementCount(outputs[0]!.shape) / 4);
    const groups = Math.ceil(vectors / 256);
    // An operand given twice is bound once: one range may not be bound twice where another operand is written.
    const distinct = [...new Set(inputs)];
    const factors = distinct.map((t) =>
      inputs.reduce((sum, u, i) => (u === t ? sum + attributes.factors[i]! : sum), 0)
    );
    dispatch({
      kernel: `combine ${distinct.length}`,
      wgsl: expandTemplate("combine", source, { INPUTS: distinct.length }),
      tensors: [...distinct, outputs[0]!],
      size: [vectors, groups, 0, 0, ...[0, 1, 2, 3].map((i) => ({ f32: factors[i] ?? 0 }))],
      groups: grid(groups, device),
      flops: 8 * distinct.length * vectors,
    });
  },
};

/** a + b, elementwise; both of one shape. */
export function add(a: Tensor, b: Tensor): Tensor {
  return combine([a, b], [1, 1]);
}

/** a - b, elementwise; both of one shape. */
export function subtract(a: Tensor, b: Tensor): Tensor {
  return combine([a, b], [1, -1]);
}

/** factor * a, for a factor fixed at plan time. */
export function scale(a: Tensor, factor: number): Tensor {
  return factor === 1 ? a : combine([a], [factor]);
}

/** sum_i factors[i] * inputs[i] for one to four tensors of one shape. */
export function combine(inputs: readonly Tensor[], factors: readonly number[]): Tensor {
  const stripped = inputs.map(scaleFactor);
  return inputs[0]!.graph.add(combineOp, stripped.map((s) => s.tensor), {
    factors: stripped.map((s, i) => s.factor * factors[i]!),
  })[0]!;
}

/** A tensor as a multiple of another, so that whoever uses it can fold the factor into its own arithmetic. */
export function scaleFactor(x: Tensor): { tensor: Tensor; factor: number } {
  const node = x.producer;
  if (!node || !applies(node, combineOp) || node.inputs.length !== 1) return { tensor: x, factor: 1 };
  return { tensor: node.inputs[0]!, factor: node.attributes.factors[0]! };
}
