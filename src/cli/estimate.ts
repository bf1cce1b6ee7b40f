/**
 * `limbeck estimate`
 *
 * @module
 */
// @ts-types="../../types/std_colors.d.ts"
import { bold, dim } from "@std/fmt/colors";
import { forecast } from "../distill/forecast.ts";
import { checkHostMemory, type RunMemory, runMemory } from "../distill/memory.ts";
import type { Recipe } from "../distill/recipe.ts";
import { sampleBytes } from "../distill/samples.ts";
import { cacheBytes, teacherPassMemory } from "../distill/teacher_pass.ts";
import { planTraining } from "../distill/trainer.ts";
import { DeviceError } from "../errors.ts";
import { DEFAULT_ADAPTER } from "../gpu/description.ts";
import { type Gpu, openGpu } from "../gpu/device.ts";
import type { Command, Invocation } from "./command.ts";
import { RECIPE_FLAGS, withRecipe } from "./distill.ts";
import { trainedLines, trainedValue } from "./trained_text.ts";
import { bytes, count, duration, short } from "../runs/units.ts";

/** Forecasts what a recipe needs. */
export const estimate: Command = {
  name: "estimate",
  usage: "[RECIPE]",
  positional: [0, 1],
  loadsPlugins: true,
  details:
    "Plans the whole run without a single buffer: the bytes are exact. Where there is no GPU, WebGPU's default limits are planned for. " +
    "With --measure the first two steps are run, which needs a GPU, for a forecast of the time.",
  flags: { ...RECIPE_FLAGS, measure: { help: "Run two steps to forecast the time" } },
  examples: [
    "limbeck estimate my.yaml",
    "limbeck estimate my.yaml --set train.tokensPerMicroBatch=4096",
    "limbeck estimate my.yaml --measure",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    return await withRecipe(invocation, async ({ recipe, prepared, setup, warnings }) => {
      const gpu = await openHere(flags.on("measure"));
      try {
        const adapter = gpu?.description ?? DEFAULT_ADAPTER;
        const samples = sampleBytes(adapter, prepared, setup);
        const planned = planTraining(setup, adapter, undefined, samples);
        const memory = runMemory(planned.plan, samples);
        const { frozen } = planned;
        if (gpu?.adapter.info.isFallbackAdapter) checkHostMemory(memory, recipe, frozen.recompute);
        const pass = recipe.teacher.cache ? teacherPassMemory(prepared, setup, adapter, frozen) : undefined;
        if (pass && gpu?.adapter.info.isFallbackAdapter) checkHostMemory(pass, recipe, frozen.recompute);
        const kept = cacheBytes(setup, prepared);
        const time = flags.on("measure") ? await forecast(gpu!, prepared, setup, planned) : null;
        out.value({
          adapter: adapter.name,
          totalBytes: memory.total,
          bytes: Object.fromEntries(memory.byCategory),
          tokensPerMicroBatch: frozen.tokens,
          headChunk: frozen.chunkRows,
          activationCheckpointing: frozen.recompute,
          train: prepared.trainReport,
          heldOut: prepared.heldOutReport,
          trained: trainedValue(setup),
          steps: recipe.train.steps,
          seconds: time,
          teacherPass: pass && kept
            ? {
              totalBytes: pass.total,
              bytes: Object.fromEntries(pass.byCategory),
              cacheBytes: kept.total,
              bytesPerToken: kept.row,
            }
            : null,
          warnings,
        });
        for (const line of memoryLines(memory, adapter.name)) out.line(line);
        if (pass && kept) {
          out.line();
          for (
            const line of memoryLines(pass, "before training, where the teacher's cache is not there yet")
          ) {
            out.line(line);
          }
          out.line(`The cache takes ${bytes(kept.total)} on disk, ${kept.row} bytes a token that counts.`);
        }
        out.line();
        for (const line of trainedLines(setup)) out.line(line);
        out.line(readingText(recipe, frozen.tokens, prepared.trainReport.tokens));
        if (frozen.recompute) out.line("Activations are computed twice to save memory.");
        if (time) {
          out.line(
            `About ${duration(time.total)}: ${duration(time.setUp)} to begin, ${short(time.step)} s a step, ${
              short(time.evaluation)
            } s a measurement of the held-out loss.`,
          );
          if (pass) out.line("The pass of the teacher over the data before that was not measured.");
        }
        return 0;
      } finally {
        gpu?.destroy();
      }
    });
  },
};

function memoryLines({ byCategory, total }: RunMemory, adapterName: string): string[] {
  const widest = Math.max(...[...byCategory.keys()].map((name) => name.length));
  const row = (name: string, size: number) => `  ${name.padEnd(widest)}  ${bytes(size).padStart(10)}`;
  return [
    bold("Memory on the GPU") + dim(` (${adapterName})`),
    ...[...byCategory].map(([name, size]) => row(name, size)),
    bold(row("total", total)),
  ];
}

function readingText({ train }: Recipe, tokensPerMicroBatch: number, tokens: number): string {
  const perStep = tokensPerMicroBatch * train.accumulation;
  return `${train.steps} steps of ${count(perStep)} tokens; the training data has ${count(tokens)} tokens, ` +
    `so it is read ${(train.steps * perStep / tokens).toFixed(1)} times.`;
}

/** The GPU that is here; undefined where there is none and none is needed. */
async function openHere(needed: boolean): Promise<Gpu | undefined> {
  try {
    return await openGpu();
  } catch (error) {
    if (!needed && error instanceof DeviceError) return undefined;
    throw error;
  }
}
