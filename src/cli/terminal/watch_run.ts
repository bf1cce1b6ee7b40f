/**
 * Runs a run to its end in front of the user: set-up, progress, Ctrl-C, report and summary. Shared by `distill` and `resume`.
 *
 * @module
 */
import { readEvents } from "../../runs/store/event_log.ts";
import { type LockedRun, removeUnbegun } from "../../runs/store/run_folder.ts";
import { UsageError } from "../../base/errors.ts";
import { shellQuoted } from "../../base/quoting.ts";
import type { RunTuning } from "../../distill/run/events.ts";
import { type RunOutcome, superviseRun } from "../../runs/supervise/supervisor.ts";
import type { Flag, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { isDebug } from "./output.ts";
import { Progress } from "./progress.ts";
import { machineProvider } from "../../runs/child/provider/choice.ts";
import { writeReport } from "../../runs/report/report.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { shownPath } from "./shown_path.ts";
import { summaryLines } from "./summary.ts";
import { RunError } from "./run_error.ts";

/** Flags of the verbs that run a run. */
export const RUN_FLAGS: Readonly<Record<string, Flag>> = {
  watchdog: {
    value: "SECONDS",
    kind: "number",
    above: 0,
    help: "End a training process that is silent for so long (default 120)",
  },
  profile: { help: "Measure each kernel and print where the time went; slows the run down" },
  tune: { help: "Time kernels that the device has not chosen among yet, even where a CPU plays the GPU" },
  "no-tune": { help: "Time no kernels first; those that the device has chosen before are used" },
  ...PROVIDER_FLAG,
  "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
};

/**
 * Whether the runs of a command time kernels first.
 *
 * @throws {UsageError} they are to and are not to
 */
export function tuneMode(flags: Invocation["flags"]): RunTuning["measure"] {
  if (flags.on("tune") && flags.on("no-tune")) {
    throw new UsageError("--tune and --no-tune contradict each other");
  }
  return flags.on("no-tune") ? "never" : flags.on("tune") ? "always" : "auto";
}

/** What the user is told when a run begins. */
export const STOP_NOTE = "Ctrl-C saves a checkpoint and stops; a second Ctrl-C stops at once.";

/**
 * Looks for an adapter before anything is made, unless told not to.
 *
 * @throws {UsageError} flags that contradict each other
 */
export async function prepareMachine({ flags, out }: Invocation): Promise<void> {
  tuneMode(flags);
  if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
}

/**
 * Supervises a locked run and tells about it. Releases it at the end.
 *
 * @param entry module of the trainer; tests hand in their own
 * @returns the exit code
 * @throws {RunError} the run failed
 */
export async function watchRun(
  run: LockedRun,
  options: { resume: boolean; entry?: string },
  { flags, out }: Invocation,
): Promise<number> {
  const shown = shownPath(run.folder);
  const progress = new Progress(out);
  out.line(`Run ${run.manifest.id} in ${shown}`);
  let outcome: RunOutcome;
  try {
    const supervised = superviseRun({
      run,
      resume: options.resume,
      entry: options.entry,
      watchdogSeconds: flags.number("watchdog"),
      debug: isDebug(),
      profile: flags.on("profile"),
      tune: tuneMode(flags),
      // Without the flag a run goes on as it was begun: only so do its numbers stay the same bit for bit.
      ...(flags.given("provider") ? { provider: machineProvider() } : {}),
      onEvent: (event) => progress.show(event),
    });
    using _signals = handleSignals({
      first() {
        progress.line("Saving a checkpoint and stopping; Ctrl-C again stops at once.");
        supervised.request("pause");
      },
      second: () => supervised.kill(),
    });
    outcome = await supervised.outcome;
  } finally {
    progress.end();
    run.release();
  }
  const gone = !options.resume && await removeUnbegun(run, outcome.error?.exitCode);
  const hasReport = !gone && await writeReport(run.folder).then(() => true, (error) => {
    // The run's own end matters more.
    out.warn(`the report could not be written: ${(error as Error).message}`);
    return false;
  });
  const { result } = outcome;
  if (result && hasReport) outcome.result = { ...result, paths: { ...result.paths, report: "report.html" } };
  return await conclude(shown, run.folder, outcome, out);
}

async function conclude(
  shown: string,
  folder: string,
  outcome: RunOutcome,
  out: Invocation["out"],
): Promise<number> {
  const { state, exitCode, result } = outcome;
  out.value({ type: "outcome", state, exitCode, folder: shown, result: result ?? null });
  if (outcome.error) throw new RunError(outcome.error, shown);
  const command = `\`limbeck resume ${shellQuoted(shown)}\``;
  if (state === "succeeded" && result) {
    out.line();
    for (const line of summaryLines(shown, result, await readEvents(folder))) out.line(line);
  } else if (state === "cancelled") {
    out.line("The run was cancelled.");
  } else if (state === "paused" && result?.steps === 0) {
    out.line(`Stopped before the first step. ${command} begins again.`);
  } else if (state === "paused" && result) {
    out.line(`Stopped after step ${result.steps}, with a checkpoint. ${command} continues.`);
  } else {
    out.line(`Stopped. ${command} continues from the last checkpoint, if there is one.`);
  }
  return exitCode;
}

/** Signals nearer than this come from one Ctrl-C: `deno task` and npx pass on what the terminal has sent already. */
const ONE_PRESS_MILLISECONDS = 500;

/** Calls back at the first signal to end, and at each further one, until it is disposed of. One Ctrl-C counts once. */
export function handleSignals({ first, second }: { first(): void; second(): void }): Disposable {
  let asked: number | undefined;
  const handle = () => {
    const now = performance.now();
    if (asked === undefined) {
      asked = now;
      first();
    } else if (now - asked > ONE_PRESS_MILLISECONDS) second();
  };
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) Deno.addSignalListener(signal, handle);
  return {
    [Symbol.dispose]() {
      for (const signal of signals) Deno.removeSignalListener(signal, handle);
    },
  };
}
