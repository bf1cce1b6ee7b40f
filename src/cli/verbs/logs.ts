/**
 * `limbeck logs`
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { dim, red, yellow } from "@std/fmt/colors";
import type { RunEvent } from "../../distill/run/events.ts";
import { openStoreOf } from "../../runs/store/data_folder.ts";
import { eventText } from "../../runs/report/event_text.ts";
import { LocalRuns, type RunAccess } from "../../runs/store/run_access.ts";
import type { Command, Invocation } from "../command.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { REMOTE_FLAG, remoteRuns } from "../remote_flag.ts";
import { handleSignals } from "../terminal/watch_run.ts";

/** Prints what a run says. */
export const logs: Command = {
  name: "logs",
  usage: "RUN",
  positional: [1, 1],
  details:
    "RUN is a run's id, the beginning of one, or `last`. With --follow it prints on until the run ends; Ctrl-C only ends the printing.",
  flags: {
    follow: { short: "f", help: "Print what is still to come, too" },
    after: { value: "NUMBER", kind: "count", help: "Leave out events up to this number" },
    ...DATA_FLAG,
    ...REMOTE_FLAG,
  },
  examples: [
    "limbeck logs last -f",
    "limbeck logs 20260724-153012 --json",
    "limbeck logs last -f --remote http://gpu:8787",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { args, flags, out } = invocation;
    return await withRuns(invocation, async (runs) => {
      const { id } = await runs.find(args[0]!);
      const stop = new AbortController();
      using _signals = handleSignals({ first: () => stop.abort(), second: () => Deno.exit(130) });
      const options = { after: flags.number("after") ?? 0, follow: flags.on("follow"), signal: stop.signal };
      for await (const events of runs.events(id, options)) {
        for (const event of events) {
          if (out.json) out.value(event);
          else out.line(line(event));
        }
      }
      return 0;
    });
  },
};

/** Opens the runs that the flags name, here or behind a service. */
export async function withRuns<T>(invocation: Invocation, use: (runs: RunAccess) => Promise<T>): Promise<T> {
  const remote = remoteRuns(invocation);
  if (remote) return await use(remote);
  using store = await openStoreOf(invocation.args[0] ?? "", invocation.flags.text("data"));
  return await use(new LocalRuns(store));
}

function line(event: RunEvent): string {
  const text = eventText(event);
  const shown = event.type === "error" ? red(text) : event.type === "warning" ? yellow(text) : text;
  return `${dim(event.time.slice(0, 19).replace("T", " "))}  ${shown}`;
}
