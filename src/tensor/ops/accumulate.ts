/**
 * Adding a tensor into a state, over the micro-batches of an accumulation window.
 *
 * @module
 */
import source from "../../../kernels/accumulate.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type StepScalar, type Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** Attributes of {@linkcode accumulateOp}. */
export interface AccumulateAttributes {
  /** What the state's old content is multiplied by: 0 in the first micro-batch of a window, 1 in the others; or 1 always. */
  readonly keep: StepScalar | 1;
}

/** state = keep * state + value; where keep is 0 the old content is not even read, so it may be NaN. */
export const accumulateOp: Op<AccumulateAttributes> = {
  name: "accumulate",
  mutates: true,
  alias: () => ({ input: 0, byteOffset: 0 }),
  infer(inputs) {
    const [state, value] = inputs;
    ensure(String(state!.shape) === String(value!.shape), "accumulate", inputs, "both shapes must be equal");
    return [{ shape: state!.shape, dtype: "f32" }];
  },
  lower({ inputs, outputs, attributes, device, dispatch }) {
    const elements = elementCount(outputs[0]!.shape);
    const groups = Math.ceil(elements / 256);
    dispatch({
      kernel: "accumulate",
      wgsl: expandTemplate("accumulate", source, { KEEPS: attributes.keep === 1 }),
      tensors: [inputs[1]!, outputs[0]!],
      size: [elements, groups, attributes.keep === 1 ? 0 : attributes.keep],
      groups: grid(groups, device),
      flops: 2 * elements,
      // The state is read and written, but for the first micro-batch of a window.
      traffic: 12 * elements,
    });
  },
};

/** Adds `value` into `state` (same shape, f32) in place; see {@linkcode accumulateOp}. */
export function accumulate(state: Tensor, value: Tensor, keep: StepScalar | 1): Tensor {
  return state.graph.add(accumulateOp, [state, value], { keep })[0]!;
}
