/**
 * The linear layers of a layer.
 *
 * @module
 */
import type { Tensor } from "../../tensor/graph.ts";
import { addRow } from "../../tensor/ops/add_row.ts";
import type { AttentionRanges } from "../../tensor/ops/attention.ts";
import type { ModelContext } from "../context.ts";
import type { LinearDescription } from "./description.ts";

/** Where a layer is: its number, its name in the files, and what it shares with others. */
export interface LayerPlace {
  readonly i: number;
  /** What stands before the names of its modules, without the dot. */
  readonly at: string;
  readonly tables: ReadonlyMap<string, Tensor>;
  /** Which keys queries see, by their window. */
  readonly ranges: ReadonlyMap<number | undefined, AttentionRanges>;
}

/** y = x W^T (+ b) of a module of the layer `at`. */
export function biased(
  ctx: ModelContext,
  at: string,
  { name, bias }: LinearDescription,
  x: Tensor,
  width: number,
): Tensor {
  const y = ctx.linear(`${at}.${name}`, x, width);
  return bias ? addRow(y, ctx.weight(`${at}.${name}.bias`, [width])) : y;
}
