/**
 * Memory without an operand: uninitialised, or filled with a number of this step.
 *
 * @module
 */
import fillSource from "../../../kernels/fill.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { type DType, elementCount, type Graph, type StepScalar, type Tensor } from "../graph.ts";
import { grid, type Op } from "../op.ts";

/** The op behind {@linkcode empty}. */
const emptyOp: Op<{ readonly shape: readonly number[]; readonly dtype: DType }> = {
  name: "empty",
  infer: (_, spec) => [spec],
  lower() {},
};

/** Memory that other ops write into, part by part; its content is undefined until they have. */
export function empty(graph: Graph, shape: readonly number[], dtype: DType = "f32"): Tensor {
  return graph.add(emptyOp, [], { shape, dtype })[0]!;
}

/** The op behind {@linkcode fill}. */
const fillOp: Op<{ readonly shape: readonly number[]; readonly value: StepScalar }> = {
  name: "fill",
  infer: (_, { shape }) => [{ shape, dtype: "f32" }],
  lower({ outputs, attributes, device, dispatch }) {
    const vectors = Math.ceil(elementCount(attributes.shape) / 4);
    const groups = Math.ceil(vectors / 64);
    dispatch({
      kernel: "fill",
      wgsl: expandTemplate("fill", fillSource, { CONSTANT: false }),
      tensors: [outputs[0]!],
      size: [vectors, groups, attributes.value],
      groups: grid(groups, device),
    });
  },
};

/** A tensor whose every element is a step scalar. */
export function fill(graph: Graph, shape: readonly number[], value: StepScalar): Tensor {
  return graph.add(fillOp, [], { shape, value })[0]!;
}

/** The op behind {@linkcode fillConstant}. */
const fillConstantOp: Op<{ readonly shape: readonly number[]; readonly value: number }> = {
  name: "fillConstant",
  infer: (_, { shape }) => [{ shape, dtype: "f32" }],
  lower({ outputs, attributes, device, dispatch }) {
    const vectors = Math.ceil(elementCount(attributes.shape) / 4);
    const groups = Math.ceil(vectors / 64);
    dispatch({
      kernel: "fillConstant",
      wgsl: expandTemplate("fill", fillSource, { CONSTANT: true }),
      tensors: [outputs[0]!],
      size: [vectors, groups, { f32: attributes.value }],
      groups: grid(groups, device),
    });
  },
};

/** A tensor whose every element is a number fixed at plan time. */
export function fillConstant(graph: Graph, shape: readonly number[], value: number): Tensor {
  return graph.add(fillConstantOp, [], { shape, value })[0]!;
}
