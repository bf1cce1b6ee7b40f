/**
 * What a row of logits says of one token.
 *
 * @module
 */
import kernel from "../../../kernels/sampling/token_scores.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** See {@linkcode tokenScores}. */
const tokenScoresOp: Op<null> = {
  name: "tokenScores",
  infer(inputs) {
    const [x, tokens] = inputs as [Tensor, Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "tokenScores", inputs, "expected f32 [R, V]");
    ensure(
      tokens.dtype === "i32" && String(tokens.shape) === String([x.dim(0)]),
      "tokenScores",
      inputs,
      "expected one i32 token a row",
    );
    ensure(x.dim(1) <= 2 ** 24, "tokenScores", inputs, "rows have at most 2^24 elements");
    return [{ shape: [x.dim(0), 3], dtype: "f32" }];
  },
  lower({ inputs, outputs, device, dispatch }) {
    const [rows, width] = inputs[0]!.shape as [number, number];
    const [LANES, UNROLL] = device.family === "subgroup8" ? [8, 8] : [256, 2];
    dispatch({
      kernel: "tokenScores",
      wgsl: expandTemplate("token_scores", kernel, { LANES, UNROLL }),
      tensors: [...inputs, ...outputs],
      size: [rows, width],
      groups: grid(rows, device),
      flops: 5 * rows * width,
    });
  },
};

/**
 * A token's logit in each row, log sum exp over the whole row, so that the difference is its log-probability, and its place among the
 * entries by falling value: 1 is the largest, of equal ones the lower id stands first, as in `topK`.
 *
 * @param x f32 [R, V]
 * @param tokens i32 [R]; below 0 where a row has none: its logit and place are 0 then
 * @returns f32 [R, 3]: logit, log sum exp, place
 */
export function tokenScores(x: Tensor, tokens: Tensor): Tensor {
  return x.graph.add(tokenScoresOp, [x, tokens], null)[0]!;
}
