/**
 * Deliberate mistakes in kernels, to prove that a comparison would notice one.
 *
 * @module
 */
import type { Tensor } from "../../src/tensor/graph.ts";
import type { Op } from "../../src/tensor/op.ts";

/**
 * Makes the op that produced `tensor` launch its kernels with `right` replaced by `wrong`.
 *
 * @throws {Error} when the program is planned, if no kernel of the op holds `right`
 */
export function plant(tensor: Tensor, right: string, wrong: string): Tensor {
  const { op } = tensor.producer!;
  const mistaken: Op<unknown> = {
    ...op,
    lower(context) {
      let found = false;
      op.lower({
        ...context,
        dispatch(d) {
          found ||= d.wgsl.includes(right);
          context.dispatch({ ...d, wgsl: d.wgsl.replaceAll(right, wrong) });
        },
      });
      if (!found) throw new Error(`no kernel of ${op.name} holds "${right}"`);
    },
  };
  Object.assign(tensor.producer!, { op: mistaken });
  return tensor;
}
