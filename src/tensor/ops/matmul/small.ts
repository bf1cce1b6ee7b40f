/**
 * Products that are too small to keep a device busy, and which of them one launch can make.
 *
 * @module
 */
import type { Tensor } from "../../graph.ts";
import { rootOf } from "../../op.ts";
import type { MatmulAttributes } from "./shapes.ts";

/** Rows or columns up to which a product is a few workgroups, most often: the rank of an adapter. */
const FEW = 128;

/**
 * What products have in common that one launch can make, see `Op.together`; undefined for those that stand alone: of frozen weights, which lie
 * in buffers of their own; of two terms or with an addend, whose operands are large; and of large outputs.
 */
export function kindOfSmall(inputs: readonly Tensor[], attributes: MatmulAttributes): string | undefined {
  const { orientation, factors, addend, compute, accumulate } = attributes;
  const [x, w] = inputs as [Tensor, Tensor];
  if (factors.length > 1 || addend || compute || w.dtype !== "f32") return undefined;
  if (rootOf(w).root.storage?.kind === "weight") return undefined;
  const m = orientation === "TN" ? x.dim(1) : x.dim(0);
  const n = orientation === "NT" ? w.dim(0) : w.dim(1);
  if (Math.min(m, n) > FEW) return undefined;
  return `${orientation} ${m < n ? `${m} rows` : `${n} columns`}${accumulate === undefined ? "" : ", added"}`;
}
