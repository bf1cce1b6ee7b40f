/**
 * Draws from the softmax of each row, with counter-based random numbers.
 *
 * @module
 */
import philox from "../../../kernels/include/philox.wgsl" with { type: "text" };
import kernel from "../../../kernels/sampling/draw_tokens.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** Attributes of {@linkcode drawTokensOp}. */
export interface DrawAttributes {
  /** Draws from a row, with replacement; at most 256. */
  readonly draws: number;
  /** 64 bits: low word, high word. */
  readonly seed: readonly [number, number];
}

/** Which elements came up and how often; see {@linkcode drawTokens}. */
const drawTokensOp: Op<DrawAttributes> = {
  name: "drawTokens",
  infer(inputs, { draws }) {
    const [x, counters] = inputs as [Tensor, Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "drawTokens", inputs, "expected f32 [R, V]");
    ensure(
      counters.dtype === "u32" && String(counters.shape) === String([x.dim(0)]),
      "drawTokens",
      inputs,
      "expected one u32 counter a row",
    );
    ensure(draws >= 1 && draws <= 256, "drawTokens", inputs, `cannot draw ${draws} times (at most 256)`);
    const shape = [x.dim(0), draws];
    return [{ shape, dtype: "u32" }, { shape, dtype: "u32" }];
  },
  lower({ inputs, outputs, attributes: { draws, seed }, device, dispatch }) {
    const [rows, width] = inputs[0]!.shape as [number, number];
    const [LANES, UNROLL] = device.family === "subgroup8" ? [8, 8] : [256, 2];
    dispatch({
      kernel: "drawTokens",
      wgsl: expandTemplate("draw_tokens", kernel, { N: draws, LANES, UNROLL }, { philox }),
      tensors: [...inputs, ...outputs],
      size: [rows, width, ...seed],
      groups: grid(rows, device),
      flops: 10 * rows * width,
    });
  },
};

/**
 * Draws from softmax(x) of each row with replacement. What is drawn is a function of the row, its counter and the seed alone.
 *
 * @param x f32 [R, V]
 * @param counters u32 [R]: rows with different counters draw independently
 * @returns u32 [R, draws] each: the elements that came up by rising id, 0xffffffff where there are no more; how often each did
 */
export function drawTokens(
  x: Tensor,
  counters: Tensor,
  attributes: DrawAttributes,
): { readonly ids: Tensor; readonly counts: Tensor } {
  const [ids, counts] = x.graph.add(drawTokensOp, [x, counters], attributes);
  return { ids: ids!, counts: counts! };
}
