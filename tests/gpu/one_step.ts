/**
 * Trains a tiny model for a few steps and prints what came of it as a line of JSON: a program of its own, so that each implementation of
 * WebGPU has a process. Run with the folder of the model, and the family of kernels.
 *
 * @module
 */
import { sha256 } from "../../src/distill/inputs/identity.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
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
}

const STEPS = 3;

function planText({ blocks, buffers, storages, sizeWords }: Plan): string {
  const plain = (_: string, value: unknown) =>
    value instanceof Map ? [...value] : value instanceof Set ? [...value] : value;
  return JSON.stringify([blocks, buffers, storages, [...sizeWords]], plain);
}

async function train(folder: string, family: KernelFamily): Promise<OneStep> {
  const files = { folder, teacher: `${folder}/teacher`, train: "train.jsonl", heldOut: "heldout.jsonl" };
  const recipe = tinyRecipe(files, { objective: [{ loss: "forward-kl", temperature: 2 }] });
  using setup = await tinySetup(recipe);
  const subgroupSize = family === "subgroup8" ? 8 : 0;
  // Of adapters that differ in their limits, the same plan.
  const gpu = await openGpu({ describe: { ...DEFAULT_DEVICE, family, subgroupSize } });
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
  gpu.check();
  return {
    adapter: gpu.description.name,
    provider: gpu.provider!,
    plan: sha256(planText(planned.plan)),
    losses: metrics.map(({ loss }) => loss),
    gradientNorms: metrics.map(({ gradientNorm }) => gradientNorm),
    parameters: [...parameters],
  };
}

if (import.meta.main) {
  const [folder, family] = Deno.args;
  console.log(JSON.stringify(await train(folder!, family as KernelFamily)));
  Deno.exit(0);
}
