/**
 * `limbeck resume`
 *
 * @module
 */
import { openStoreOf } from "../../runs/store/data_folder.ts";
import { findRun, openRun } from "../../runs/store/run_folder.ts";
import { InputError } from "../../base/errors.ts";
import type { Command, Invocation } from "../command.ts";
import { HUB_FLAGS, restoredModels } from "../hub_models.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { REMOTE_FLAG, remoteRuns } from "../remote_flag.ts";
import { prepareMachine, RUN_FLAGS, STOP_NOTE, watchRun } from "../terminal/watch_run.ts";

/** Continues a run. */
export const resume: Command = {
  name: "resume",
  usage: "RUN",
  positional: [1, 1],
  details: `RUN is a run's id, the beginning of one, \`last\`, or its folder. ${STOP_NOTE}`,
  flags: { ...HUB_FLAGS, ...DATA_FLAG, ...REMOTE_FLAG, ...RUN_FLAGS },
  examples: ["limbeck resume last", "limbeck resume 20260724-153012", "limbeck resume ./my-run"],
  async run(invocation: Invocation): Promise<number> {
    const { args, flags, out } = invocation;
    const remote = remoteRuns(invocation);
    if (remote) {
      const { id } = await remote.find(args[0]!);
      await remote.resume(id);
      out.value({ id, asked: "resume" });
      out.line(`Run ${id} is queued. \`limbeck logs ${id} -f --remote URL\` shows it.`);
      return 0;
    }
    using store = await openStoreOf(args[0]!, flags.text("data"));
    const { folder, state, recipe } = await findRun(args[0]!, store);
    if (state === "succeeded" || state === "cancelled") {
      const how = state === "succeeded"
        ? "done; there is nothing to continue"
        : "cancelled, which is for good";
      throw new InputError(`this run is ${how}`, {
        where: folder,
        hint: "`limbeck runs show` sums it up. To train longer, begin a new run with more train.steps.",
      });
    }
    await restoredModels(recipe, invocation);
    await prepareMachine(invocation);
    return await watchRun(await openRun(folder, store), { resume: true }, invocation);
  },
};
