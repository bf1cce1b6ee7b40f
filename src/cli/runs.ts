/**
 * `limbeck runs`
 *
 * @module
 */
// @ts-types="../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { didYouMean } from "../distill/did_you_mean.ts";
import { UsageError } from "../errors.ts";
import { DATA_FOLDER, openStoreIfThere, openStoreOf } from "../runs/data_folder.ts";
import { findRun, removeRun } from "../runs/run_folder.ts";
import { type RunSummary, summarise } from "../runs/run_summary.ts";
import { shellQuoted } from "../runs/shell_quoted.ts";
import type { Store, StoredRun } from "../runs/store.ts";
import type { Command, Invocation } from "./command.ts";
import { DATA_FLAG } from "./data_flag.ts";
import type { Output } from "./output.ts";
import { summaryLines } from "./summary.ts";
import { number3 } from "../runs/units.ts";

const ACTIONS = ["list", "show", "rm"];

/** Lists, shows and removes runs. */
export const runs: Command = {
  name: "runs",
  usage: "[list | show RUN | rm RUN ...]",
  positional: [0, 100],
  details: "RUN is a run's id, the beginning of one, `last`, or its folder.",
  flags: DATA_FLAG,
  examples: ["limbeck runs", "limbeck runs show last", "limbeck runs rm 20260724-153012"],
  async run(invocation: Invocation): Promise<number> {
    const { args: [action = "list", ...names], flags, out } = invocation;
    if (!ACTIONS.includes(action)) {
      throw new UsageError(`there is no "runs ${action}"${didYouMean(action, ACTIONS)}`, {
        hint: "`limbeck runs --help` lists what there is.",
      });
    }
    if (action !== "list" && names.length === 0) {
      throw new UsageError(`name a run: limbeck runs ${action} RUN`);
    }
    const folder = flags.text("data") ?? DATA_FOLDER;
    if (action === "list") {
      using store = await openStoreIfThere(folder);
      return await list(store, folder, out);
    }
    using store = await openStoreOf(names[0]!, flags.text("data"));
    // All names are looked up before anything is removed.
    const runs = await Promise.all(names.map((name) => findRun(name, store)));
    for (const run of new Map(runs.map((run) => [run.id, run])).values()) {
      await (action === "show" ? show(store, run, out) : remove(store, run, out));
    }
    return 0;
  },
};

/** Runs in the list: the newest, in the order in which they were begun. */
const MOST_LISTED = 1000;

async function list(store: Store | undefined, folder: string, out: Output): Promise<number> {
  const runs = store ? [...(await store.list({ limit: MOST_LISTED })).data].reverse() : [];
  const summaries = runs.map(summarise);
  if (out.json) out.value(summaries);
  else if (summaries.length === 0) out.line(`There are no runs in ${folder}.`);
  else for (const line of table(summaries)) out.line(line);
  return 0;
}

function table(summaries: readonly RunSummary[]): string[] {
  const rows = summaries.map(({ id, state, step, steps, loss, result }) => [
    id,
    state,
    `${step}/${steps}`,
    number3(loss),
    number3(result?.heldOut.after),
    number3(result?.heldOut.gapClosed),
  ]);
  const head = ["run", "state", "steps", "loss", "held out", "gap closed"];
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i].length)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd();
  return [bold(line(head)), ...rows.map(line)];
}

async function show(store: Store, run: StoredRun, out: Output): Promise<void> {
  const summary = summarise(run);
  const { folder } = run;
  out.value(summary);
  out.line(`${bold(`Run ${summary.id}`)}  ${summary.state}, step ${summary.step} of ${summary.steps}`);
  if (summary.error) out.line(`${summary.error.message}\n${summary.error.hint ?? ""}`.trimEnd());
  if (["paused", "interrupted", "failed"].includes(summary.state)) {
    out.line(`\`limbeck resume ${shellQuoted(folder)}\` continues it.`);
  }
  if (summary.result && summary.result.heldOut.tokens > 0) {
    for (const line of summaryLines(folder, summary.result, await store.events(run.id))) out.line(line);
  }
}

async function remove(store: Store, run: StoredRun, out: Output): Promise<void> {
  await removeRun(store, run);
  out.value({ removed: run.folder });
  out.line(`Removed ${run.folder}`);
}
