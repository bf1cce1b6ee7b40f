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

/** What stands in a kernel, and what stands there instead. `WRONG` in the latter is a condition; where it is false, both must do the same. */
export type Mistake = readonly [right: string, wrong: string];

/** No mistake: keeps the numbers of those that follow. */
export const NOTHING: Mistake = ["", ""];

/**
 * Makes the op that produced `tensor` launch kernels that can make any of several mistakes: one text to compile and not one for each.
 * The step's number `mistake` says which is made, from 1 on in their order; at 0 none is.
 *
 * @throws {Error} when the program is planned, if no kernel of the op holds what one of them replaces
 */
export function plantAny(tensor: Tensor, mistakes: readonly Mistake[]): Tensor {
  const { op } = tensor.producer!;
  const { index } = tensor.graph.scalar("mistake");
  const plantAll = (wgsl: string, found: Set<string>) => {
    const planted = mistakes.reduce((text, [right, wrong], i) => {
      if (right === "") return text;
      if (text.includes(right)) found.add(right);
      return text.replaceAll(right, wrong.replaceAll("WRONG", `(mistake() == ${i + 1}.0)`));
    }, wgsl);
    if (planted === wgsl) return wgsl;
    const step = "@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;\n";
    return `${planted}
${planted.includes("var<uniform> step:") ? "" : step}fn mistake() -> f32 { return step[${index >> 2}][${
      index % 4
    }]; }
`;
  };
  const mistaken: Op<unknown> = {
    ...op,
    lower(context) {
      const found = new Set<string>();
      op.lower({ ...context, dispatch: (d) => context.dispatch({ ...d, wgsl: plantAll(d.wgsl, found) }) });
      for (const [right] of mistakes) {
        if (right !== "" && !found.has(right)) throw new Error(`no kernel of ${op.name} holds "${right}"`);
      }
    },
  };
  Object.assign(tensor.producer!, { op: mistaken });
  return tensor;
}
