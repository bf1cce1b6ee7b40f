/**
 * Attention within a sliding window (Beltagy et al., arXiv 2004.05150; Mistral, arXiv 2310.06825): ranges of keys that begin later.
 *
 * @module
 */
import source from "../../../kernels/rows/window_start.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import type { AttentionRanges } from "./attention.ts";

/** The op behind {@linkcode windowed}: max(start, end - window). */
const windowStartOp: Op<{ readonly window: number }> = {
  name: "windowStart",
  infer(inputs, { window }) {
    const [start, end] = inputs as [Tensor, Tensor];
    ensure(
      inputs.every((t) => t.dtype === "i32" && t.shape.length === 1) && start.dim(0) === end.dim(0),
      "windowed",
      inputs,
      "start and end must be i32 [T]",
    );
    ensure(
      Number.isInteger(window) && window >= 1 && window < 2 ** 31,
      "windowed",
      inputs,
      `a window must be a positive whole number of keys, not ${window}`,
    );
    return [{ shape: start.shape, dtype: "i32" }];
  },
  lower({ inputs, outputs, attributes: { window }, device, dispatch }) {
    const queries = outputs[0]!.dim(0);
    const groups = Math.ceil(queries / 64);
    dispatch({
      kernel: "windowStart",
      wgsl: expandTemplate("window_start", source, {}),
      tensors: [...inputs, outputs[0]!],
      size: [queries, groups, window],
      groups: grid(groups, device),
    });
  },
};

/**
 * The last `window` keys of each range at most. Where `end` is one past the query itself, as in causal attention, a query sees `window`
 * keys with itself among them; slots of a cache are counted as keys of a sample are. Make them once for all layers of one window.
 *
 * @param window Keys, at least 1; undefined gives the ranges as they are, and no kernel
 * @throws {ShapeError} if shapes or types are others, or the window is not a positive whole number
 * @example
 * ```ts ignore
 * const near = windowed({ start, end }, 4096);
 * const y = attention(q, k, v, slides[layer] ? near : { start, end }, heads);
 * ```
 */
export function windowed({ start, end }: AttentionRanges, window: number | undefined): AttentionRanges {
  if (window === undefined) return { start, end };
  return { start: start.graph.add(windowStartOp, [start, end], { window })[0]!, end };
}
