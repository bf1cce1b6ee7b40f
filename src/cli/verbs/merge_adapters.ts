/**
 * `limbeck merge-adapters`
 *
 * @module
 */
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { registryWith } from "../setup/registry.ts";
import { familiesOf } from "../../registry/families.ts";
import { UsageError } from "../../base/errors.ts";
import { writeAdaptedModel } from "../../merge/adapters/adapted_model.ts";
import { ADAPTER_METHODS, type AdapterMerge, writeMergedAdapter } from "../../merge/adapters/adapters.ts";
import type { Command, FlagReader, Invocation } from "../command.ts";
import { DTYPE_FLAG, dtypeFlag } from "../dtype_flag.ts";
import { HUB_FLAGS, localModels } from "../hub_models.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { stoppable } from "../terminal/stoppable_work.ts";
import { readWeights } from "./merge.ts";

/** Merges adapters into one, or into their base model. */
export const mergeAdaptersCommand: Command = {
  name: "merge-adapters",
  usage: "ADAPTER [...] --output FOLDER",
  positional: [1, 100],
  loadsPlugins: true,
  details:
    "Makes one LoRA adapter of several, each a folder in PEFT's layout. Methods: cat, the weighted sum of their updates, exactly: ranks add " +
    "up; svd, that sum at a lower rank, with the error printed; linear, what PEFT calls linear: factors are summed instead of updates. " +
    "With --into the result is a model: the base with the adapters merged in.",
  flags: {
    output: { value: "FOLDER", short: "o", help: "The folder to write" },
    weight: { value: "LIST", help: "The weight of each adapter, such as 1,-0.5 (default 1 each)" },
    method: { value: "METHOD", help: `${ADAPTER_METHODS.join(", ")} (default cat)` },
    rank: { value: "RANK", kind: "count", least: 1, help: "Rank of the result, with --method svd" },
    into: { value: "MODEL", help: "Merge them into this base model" },
    ...DTYPE_FLAG,
    ...HUB_FLAGS,
    ...PLUGIN_FLAGS,
  },
  examples: [
    "limbeck merge-adapters ./maths ./chat --weight 1,0.5 --output both",
    "limbeck merge-adapters ./maths ./chat --method svd --rank 16 --output both",
    "limbeck merge-adapters ./maths ./chat --into ./base --output model",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    const output = flags.text("output");
    if (output === undefined) throw new UsageError("name the folder to write: --output FOLDER");
    const named = readMerge(invocation.args, flags);
    const dtype = dtypeFlag(flags);
    if (flags.text("into") === undefined && dtype.dtype) {
      throw new UsageError("--dtype is for --into; an adapter is stored in f32");
    }
    const families = familiesOf(await registryWith(invocation.plugins));
    const [into] = await localModels([flags.text("into") ?? []].flat(), invocation);
    const paths = await localModels(invocation.args, invocation);
    const merge = {
      ...named,
      adapters: named.adapters.map((adapter, i) => ({ ...adapter, path: paths[i]! })),
    };
    const merged = into === undefined
      ? await writeMergedAdapter(merge, output)
      : await stoppable(out, "merging", (work) =>
        writeAdaptedModel(into, merge, output, { ...dtype, families, ...work }));
    merged.notes.forEach((note) => out.note(note));
    const ranks = [...new Set(merged.modules.map(({ rank }) => rank))].sort((a, b) => a - b);
    const { adapters, method } = merge;
    out.value({
      output,
      method,
      adapters,
      into: into ?? null,
      modules: merged.modules.length,
      ranks,
      ...(method === "svd" ? { byModule: merged.errors, total: merged.total } : {}),
      notes: merged.notes,
    });
    const span = ranks.length === 1 ? `rank ${ranks[0]}` : `ranks ${ranks[0]} to ${ranks.at(-1)}`;
    out.line(
      `Merged ${adapters.length} adapters by ${method}: ${merged.modules.length} modules of ${span}` +
        (method === "svd" ? `, relative error ${merged.total.toFixed(4)}` : ""),
    );
    out.line(`Wrote ${shownPath(output)}`);
    return 0;
  },
};

function readMerge(args: readonly string[], flags: FlagReader): AdapterMerge {
  const method = ADAPTER_METHODS.find((known) => known === (flags.text("method") ?? "cat"));
  if (!method) throw new UsageError(`--method must be one of ${ADAPTER_METHODS.join(", ")}`);
  const rank = flags.number("rank");
  if (method === "svd" && rank === undefined) {
    throw new UsageError("--method svd needs the rank it is to have: --rank RANK");
  }
  if (method !== "svd" && rank !== undefined) throw new UsageError("--rank is for --method svd");
  const weights = readWeights(flags.text("weight"), args.length);
  return {
    method,
    rank,
    adapters: args.map((path, i) => ({ path, weight: weights ? Number(weights[i]) : 1 })),
  };
}
