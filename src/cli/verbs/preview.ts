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
import { writeTextAtomically } from "../../formats/files.ts";
import { previewPage } from "../../runs/report/preview_page.ts";
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
    html: { value: "FILE", help: "Write a page with the tokens in colours instead of printing samples" },
    "held-out": { help: "Show held-out samples instead of training samples" },
  },
  examples: [
    "limbeck preview my.yaml",
    "limbeck preview my.yaml --samples 1 --json",
    "limbeck preview my.yaml --samples 20 --html samples.html",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    return await withRecipe(invocation, async (opened) => {
      const shown = samplesOf(opened, flags.on("held-out"), flags.number("samples") ?? 3);
      out.value(shown);
      const page = flags.text("html");
      if (page !== undefined) {
        const { tokenizer, stopTokens } = opened.prepared;
        const title = `${flags.on("held-out") ? "Held-out" : "Training"} samples`;
        const isSpecial = (id: number) => tokenizer.isSpecial(id);
        await writeTextAtomically(page, previewPage(title, shown, { isSpecial, stopTokens }));
        out.line(`Samples are in ${page}`);
      } else out.line(renderPreview(shown, { color: getColorEnabled() }));
      out.line(`packing: ${packingText(shown.packing, opened.prepared.trainReport.samples)}`);
      for (const looked of shown.looked ?? []) out.line(lookedText(looked));
      return 0;
    }, () => "look");
  },
};
