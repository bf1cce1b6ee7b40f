/**
 * Merges: how the weights of several models become those of one.
 *
 * @module
 */
import { checkMerge } from "../check/merges.ts";
import type { Kind } from "../kind.ts";
import type { Merge } from "../merge_contract.ts";
import source from "./merge.ts.txt" with { type: "text" };

const BASES = ["required", "optional", "first", "none"];

/** How models are merged. */
export const merge: Kind<Merge, "merge"> = {
  id: "merge",
  role: "merge",
  define: "defineMerge",
  functions: ["merge"],
  furtherOptions: { parentOptions: "of each parent" },
  malformed({ parentOptions, base, parents, unit }) {
    if (typeof parentOptions?.safeParse !== "function") {
      return {
        message: "parentOptions is missing",
        hint: "Write parentOptions: z.strictObject({ weight: z.number().default(1) }), or noOptions.",
      };
    }
    if (!BASES.includes(base)) {
      return { message: `base is ${JSON.stringify(base)}`, hint: `It is one of ${BASES.join(", ")}.` };
    }
    const { least, most = least } = parents ?? {};
    if (!Number.isInteger(least) || least! < 1 || !Number.isInteger(most) || most! < least!) {
      return {
        message: `parents is ${JSON.stringify(parents)}`,
        hint: "Say how many it takes: { least: 1 }, or { least: 2, most: 2 }.",
      };
    }
    if (typeof unit !== "function" && unit !== "entries" && unit !== "tensor") {
      return {
        message: `unit is ${JSON.stringify(unit)}`,
        hint: 'It is "entries" where each entry is merged by itself, else "tensor".',
      };
    }
    return undefined;
  },
  computes: ({ survey }) =>
    survey && [survey.passes, survey.begin, survey.see].map((part) => String(part)).join("\n"),
  check: checkMerge,
  template: { name: "merge", source },
};
