/**
 * Standard normal numbers, counter-based like the masks of dropout: a function of (key, site, element).
 *
 * @module
 */
import philox from "../../../kernels/include/philox.wgsl" with { type: "text" };
import kernel from "../../../kernels/random.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type Graph, type StepScalar, type Tensor } from "../graph.ts";
import { grid, type Op } from "../op.ts";

/** Attributes of {@linkcode normalOp}. */
export interface NormalAttributes {
  /** Tells places of use apart: each draws its own numbers. */
  readonly site: number;
  /** Step scalar holding an integer that differs at every micro-batch. */
  readonly key: StepScalar;
}

/** Philox 4x32-10 (Salmon et al., SC 2011), made normal by Box and Muller (1958). */
const normalOp: Op<NormalAttributes & { readonly shape: readonly number[] }> = {
  name: "normal",
  infer: (_, { shape }) => [{ shape, dtype: "f32" }],
  lower({ outputs, attributes: { shape, site, key }, device, dispatch }) {
    const vectors = Math.ceil(elementCount(shape) / 4);
    const groups = Math.ceil(vectors / 64);
    dispatch({
      kernel: "normal",
      wgsl: expandTemplate("random", kernel, { DRAW: "normal" }, { philox }),
      tensors: [outputs[0]!],
      size: [vectors, groups, site, key],
      groups: grid(groups, device),
    });
  },
};

/** Numbers from N(0, 1), f32; none of them is one that dropout with the same key and site draws. */
export function normal(graph: Graph, shape: readonly number[], attributes: NormalAttributes): Tensor {
  return graph.add(normalOp, [], { shape, ...attributes })[0]!;
}
