/**
 * Rows in and out by index: what a key-value cache is made of.
 *
 * @module
 */
import source from "../../../kernels/rows/scatter_rows.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import { gatherRowsOp } from "./embedding.ts";

/** state[slots[b], :] = rows[b, :], in place. */
const scatterRowsOp: Op<null> = {
  name: "scatterRows",
  mutates: true,
  alias: () => ({ input: 0, byteOffset: 0 }),
  infer(inputs) {
    const [state, rows, slots] = inputs as [Tensor, Tensor, Tensor];
    ensure(
      state.shape.length === 2 && rows.shape.length === 2 && state.dim(1) === rows.dim(1),
      "scatterRows",
      inputs,
      "expected a state [S, W] and rows [B, W]",
    );
    ensure(
      state.dtype === "f32" && rows.dtype === "f32",
      "scatterRows",
      inputs,
      "state and rows must be f32",
    );
    ensure(
      slots.shape.length === 1 && slots.dim(0) === rows.dim(0) && slots.dtype === "i32",
      "scatterRows",
      inputs,
      "the slots must be i32, one for each row",
    );
    return [{ shape: state.shape, dtype: "f32" }];
  },
  lower({ inputs, outputs, device, dispatch }) {
    const [state, rows, slots] = inputs as [Tensor, Tensor, Tensor];
    const vector = rows.dim(1) % 4 === 0 ? 4 : 1;
    dispatch({
      kernel: "scatterRows",
      wgsl: expandTemplate("scatter_rows", source, {
        THREADS: device.family === "subgroup8" ? 8 : 64,
        VECTOR: vector,
      }),
      tensors: [rows, slots, outputs[0]!],
      size: [rows.dim(0), rows.dim(1) / vector, state.dim(0)],
      groups: grid(rows.dim(0), device),
    });
  },
};

/**
 * Writes rows into a state in place.
 *
 * @param state f32 [S, W]
 * @param rows f32 [B, W]
 * @param slots i32 [B], all different; a slot outside 0 .. S - 1 (such as -1) writes nothing
 * @returns The state as it is afterwards: whoever must see the rows reads this tensor, not `state`
 */
export function scatterRows(state: Tensor, rows: Tensor, slots: Tensor): Tensor {
  return state.graph.add(scatterRowsOp, [state, rows, slots], null)[0]!;
}

/**
 * Some rows of a tensor, in the order of their indices; f32 [B, W]. It has no gradient.
 *
 * @param x [S, W] in any storage of weights
 * @param indices i32 [B]; an index outside 0 .. S - 1 gives a row of zeros
 */
export function gatherRows(x: Tensor, indices: Tensor): Tensor {
  return x.graph.add(gatherRowsOp, [x, indices], null)[0]!;
}
