/**
 * `limbeck runs`
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { didYouMean } from "../../base/did_you_mean.ts";
import { UsageError } from "../../base/errors.ts";
import { DATA_FOLDER, openStoreIfThere, openStoreOf } from "../../runs/store/data_folder.ts";
import { LocalRuns } from "../../runs/store/run_access.ts";
import { findRun, removeRun } from "../../runs/store/run_folder.ts";
import { type RunSummary, summarise } from "../../runs/store/run_summary.ts";
import { shellQuoted } from "../../base/quoting.ts";
import type { Store, StoredRun } from "../../runs/store/store.ts";
import type { Command, Invocation } from "../command.ts";
import { DATA_FLAG } from "../data_flag.ts";
import type { Output } from "../terminal/output.ts";
import { REMOTE_FLAG, remoteRuns } from "../remote_flag.ts";
import { summaryLines } from "../terminal/summary.ts";
import { number3 } from "../../base/units.ts";
import { table } from "../terminal/table.ts";

const ACTIONS = ["list", "show", "rm"];

/** Lists, shows and removes runs. */
export const runs: Command = {
  name: "runs",
  usage: "[list | show RUN | rm RUN ...]",
  positional: [0, 100],
  details: "RUN is a run's id, the beginning of one, `last`, or its folder.",
  flags: { ...DATA_FLAG, ...REMOTE_FLAG },
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
    const remote = remoteRuns(invocation);
    if (remote) {
      if (action === "list") return listed(await remote.list(MOST_LISTED), flags.text("remote")!, out);
      if (action === "rm") {
        throw new UsageError("runs of a service are removed on its page, or with DELETE /v1/runs/RUN");
      }
      for (const name of names) shown(await remote.find(name), out);
      return 0;
    }
    const folder = flags.text("data") ?? DATA_FOLDER;
    if (action === "list") {
      using store = await openStoreIfThere(folder);
      return listed(store ? await new LocalRuns(store).list(MOST_LISTED) : [], folder, out);
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

function listed(summaries: readonly RunSummary[], where: string, out: Output): number {
  if (out.json) out.value(summaries);
  else if (summaries.length === 0) out.line(`There are no runs in ${where}.`);
  else for (const line of tableOf(summaries)) out.line(line);
  return 0;
}

function tableOf(summaries: readonly RunSummary[]): string[] {
  const rows = summaries.map(({ id, state, step, steps, loss, result }) => [
    id,
    state,
    `${step}/${steps}`,
    number3(loss),
    number3(result?.heldOut.after),
    number3(result?.heldOut.gapClosed),
  ]);
  return table(["run", "state", "steps", "loss", "held out", "gap closed"], rows);
}

async function show(store: Store, run: StoredRun, out: Output): Promise<void> {
  const summary = summarise(run);
  const { folder } = run;
  shown(summary, out);
  if (["paused", "interrupted", "failed"].includes(summary.state)) {
    out.line(`\`limbeck resume ${shellQuoted(folder)}\` continues it.`);
  }
  if (summary.result && summary.result.heldOut.tokens > 0) {
    for (const line of summaryLines(folder, summary.result, await store.events(run.id))) out.line(line);
  }
}

function shown(summary: RunSummary, out: Output): void {
  out.value(summary);
  out.line(`${bold(`Run ${summary.id}`)}  ${summary.state}, step ${summary.step} of ${summary.steps}`);
  if (summary.error) out.line(`${summary.error.message}\n${summary.error.hint ?? ""}`.trimEnd());
}

async function remove(store: Store, run: StoredRun, out: Output): Promise<void> {
  await removeRun(store, run);
  out.value({ removed: run.folder });
  out.line(`Removed ${run.folder}`);
}
