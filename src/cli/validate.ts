/**
 * `limbeck validate`
 *
 * @module
 */
// @ts-types="../../types/std_colors.d.ts"
import { green } from "@std/fmt/colors";
import { setUp } from "../distill/distill.ts";
import { prepareRun } from "../distill/prepare.ts";
import type { EncodeReport } from "../text/encode.ts";
import type { Command, Invocation } from "./command.ts";
import { readRecipe, RECIPE_FLAGS } from "./distill.ts";
import { builtinRegistry } from "./registry.ts";
import { count } from "./units.ts";

/** Checks a recipe without running anything. */
export const validate: Command = {
  name: "validate",
  usage: "[RECIPE]",
  positional: [0, 1],
  details:
    "Opens the models and encodes the data, but needs no GPU. Without a recipe, the example is checked.",
  flags: RECIPE_FLAGS,
  examples: ["limbeck validate my.yaml", "limbeck validate my.yaml --set train.steps=100 --json"],
  async run({ args, flags, out }: Invocation): Promise<number> {
    const recipe = await readRecipe(args[0], flags.list("set"));
    const prepared = await prepareRun(recipe);
    try {
      setUp(prepared, builtinRegistry());
      out.value({ valid: true, recipe, train: prepared.trainReport, heldOut: prepared.heldOutReport });
      out.line(`Training data  ${reportText(prepared.trainReport)}`);
      out.line(`Held-out data  ${reportText(prepared.heldOutReport)}`);
      out.line(green("The recipe is valid."));
      return 0;
    } finally {
      prepared.close();
    }
  },
};

/** Counts of an encoded dataset in words. */
export function reportText(report: EncodeReport): string {
  const parts = [
    `${report.samples} samples`,
    `${count(report.tokens)} tokens, ${count(report.supervisedTokens)} of them learnt`,
    `longest ${report.longest}`,
  ];
  for (const what of ["cut", "dropped", "split"] as const) {
    if (report[what] > 0) parts.push(`${report[what]} ${what}`);
  }
  if (report.withoutTarget > 0) parts.push(`${report.withoutTarget} left out without a target`);
  return parts.join(", ");
}
