/**
 * `limbeck tune`
 *
 * @module
 */
import { duration, percent } from "../../base/units.ts";
import { tuneRecipe } from "../../distill/run/tune_recipe.ts";
import { openGpu } from "../../gpu/device.ts";
import { DATA_FOLDER } from "../../runs/store/data_folder.ts";
import { keepTuned, readTuned } from "../../runs/store/tuned_files.ts";
import { TRIALS } from "../../tune/tune.ts";
import { peakRates } from "../../tune/tuned.ts";
import type { Command, Invocation } from "../command.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { prepareMachine } from "../terminal/watch_run.ts";
import { stoppable } from "../terminal/stoppable_work.ts";
import { leftLines, peakLine, refusedLines, tunedLines } from "../terminal/tuned_table.ts";
import { RECIPE_FLAGS, withRecipe } from "./distill.ts";

/** Times kernels, and keeps which is best. */
export const tune: Command = {
  name: "tune",
  usage: "[RECIPE]",
  positional: [0, 1],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Plans the recipe's runs and times the kernels that there are for each kind of work in them, those first that look fastest on paper, each in turn with the best so far. " +
    "What is found best is kept in the data folder for this device, its driver and these kernels, and runs that begin from then on use it. A kernel that gives other numbers here is never used. " +
    "Where a GPU does the work, the first run does as much by itself.",
  flags: {
    ...RECIPE_FLAGS,
    ...DATA_FLAG,
    budget: {
      value: "TRIALS",
      kind: "count",
      least: 1,
      help: `Kernels that are timed for a kind of work, beside the one that stands first (default ${TRIALS})`,
    },
    seconds: {
      value: "SECONDS",
      kind: "number",
      above: 0,
      help: "Try no further kernel after so long",
    },
    again: { help: "Time again what was timed before" },
    ...PROVIDER_FLAG,
    "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
  },
  examples: [
    "limbeck tune",
    "limbeck tune my.yaml --budget 16",
    "limbeck tune my.yaml --seconds 30 --json",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    const dataFolder = flags.text("data") ?? DATA_FOLDER;
    await prepareMachine(invocation);
    return await withRecipe(invocation, async (opened) => {
      const gpu = await openGpu();
      try {
        const kept = await readTuned(dataFolder, (message) => out.warn(message));
        const [trials, seconds] = [flags.number("budget"), flags.number("seconds")];
        const { limits: { gpuBytes } } = opened.recipe;
        let stopped = false;
        const found = await stoppable(
          out,
          "timing",
          ({ signal, onProgress }) =>
            tuneRecipe(opened, gpu, kept, {
              again: flags.on("again"),
              ...(trials === undefined ? {} : { trials }),
              ...(seconds === undefined ? {} : { seconds }),
              ...(gpuBytes === undefined ? {} : { bytes: gpuBytes }),
              stopped: () => stopped ||= signal.aborted,
              onProgress: ({ done, total, key, kernel }) => onProgress(done, total, `${key}: ${kernel}`),
            }),
        );
        const now = found.choices.filter(({ measured }) => measured === "now");
        if (now.length > 0) {
          await keepTuned(
            dataFolder,
            found.device,
            now.map(({ uses: _, measured: __, ...choice }) => choice),
          );
        }
        out.value({ ...found, peak: peakRates(found.choices) ?? null });
        for (const line of tunedLines(found.choices)) out.line(line);
        const peak = peakLine(found.choices);
        out.line();
        if (peak) out.line(`${found.device.name}, ${peak}`);
        for (const line of refusedLines(found.choices)) out.warn(line);
        for (const line of leftLines(found.left)) out.line(line);
        out.line(
          `${now.length} of ${found.choices.length} choices were made now, in ${duration(found.seconds)}${
            stopped ? ", until it was stopped" : ""
          }; runs in ${dataFolder} use them. They save ${percent(found.saved)} of the time of this work.`,
        );
        return stopped ? 130 : 0;
      } finally {
        gpu.destroy();
      }
    }, () => "look");
  },
};
