/**
 * Trains a tiny model for a few steps and prints what came of it as a line of JSON: a program of its own, so that each implementation of
 * WebGPU has a process. Run with the folder of the model, and the family of kernels.
 *
 * @module
 */
import { DivergedError } from "../../src/base/errors.ts";
import { sha256 } from "../../src/distill/inputs/identity.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import type { StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { checkDivergence } from "../../src/distill/run/divergence_guard.ts";
import { DEFAULT_DEVICE, type KernelFamily } from "../../src/gpu/description.ts";
import { openGpu } from "../../src/gpu/device.ts";
import type { Plan } from "../../src/tensor/plan.ts";
import { packBatch } from "../../src/text/packing.ts";
import { randomArray } from "../tensor/harness.ts";
import { tinyRecipe, tinySample, tinySetup } from "../distill/tiny_model.ts";

/** What it prints. */
export interface OneStep {
  readonly adapter: string;
  readonly provider: string;
  /** SHA-256 of all that is in the plan. */
  readonly plan: string;
  /** Loss before each step. */
  readonly losses: readonly number[];
  readonly gradientNorms: readonly number[];
  /** Trained parameters after the last step. */
  readonly parameters: readonly number[];
  /** Whether a run would end with the step after one of them was no number. */
  readonly ends: boolean;
}

const STEPS = 3;
const QUICK = "tiled 32x32 by 16, 4x4 each, one panel";

function planText({ blocks, buffers, storages, sizeWords }: Plan): string {
  const plain = (_: string, value: unknown) =>
    value instanceof Map ? [...value] : value instanceof Set ? [...value] : value;
  return JSON.stringify([blocks, buffers, storages, [...sizeWords]], plain);
}

/** Kernels of products that SwiftShader compiles in half the time, for some orientations: the others have those that stand first. */
function quickKernels({ kernels }: Plan): Record<string, string> {
  const quick = [...kernels.values()].filter(({ key, candidates }) =>
    !key.startsWith("matmul NT") && candidates.some(({ name }) => name === QUICK)
  );
  return Object.fromEntries(quick.map(({ key }) => [key, QUICK]));
}

function endsAt(metrics: StepMetrics): boolean {
  try {
    checkDivergence(metrics, { sum: 0, count: 0, lowest: null }, { maxLossFactor: 0, window: 50 });
    return false;
  } catch (error) {
    if (error instanceof DivergedError) return true;
    throw error;
  }
}

async function train(folder: string, family: KernelFamily): Promise<OneStep> {
  const files = { folder, teacher: `${folder}/teacher`, train: "train.jsonl", heldOut: "heldout.jsonl" };
  const recipe = tinyRecipe(files, { objective: [{ loss: "forward-kl", temperature: 2 }] });
  using setup = await tinySetup(recipe);
  const subgroupSize = family === "subgroup8" ? 8 : 0;
  // Of adapters that differ in their limits, the same plan.
  const gpu = await openGpu({ describe: { ...DEFAULT_DEVICE, family, subgroupSize } });
  gpu.prefer(quickKernels(planTraining(setup, gpu.description).plan));
  const planned = planTraining(setup, gpu.description);
  const trainer = await Trainer.create(gpu, setup, planned);
  trainer.executable.poison();
  const { layout } = setup.trainables;
  const start = new Float32Array(layout.total);
  layout.scatter(
    start,
    new Map(layout.parameters.map(({ name, count }, i) => [name, randomArray(count, i + 1, 0.3)])),
  );
  trainer.setState(start);
  const batch = packBatch([tinySample(33, 30, 1), tinySample(21, 9, 2)], planned.choices.tokens);
  for (let step = 0; step < STEPS; step++) await trainer.step(step, [batch]);
  const metrics = await trainer.collect();
  const { parameters } = await trainer.readState();
  // A broken parameter shows in the very next step.
  trainer.setState(parameters.with(0, NaN));
  await trainer.step(STEPS, [batch]);
  const [broken] = await trainer.collect();
  gpu.check();
  return {
    adapter: gpu.description.name,
    provider: gpu.provider!,
    plan: sha256(planText(planned.plan)),
    losses: metrics.map(({ loss }) => loss),
    gradientNorms: metrics.map(({ gradientNorm }) => gradientNorm),
    parameters: [...parameters],
    ends: endsAt(broken!),
  };
}

if (import.meta.main) {
  const [folder, family] = Deno.args;
  console.log(JSON.stringify(await train(folder!, family as KernelFamily)));
  Deno.exit(0);
}
