/**
 * `limbeck residual`
 *
 * @module
 */
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { registryWith } from "../setup/registry.ts";
import { familiesOf } from "../../registry/families.ts";
import { UsageError } from "../../base/errors.ts";
import { writeResidualAdapter } from "../../merge/residual/extract.ts";
import { writeResidual } from "../../merge/residual/residual.ts";
import type { Command, Invocation } from "../command.ts";
import { DTYPE_FLAG, dtypeFlag } from "../dtype_flag.ts";
import { HUB_FLAGS, localModels } from "../hub_models.ts";
import { leftOutTable } from "../terminal/left_out.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { stoppable } from "../terminal/stoppable_work.ts";

/** Adds what instruction tuning changed to another base model. */
export const residual: Command = {
  name: "residual",
  usage: "BASE INSTRUCT NEW_BASE --output FOLDER",
  positional: [3, 3],
  loadsPlugins: true,
  details:
    "Writes NEW_BASE + (INSTRUCT - BASE), every tensor: what instruction tuning made of a base model, given to one that was trained " +
    "further (arXiv 2410.10739). The three must have the same vocabulary. With --rank an adapter for NEW_BASE is written instead, " +
    "which holds the part of the residual that lies in the linear layers, as well as that rank allows; the errors are printed.",
  flags: {
    output: { value: "FOLDER", short: "o", help: "The folder to write" },
    rank: { value: "RANK", kind: "count", least: 1, help: "Write an adapter of this rank, in PEFT's layout" },
    scale: { value: "NUMBER", kind: "number", help: "What the residual is multiplied by (default 1)" },
    "common-rows": {
      help: "Where vocabularies differ: change only the rows of tokens that all three have",
    },
    ...DTYPE_FLAG,
    ...HUB_FLAGS,
    ...PLUGIN_FLAGS,
  },
  examples: [
    "limbeck residual ./base ./instruct ./my-base --output my-instruct",
    "limbeck residual ./base ./instruct ./my-base --rank 64 --output instruct-adapter",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { args, flags, out } = invocation;
    const output = flags.text("output");
    if (output === undefined) throw new UsageError("name the folder to write: --output FOLDER");
    const options = { scale: flags.number("scale") ?? 1, commonRows: flags.on("common-rows") };
    const families = familiesOf(await registryWith(invocation.plugins));
    const rank = flags.number("rank");
    const dtype = dtypeFlag(flags);
    if (rank !== undefined && dtype.dtype) {
      throw new UsageError("--dtype is for models; an adapter is stored in f32");
    }
    const [base, instruct, newBase] = await localModels(args, invocation);
    const models = { base: base!, instruct: instruct!, newBase: newBase! };
    if (rank === undefined) {
      const result = await stoppable(
        out,
        "adding the residual",
        (work) => writeResidual(models, output, { ...options, ...dtype, families, ...work }),
      );
      result.notes.forEach((note) => out.note(note));
      if (result.keptRows > 0) out.line(`${result.keptRows} rows of the vocabulary stay as they are`);
      out.value({ output, ...models, ...options, ...result });
    } else {
      const result = await stoppable(
        out,
        "decomposing the residual",
        (work) => writeResidualAdapter(models, output, { ...options, rank, families, ...work }),
      );
      result.notes.forEach((note) => out.note(note));
      for (const line of leftOutTable(result)) out.line(line);
      out.value({ output, ...models, ...options, ...result });
    }
    out.line(`Wrote ${shownPath(output)}`);
    return 0;
  },
};
