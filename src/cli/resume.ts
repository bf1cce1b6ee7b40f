/**
 * `limbeck resume`
 *
 * @module
 */
import { findRun, openRun } from "../runs/run_folder.ts";
import { InputError } from "../errors.ts";
import type { Command, Invocation } from "./command.ts";
import { summarise } from "../runs/run_summary.ts";
import { prepareMachine, RUN_FLAGS, STOP_NOTE, watchRun } from "./watch_run.ts";

/** Continues a run. */
export const resume: Command = {
  name: "resume",
  usage: "RUN",
  positional: [1, 1],
  details: `RUN is a run's id, the beginning of one, \`last\`, or its folder. ${STOP_NOTE}`,
  flags: { runs: { value: "FOLDER", help: "Folder of runs (default runs)" }, ...RUN_FLAGS },
  examples: ["limbeck resume last", "limbeck resume 20260724-153012", "limbeck resume ./my-run"],
  async run(invocation: Invocation): Promise<number> {
    const { args, flags } = invocation;
    const folder = await findRun(args[0], flags.text("runs"));
    const { state } = await summarise(folder);
    if (state === "succeeded") {
      throw new InputError("this run is done; there is nothing to continue", {
        where: folder,
        hint: "`limbeck runs show` sums it up. To train longer, begin a new run with more train.steps.",
      });
    }
    await prepareMachine(invocation);
    return await watchRun(await openRun(folder), { resume: true }, invocation);
  },
};
