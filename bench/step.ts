/**
 * One optimiser step of LLM-Neo, whole: `deno run -A bench/step.ts stories15M`.
 *
 * Prints what `bench/peers/run.ts` prints for the peers, as one line of JSON: the time of the first step (compilation included), of
 * the others, the loss before and after each of three steps, and peak memory. `--profile` prints time by kernel instead, `--tiled`
 * runs the kernels for hardware GPUs.
 *
 * @module
 */
import { builtins } from "../plugins/mod.ts";
import { setUp } from "../src/distill/run/set_up.ts";
import { Model } from "../src/distill/inputs/models.ts";
import { parseRecipe } from "../src/distill/recipe/parse.ts";
import { Trainer } from "../src/distill/program/trainer.ts";
import { planTraining } from "../src/distill/program/plan_training.ts";
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import { Registry } from "../src/registry/registry.ts";
import { add } from "../src/tensor/ops/combine.ts";
import { linear } from "../src/tensor/ops/matmul.ts";
import { measure } from "./measure.ts";
import { isCaseName, loadCase, SETTINGS, type StepCase } from "./peers/case.ts";

/** Steps that are timed after the first. */
const STEPS = 8;

/** Sets a case up as a training run with constant learning rate. */
export async function caseTrainer(stepCase: StepCase, options: { tiled?: boolean; profile?: boolean } = {}) {
  const recipe = parseRecipe({
    teacher: { model: stepCase.modelFolder },
    student: { model: "teacher", layers: [...stepCase.keptLayers] },
    data: { train: "bench", contextLength: stepCase.segmentLength },
    objective: [
      { loss: "cross-entropy", weight: SETTINGS.crossEntropyWeight },
      { loss: "forward-kl", weight: SETTINGS.forwardKlWeight },
    ],
    adapter: { rank: SETTINGS.rank, alpha: SETTINGS.alpha },
    train: {
      steps: 1000,
      warmup: 0,
      schedule: "constant",
      tokensPerMicroBatch: stepCase.batch.tokens.length,
      learningRate: SETTINGS.learningRate,
      beta1: SETTINGS.beta1,
      beta2: SETTINGS.beta2,
      epsilon: SETTINGS.epsilon,
      weightDecay: SETTINGS.weightDecay,
      clip: SETTINGS.maxNorm,
    },
  });
  const teacher = await Model.open(recipe.teacher.model, { category: "teacher weights" });
  const student = await Model.open(recipe.teacher.model, {
    category: "student weights",
    layers: stepCase.keptLayers,
  });
  const gpu = await openGpu(options.tiled ? { describe: { family: "tiled" } } : {});
  const setup = setUp({ recipe, teacher, student }, new Registry().addAll(builtins));
  const planned = planTraining(setup, gpu.description);
  const trainer = await Trainer.create(gpu, setup, planned, options.profile ? { profile: true } : {});
  const start = new Float32Array(setup.trainables.layout.total);
  setup.trainables.layout.scatter(start, new Map([...stepCase.adapter].map(([name, t]) => [name, t.data])));
  trainer.setState(start);
  return { gpu, trainer, planned };
}

function peakRssBytes(): number {
  const line = /VmHWM:\s+(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"));
  return line ? Number(line[1]) * 1024 : NaN;
}

/** The best rates this device reaches here: a square product of our own, and a sum of two tensors too large for its caches. */
async function measurePeak(gpu: Gpu): Promise<{ gflops: number; gigabytes: number }> {
  const side = 512;
  const product = await measure(
    gpu,
    (g) => linear(g.input("x", [side, side], "f32"), g.weight("w", [side, side], "f32")),
  );
  const rows = 1 << 14;
  const sum = await measure(
    gpu,
    (g) => add(g.input("x", [rows, 1024], "f32"), g.input("y", [rows, 1024], "f32")),
  );
  return { gflops: product.flops / product.best / 1e6, gigabytes: sum.bytes / sum.best / 1e6 };
}

/** Prints a Markdown table of where a step's time goes: what docs/step-cost.md shows. */
async function printProfile(name: string, gpu: Gpu, trainer: Trainer, plannedBytes: number): Promise<void> {
  const kernels = await trainer.executable.profiler!.report();
  const total = kernels.reduce((sum, k) => sum + k.milliseconds, 0);
  const peak = await measurePeak(gpu);
  const dispatches = kernels.reduce((sum, k) => sum + k.launches, 0) / STEPS;
  const flops = kernels.reduce((sum, k) => sum + k.flops, 0) / STEPS;
  const bytes = kernels.reduce((sum, k) => sum + k.bytes, 0) / STEPS;
  console.log(
    `${name} on ${gpu.description.name}: ${dispatches} dispatches, ${(flops / 1e9).toFixed(2)} GFLOP, ${
      (bytes / 1e6).toFixed(0)
    } MB bound, ${(total / STEPS).toFixed(1)} ms in kernels, ${plannedBytes} bytes on the GPU.`,
  );
  console.log(
    `Best rates measured here: ${peak.gflops.toFixed(1)} GFLOP/s, ${peak.gigabytes.toFixed(1)} GB/s.\n`,
  );
  console.log("| kernel | launches | ms | share | GFLOP/s | of the best | GB/s | of the best |");
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const k of kernels) {
    const [gflops, gigabytes] = [k.flops / k.milliseconds / 1e6, k.bytes / k.milliseconds / 1e6];
    const percent = (part: number) => `${(100 * part).toFixed(0)} %`;
    const cells = [
      k.kernel,
      (k.launches / STEPS).toFixed(0),
      (k.milliseconds / STEPS).toFixed(2),
      percent(k.milliseconds / total),
      gflops.toFixed(1),
      percent(gflops / peak.gflops),
      gigabytes.toFixed(1),
      percent(gigabytes / peak.gigabytes),
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
}

if (import.meta.main) {
  const name = Deno.args.find((a) => !a.startsWith("--")) ?? "stories15M";
  if (!isCaseName(name)) throw new Error(`there is no case ${name}`);
  const stepCase = loadCase(name);
  if (!stepCase) Deno.exit(0);
  const profile = Deno.args.includes("--profile");
  const began = performance.now();
  const { gpu, trainer, planned } = await caseTrainer(stepCase, {
    profile,
    tiled: Deno.args.includes("--tiled"),
  });
  const losses: number[] = [];
  const times: number[] = [];
  for (let i = 0; i <= STEPS; i++) {
    const start = i === 0 ? began : performance.now();
    await trainer.step(i, [stepCase.batch]);
    losses.push((await trainer.collect())[0]!.loss);
    times.push(performance.now() - start);
    if (profile && i === 0) {
      await trainer.executable.profiler!.report();
      trainer.executable.profiler!.reset();
    }
  }
  if (profile) {
    await printProfile(name, gpu, trainer, planned.plan.totalBytes);
  } else {
    console.log(JSON.stringify({
      peer: "limbeck",
      case: name,
      firstStepMs: times[0],
      stepMs: times.slice(1),
      losses: losses.slice(0, 4),
      peakRssBytes: peakRssBytes(),
      adapterName: gpu.description.name,
      gpuBytes: gpu.peakBytes,
      plannedBytes: planned.plan.totalBytes,
    }));
  }
  Deno.exit(0);
}
