/**
 * A weight as numbers: whatever its storage, unpacked to f32.
 *
 * @module
 */
import source from "../../../kernels/rows/materialise.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op, type Window } from "../op.ts";
import { gcd, isWeight, padded, weightIncludes } from "../weight_storage.ts";
import { windows } from "../windows.ts";

/** w in f32. It has no gradient: a weight in another storage is frozen. */
const materialiseOp: Op<null> = {
  name: "materialise",
  infer(inputs) {
    const [w] = inputs as [Tensor];
    ensure(isWeight(w), "materialise", inputs, "it must be a weight");
    return [{ shape: w.shape, dtype: "f32" }];
  },
  lower(context) {
    const { inputs: [w], outputs: [out], device } = context as LoweringContext<null> & {
      inputs: [Tensor];
      outputs: [Tensor];
    };
    const width = rowWidth(w);
    const parts = windows(w, device, {
      multiple: 64 / gcd(64, width),
      about: Math.floor(device.maxBindingSize / (4 * width)),
    });
    for (const { first, count, binding } of parts) {
      const target = count === w.dim(0)
        ? out
        : { tensor: out, byteOffset: 4 * first * width, byteLength: padded(4 * count * width) };
      unpackRows(context, w, binding, target, count);
    }
  },
};

/** Launches the unpacking of `count` rows of `w`, those that are bound, into f32. */
export function unpackRows(
  { device, dispatch }: Pick<LoweringContext<unknown>, "device" | "dispatch">,
  w: Tensor,
  rows: Tensor | Window,
  target: Tensor | Window,
  count: number,
): void {
  const width = rowWidth(w);
  const vector = width % 4 === 0 ? 4 : 1;
  const threads = device.family === "subgroup8" ? 8 : 64;
  const units = count * width / vector;
  const groups = Math.ceil(units / (4 * threads));
  dispatch({
    kernel: `materialise ${w.dtype}`,
    wgsl: expandTemplate(
      "materialise",
      source,
      { WEIGHT: w.dtype, THREADS: threads, VECTOR: vector },
      weightIncludes(w),
    ),
    tensors: [target, rows],
    size: [units, groups],
    groups: grid(groups, device),
  });
}

/**
 * The values of a weight, f32 of its shape.
 *
 * @throws {ShapeError} if kernels cannot read it as a weight
 */
export function materialise(w: Tensor): Tensor {
  return w.graph.add(materialiseOp, [w], null)[0]!;
}

function rowWidth(w: Tensor): number {
  return w.shape.slice(1).reduce((a, b) => a * b, 1);
}
