/**
 * `limbeck estimate`
 *
 * @module
 */
// @ts-types="../../types/std_colors.d.ts"
import { bold, dim } from "@std/fmt/colors";
import { setUp } from "../distill/distill.ts";
import { prepareRun } from "../distill/prepare.ts";
import { planTraining } from "../distill/trainer.ts";
import { DeviceError } from "../errors.ts";
import { type AdapterDescription, DEFAULT_ADAPTER } from "../gpu/description.ts";
import { openGpu } from "../gpu/device.ts";
import type { Command, Invocation } from "./command.ts";
import { readRecipe, RECIPE_FLAGS } from "./distill.ts";
import { builtinRegistry } from "./registry.ts";
import { bytes, count } from "./units.ts";

/** Forecasts what a recipe needs. */
export const estimate: Command = {
  name: "estimate",
  usage: "[RECIPE]",
  positional: [0, 1],
  details:
    "Plans the whole run without a single buffer: the bytes are exact. Where there is no GPU, WebGPU's default limits are planned for.",
  flags: RECIPE_FLAGS,
  examples: ["limbeck estimate my.yaml", "limbeck estimate my.yaml --set train.tokensPerMicroBatch=4096"],
  async run({ args, flags, out }: Invocation): Promise<number> {
    const recipe = await readRecipe(args[0], flags.list("set"));
    const prepared = await prepareRun(recipe);
    try {
      const adapter = await describeAdapter();
      const { plan, frozen } = planTraining(setUp(prepared, builtinRegistry()), adapter);
      out.value({
        adapter: adapter.name,
        totalBytes: plan.totalBytes,
        bytes: Object.fromEntries(plan.bytesByCategory),
        tokensPerMicroBatch: frozen.tokens,
        headChunk: frozen.chunkRows,
        activationCheckpointing: frozen.recompute,
        trainTokens: prepared.trainReport.tokens,
        steps: recipe.train.steps,
      });
      const widest = Math.max(...[...plan.bytesByCategory.keys()].map((name) => name.length));
      out.line(bold("Memory on the GPU") + dim(` (${adapter.name})`));
      for (const [name, size] of plan.bytesByCategory) {
        out.line(`  ${name.padEnd(widest)}  ${bytes(size).padStart(10)}`);
      }
      out.line(bold(`  ${"total".padEnd(widest)}  ${bytes(plan.totalBytes).padStart(10)}`));
      const perStep = frozen.tokens * recipe.train.accumulation;
      out.line();
      out.line(
        `${recipe.train.steps} steps of ${count(perStep)} tokens; the training data has ${
          count(prepared.trainReport.tokens)
        } tokens, so it is read ${
          (recipe.train.steps * perStep / prepared.trainReport.tokens).toFixed(1)
        } times.`,
      );
      if (frozen.recompute) out.line("Activations are computed twice to save memory.");
      return 0;
    } finally {
      prepared.close();
    }
  },
};

/** The adapter that is here, or what WebGPU promises where there is none. */
async function describeAdapter(): Promise<AdapterDescription> {
  try {
    const gpu = await openGpu();
    gpu.destroy();
    return gpu.description;
  } catch (error) {
    if (error instanceof DeviceError) return DEFAULT_ADAPTER;
    throw error;
  }
}
