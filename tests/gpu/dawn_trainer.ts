/** A trainer that opens the GPU, tries to load another library, tells both, and is done. */
import type { RunHost } from "../../src/distill/run/events.ts";
import type { RunResult } from "../../src/distill/export/exports.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { runChild } from "../../src/runs/child/inside/training_process.ts";

async function train(recipe: Recipe, { emit }: RunHost<null>): Promise<RunResult> {
  const gpu = await openGpu();
  emit({ type: "warning", code: "provider", message: String(gpu.provider) });
  let library = "was loaded";
  try {
    Deno.dlopen("libc.so.6", { getpid: { parameters: [], result: "i32" } }).close();
  } catch (error) {
    library = (error as Error).name;
  }
  emit({ type: "warning", code: "library", message: library });
  return {
    status: "succeeded",
    steps: recipe.train.steps,
    heldOut: { teacher: null, before: null, after: null, gapClosed: null, tokens: 0 },
    paths: {},
    peakBytes: { planned: 0, allocated: 0 },
    seconds: 0,
  };
}

/** Runs it as the process of a run. */
export function main(): Promise<never> {
  return runChild(train, () => Promise.resolve(null));
}
