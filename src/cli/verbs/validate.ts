/**
 * `limbeck validate`
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { green } from "@std/fmt/colors";
import { validation } from "../../distill/run/inspect_recipe.ts";
import { packingText } from "../../distill/inputs/packing_report.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { servedTeachers } from "../../distill/recipe/teachers.ts";
import { keyOf, ServedRefusal } from "../../served/server.ts";
import type { EncodeReport } from "../../text/encode.ts";
import type { Command, Invocation } from "../command.ts";
import { lookedText } from "../terminal/looked_text.ts";
import { RECIPE_FLAGS, withRecipe } from "./distill.ts";
import { trainedLines } from "../terminal/trained_text.ts";
import { count, percent } from "../../base/units.ts";

/** Checks a recipe without running anything. */
export const validate: Command = {
  name: "validate",
  usage: "[RECIPE]",
  positional: [0, 1],
  loadsPlugins: true,
  details:
    "Opens the models and encodes the data, but needs no GPU. Of large files some rows are encoded, and as many checked as " +
    "can be within a second. Without a recipe, the example is checked.",
  flags: RECIPE_FLAGS,
  examples: ["limbeck validate my.yaml", "limbeck validate my.yaml --set train.steps=100 --json"],
  async run(invocation: Invocation): Promise<number> {
    return await withRecipe(invocation, (opened) => {
      const { out } = invocation;
      const found = validation(opened);
      out.value(found);
      out.line(`Training data  ${reportText(found.train)}`);
      for (const { name, share, ...report } of found.trainSets ?? []) {
        out.line(`  ${name}: ${reportText(report)}; ${percent(share)} of the tokens drawn`);
      }
      out.line(`Held-out data  ${reportText(found.heldOut)}`);
      for (const { name, ...report } of found.heldOutSets ?? []) out.line(`  ${name}: ${reportText(report)}`);
      out.line(`Packing        ${packingText(found.packing, found.train.samples)}`);
      for (const looked of found.looked ?? []) out.line(lookedText(looked));
      if (found.alignment !== undefined) out.line(`Tokenizers     ${found.alignment}`);
      if (found.privileged !== undefined) out.line(`Teacher        ${found.privileged}`);
      for (const line of trainedLines(opened.setup)) out.line(line);
      for (const problem of keyProblems(opened.recipe)) out.warn(problem);
      out.line(green("The recipe is valid."));
      return Promise.resolve(0);
    }, () => "look");
  },
};

/** What is wrong with the keys of teachers' servers, in this process; another one may have them. */
function keyProblems({ teacher }: Recipe): string[] {
  return servedTeachers(teacher).flatMap(({ server, field }) => {
    try {
      keyOf(server);
      return [];
    } catch (error) {
      if (!(error instanceof ServedRefusal)) throw error;
      const text = `${error.message}. ${error.hint ?? ""}`.trim().replaceAll("teacher.server", field);
      return [`recipe ${field}.keyVariable: ${text}`];
    }
  });
}

/** Counts of an encoded dataset in words. */
function reportText(report: EncodeReport): string {
  const parts = [
    `${report.samples} ${report.samples === 1 ? "sample" : "samples"}`,
    `${count(report.tokens)} tokens, ${count(report.supervisedTokens)} of them learnt`,
    `longest ${report.longest}`,
  ];
  return parts.join(", ");
}
