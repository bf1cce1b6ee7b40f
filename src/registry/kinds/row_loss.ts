/**
 * Row losses: losses written in WGSL for one row of logits.
 *
 * @module
 */
import type { RowLoss } from "../../losses/contract.ts";
import { checkRowLoss } from "../check/row_losses.ts";
import type { Kind } from "../kind.ts";
import source from "./row_loss.ts.txt" with { type: "text" };

/** Losses written in WGSL for one row of logits. */
export const rowLoss: Kind<RowLoss, "loss"> = {
  id: "row-loss",
  role: "loss",
  define: "defineLoss",
  functions: ["wgsl", "reference"],
  computes: (plugin, options) =>
    plugin.wgsl({ options, scalars: Object.fromEntries((plugin.scheduled ?? []).map((o) => [o, o])) }),
  check: checkRowLoss,
  template: {
    name: "row-loss",
    about: "WGSL",
    source,
  },
};
