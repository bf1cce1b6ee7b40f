/**
 * `limbeck preview`
 *
 * @module
 */
import { preview as samplesOf } from "../../distill/run/inspect_recipe.ts";
import { renderPreview } from "../../text/preview.ts";
// @ts-types="../../../types/std_colors.d.ts"
import { getColorEnabled } from "@std/fmt/colors";
import type { Command, Invocation } from "../command.ts";
import { packingText } from "../../distill/inputs/packing_report.ts";
import { lookedText } from "../terminal/looked_text.ts";
import { RECIPE_FLAGS, withRecipe } from "./distill.ts";

/** Shows samples as training sees them. */
export const preview: Command = {
  name: "preview",
  usage: "[RECIPE]",
  positional: [0, 1],
  loadsPlugins: true,
  details:
    "What is learnt is green on a terminal and in [[double brackets]] elsewhere. With --json, tokens come with their ids.",
  flags: {
    ...RECIPE_FLAGS,
    samples: { value: "COUNT", kind: "count", help: "Samples shown (default 3)" },
    "held-out": { help: "Show held-out samples instead of training samples" },
  },
  examples: ["limbeck preview my.yaml", "limbeck preview my.yaml --samples 1 --json"],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    return await withRecipe(invocation, (opened) => {
      const shown = samplesOf(opened, flags.on("held-out"), flags.number("samples") ?? 3);
      out.value(shown);
      out.line(renderPreview(shown, { color: getColorEnabled() }));
      out.line(`packing: ${packingText(shown.packing, opened.prepared.train.length)}`);
      for (const looked of shown.looked ?? []) out.line(lookedText(looked));
      return Promise.resolve(0);
    }, () => "look");
  },
};
