/**
 * Group losses: losses over groups of tokens of two tokenisations.
 *
 * @module
 */
import type { GroupLoss } from "../../losses/group_contract.ts";
import { checkGroupLoss } from "../check/group_losses.ts";
import type { Kind } from "../kind.ts";
import source from "./group_loss.ts.txt" with { type: "text" };

/** Losses over groups of tokens, for teachers with another tokenizer. */
export const groupLoss: Kind<GroupLoss, "loss"> = {
  id: "group-loss",
  role: "loss",
  define: "defineGroupLoss",
  functions: ["rows", "wgsl", "reference"],
  computes: (plugin, options) => `${plugin.rows(options)}\n${plugin.wgsl({ options })}`,
  check: checkGroupLoss,
  template: {
    name: "group-loss",
    about: "another tokenizer",
    source,
  },
};
