/**
 * Sums of losses over positions, added up in a state that is read back now and then.
 *
 * @module
 */
import lossSumsSource from "../../../kernels/loss_sums.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { StepScalar, Tensor } from "../../tensor/graph.ts";
import type { Op } from "../../tensor/op.ts";

const lossSumsOp: Op<{ keep: StepScalar; first: number; count: number; of: number }> = {
  name: "lossSums",
  mutates: true,
  alias: () => ({ input: 1, byteOffset: 0 }),
  infer: ([, state]) => [state!],
  lower({ inputs, outputs, attributes: { keep, first, count, of }, dispatch }) {
    const [values] = inputs as [Tensor];
    dispatch({
      kernel: "lossSums",
      wgsl: expandTemplate("loss_sums", lossSumsSource, {}),
      tensors: [values, outputs[0]!],
      size: [values.dim(0), of, values.dim(1) / of, keep, first],
      groups: [count, 1, 1],
    });
  },
};

/**
 * Adds the sum over all positions of each of `count` losses into a state, from element `first` on; see `accumulate` for `keep`.
 *
 * @param values f32 [chunks, K * chunkRows], each chunk K rows of chunkRows
 * @param place K is `of`, and `count` when that is absent; of more than are counted the first are
 */
export function lossSums(
  values: Tensor,
  state: Tensor,
  keep: StepScalar,
  { first, count, of = count }: { first: number; count: number; of?: number } = {
    first: 0,
    count: state.dim(0),
  },
): void {
  state.graph.add(lossSumsOp, [values, state], { keep, first, count, of });
}
