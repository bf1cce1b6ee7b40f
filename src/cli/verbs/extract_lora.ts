/**
 * `limbeck extract-lora`
 *
 * @module
 */
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { registryWith } from "../setup/registry.ts";
import { familiesOf } from "../../registry/families.ts";
import { UsageError } from "../../base/errors.ts";
import { extractLora } from "../../merge/residual/extract.ts";
import type { Command, Invocation } from "../command.ts";
import { HUB_FLAGS, localModels } from "../hub_models.ts";
import { leftOutTable } from "../terminal/left_out.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { stoppable } from "../terminal/stoppable_work.ts";

/** Writes the difference of two models as an adapter. */
export const extractLoraCommand: Command = {
  name: "extract-lora",
  usage: "BASE TUNED --rank RANK --output FOLDER",
  positional: [2, 2],
  loadsPlugins: true,
  details:
    "Writes an adapter for BASE, in PEFT's layout, that comes as near to TUNED as its rank allows: the truncated singular value " +
    "decomposition of every linear layer's difference. How much is left out is printed by layer, and so is the share of the difference " +
    "that lies in the embedding, the norms and the head, where no adapter reaches.",
  flags: {
    output: { value: "FOLDER", short: "o", help: "The folder to write" },
    rank: { value: "RANK", kind: "count", least: 1, help: "Rank of the adapter" },
    ...HUB_FLAGS,
    ...PLUGIN_FLAGS,
  },
  examples: ["limbeck extract-lora ./base ./fine-tuned --rank 32 --output adapter"],
  async run(invocation: Invocation): Promise<number> {
    const { args, flags, out } = invocation;
    const [output, rank] = [flags.text("output"), flags.number("rank")];
    if (output === undefined) throw new UsageError("name the folder to write: --output FOLDER");
    if (rank === undefined) throw new UsageError("say of which rank the adapter is to be: --rank RANK");
    const families = familiesOf(await registryWith(invocation.plugins));
    const [base, tuned] = await localModels(args, invocation);
    const result = await stoppable(
      out,
      "decomposing the difference",
      (work) => extractLora(base!, tuned!, output, { rank, families, ...work }),
    );
    result.notes.forEach((note) => out.note(note));
    for (const line of leftOutTable(result)) out.line(line);
    out.value({ output, base, tuned, ...result });
    out.line(`Wrote ${shownPath(output)}`);
    return 0;
  },
};
