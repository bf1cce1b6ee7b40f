/**
 * `limbeck cancel` and `limbeck pause`
 *
 * @module
 */
import type { Command } from "../command.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { withRuns } from "./logs.ts";
import { REMOTE_FLAG } from "../remote_flag.ts";

function asking(name: "cancel" | "pause", details: string, done: string): Command {
  return {
    name,
    usage: "RUN",
    positional: [1, 1],
    details: `RUN is a run's id, the beginning of one, or \`last\`. ${details}`,
    flags: { ...DATA_FLAG, ...REMOTE_FLAG },
    examples: [`limbeck ${name} last`, `limbeck ${name} last --remote http://gpu:8787`],
    run: (invocation) =>
      withRuns(invocation, async (runs) => {
        const { id } = await runs.find(invocation.args[0]!);
        await runs.ask(id, name);
        invocation.out.value({ id, asked: name });
        invocation.out.line(`Run ${id} ${done}`);
        return 0;
      }),
  };
}

/** Ends a run for good. */
export const cancel: Command = asking(
  "cancel",
  "It ends for good, wherever it was begun; its last checkpoint stays.",
  "is cancelled, or will be once it has saved a checkpoint.",
);

/** Ends a run's process for now. */
export const pause: Command = asking(
  "pause",
  "It saves a checkpoint and ends its process; `limbeck resume` continues it.",
  "will save a checkpoint and end its process.",
);
