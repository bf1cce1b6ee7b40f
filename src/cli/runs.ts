/**
 * `limbeck runs`
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
// @ts-types="../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { didYouMean } from "../distill/did_you_mean.ts";
import { UsageError } from "../errors.ts";
import { readEvents } from "../runs/event_log.ts";
import { findRun, removeRun, runIds } from "../runs/run_folder.ts";
import { type RunSummary, summarise } from "../runs/run_summary.ts";
import { shellQuoted } from "../runs/shell_quoted.ts";
import type { Command, Invocation } from "./command.ts";
import { summaryLines } from "./summary.ts";
import { number3 } from "./units.ts";

const ACTIONS = ["list", "show", "rm"];

/** Lists, shows and removes runs. */
export const runs: Command = {
  name: "runs",
  usage: "[list | show RUN | rm RUN ...]",
  positional: [0, 100],
  details: "RUN is a run's id, the beginning of one, `last`, or its folder.",
  flags: { runs: { value: "FOLDER", help: "Folder of runs (default runs)" } },
  examples: ["limbeck runs", "limbeck runs show last", "limbeck runs rm 20260724-153012"],
  async run(invocation: Invocation): Promise<number> {
    const [action = "list", ...names] = invocation.args;
    const folder = invocation.flags.text("runs") ?? "runs";
    if (!ACTIONS.includes(action)) {
      throw new UsageError(`there is no "runs ${action}"${didYouMean(action, ACTIONS)}`, {
        hint: "`limbeck runs --help` lists what there is.",
      });
    }
    if (action === "list") return await list(folder, invocation);
    if (names.length === 0) throw new UsageError(`name a run: limbeck runs ${action} RUN`);
    // All names are looked up before anything is removed.
    const folders = await Promise.all(names.map((name) => findRun(name, folder)));
    for (const found of new Set(folders)) {
      await (action === "show" ? show(found, invocation) : remove(found, invocation));
    }
    return 0;
  },
};

async function list(folder: string, { out }: Invocation): Promise<number> {
  const summaries: RunSummary[] = [];
  for (const id of await runIds(folder)) {
    try {
      summaries.push(await summarise(join(folder, id)));
    } catch (error) {
      out.warn((error as Error).message);
    }
  }
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

async function show(folder: string, { out }: Invocation): Promise<void> {
  const summary = await summarise(folder);
  out.value(summary);
  out.line(`${bold(`Run ${summary.id}`)}  ${summary.state}, step ${summary.step} of ${summary.steps}`);
  if (summary.error) out.line(`${summary.error.message}\n${summary.error.hint ?? ""}`.trimEnd());
  if (["paused", "interrupted", "failed"].includes(summary.state)) {
    out.line(`\`limbeck resume ${shellQuoted(folder)}\` continues it.`);
  }
  if (summary.result && summary.result.heldOut.tokens > 0) {
    for (const line of summaryLines(folder, summary.result, await readEvents(folder))) out.line(line);
  }
}

async function remove(folder: string, { out }: Invocation): Promise<void> {
  await removeRun(folder);
  out.value({ removed: folder });
  out.line(`Removed ${folder}`);
}
