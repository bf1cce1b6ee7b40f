/**
 * A mixture of experts of which every token uses a few (Shazeer et al., arXiv 1701.06538), computed for those alone: pairs of a token and
 * one of its experts are sorted by expert into slots, and products go over slots in tiles of rows, each tile with its expert's weight.
 * Gradients reach the tokens both through them and through the weights by which their outputs are summed. The experts themselves are frozen,
 * but what an adapter adds to them is not.
 *
 * @module
 */
import slotsSource from "../../../kernels/rows/expert_slots.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { select } from "../expr/mod.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op, refuse } from "../op.ts";
import { detach } from "./detach.ts";
import { EXPERT_TILE, expertLinear } from "./expert_linear.ts";
import { gatherSum } from "./gather_sum.ts";
import { pointwise } from "./pointwise.ts";
import { topKSoftmax } from "./top_k_softmax.ts";
import { reshape } from "./views.ts";

/**
 * The weights of a mixture: the softmax over all experts, kept for the `chosen` largest, 0 elsewhere; of equal ones the first counts as the
 * larger.
 *
 * @param logits f32 [T, E]: the router's
 * @param options `normalise`: divide them by their sum (`norm_topk_prob`)
 * @returns f32 [T, E]
 * @throws {ShapeError} if there are not so many experts
 */
export function expertWeights(
  logits: Tensor,
  chosen: number,
  { normalise }: { readonly normalise: boolean },
): Tensor {
  const weights = topKSoftmax(logits, chosen);
  if (normalise) return weights;
  const all = topKSoftmax(logits, logits.dim(1));
  return pointwise([all, detach(weights)], (p, w) => select(w!.greaterThan(0), p!, 0));
}

interface SlotsAttributes {
  readonly chosen: number;
}

/**
 * The op behind {@linkcode mixture}'s order. Input: the weights [T, E]. Outputs, all i32, described in the kernel: the token [S, 1] and the
 * entry [S, 1] of each slot, the slots of each token [T, chosen] and of each entry [T * E, 1], the tiles [S / 32, 2], the ranges [E, 2].
 */
const expertSlotsOp: Op<SlotsAttributes> = {
  name: "expertSlots",
  infer(inputs, { chosen }) {
    const [weights] = inputs as [Tensor];
    ensure(
      weights.shape.length === 2 && weights.dtype === "f32",
      "expertSlots",
      inputs,
      "weights must be f32 [T, E]",
    );
    const [tokens, experts] = [weights.dim(0), weights.dim(1)];
    ensure(
      Number.isInteger(chosen) && chosen >= 1 && chosen <= experts,
      "expertSlots",
      inputs,
      `cannot choose ${chosen} of ${experts}`,
    );
    // Each expert that is used fills whole tiles, so all but one pair of each may be the first of a tile.
    const pairs = tokens * chosen;
    const used = Math.min(experts, pairs);
    const tiles = Math.floor((pairs - used) / EXPERT_TILE) + used;
    const shapes = [[tiles * EXPERT_TILE, 1], [tiles * EXPERT_TILE, 1], [tokens, chosen], [
      tokens * experts,
      1,
    ], [
      tiles,
      2,
    ], [experts, 2]];
    return shapes.map((shape) => ({ shape, dtype: "i32" }));
  },
  lower({ inputs, outputs, attributes: { chosen }, device, scratch, dispatch }) {
    const [tokens, experts] = inputs[0]!.shape as [number, number];
    const run = Math.ceil(tokens / 64);
    if (device.family === "subgroup8" && 3 * run * (experts + 2) > 60_000) {
      refuse(
        "expertSlots",
        inputs,
        "more tokens and experts than the loops of a software device may have turns",
      );
    }
    const counts = scratch([experts], "u32");
    const tiles = outputs[4]!.dim(0);
    for (const level of [1, 2]) {
      dispatch({
        kernel: `expertSlots ${level === 1 ? "count" : "place"}`,
        wgsl: expandTemplate("expert_slots", slotsSource, { LEVEL: level }),
        tensors: [inputs[0]!, counts, ...(level === 1 ? [] : outputs)],
        size: [tokens, experts, chosen, tiles, run],
        groups: grid(experts, device),
      });
    }
  },
};

/**
 * The sum of what a token's experts make of it, each times its weight.
 *
 * @param x f32 [T, H]
 * @param weights f32 [T, E] from {@linkcode expertWeights}: what is not above 0 takes no part, nor does what is beyond the first `chosen`
 *   of a token
 * @param expert Traced once for all: what an expert makes of its rows f32 [S, H], row by row; `linear` multiplies by the weight of a row's
 *   expert, all of them lying one after another in a weight [E * out, in]
 * @returns f32 [T, H']
 * @example
 * ```ts ignore
 * const weights = expertWeights(linear(x, router), 8, { normalise: true });
 * const y = mixture(x, weights, 8, (rows, linear) => linear(gated(linear(rows, gate), linear(rows, up), "silu"), down));
 * ```
 */
export function mixture(
  x: Tensor,
  weights: Tensor,
  chosen: number,
  expert: (rows: Tensor, linear: (rows: Tensor, weight: Tensor) => Tensor) => Tensor,
): Tensor {
  const [tokens, experts] = [weights.dim(0), weights.dim(1)];
  ensure(x.dim(0) === tokens, "mixture", [x, weights], "a row of weights for each token");
  const [tokenOfSlot, entryOfSlot, slotsOfToken, slotOfEntry, tiles, ranges] = x.graph.add(
    expertSlotsOp,
    [weights],
    { chosen },
  ) as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
  const rows = gatherSum(x, { index: tokenOfSlot, inverse: slotsOfToken });
  const made = expert(
    rows,
    (rows, weight) => expertLinear(rows, weight, tiles, { experts, pairs: tokens * chosen, ranges }),
  );
  const entries = reshape(weights, [tokens * experts, 1]);
  const factors = gatherSum(entries, { index: entryOfSlot, inverse: slotOfEntry }); // [S, 1]
  const weighted = pointwise([made, factors], (y, w) => y!.mul(w!));
  return gatherSum(weighted, { index: slotsOfToken, inverse: tokenOfSlot });
}
