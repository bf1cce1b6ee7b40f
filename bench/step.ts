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
import { setUp } from "../src/distill/distill.ts";
import { Model } from "../src/distill/models.ts";
import { parseRecipe } from "../src/distill/recipe.ts";
import { planTraining, Trainer } from "../src/distill/trainer.ts";
import { openGpu } from "../src/gpu/device.ts";
import { Registry } from "../src/registry/registry.ts";
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
  const start = new Float32Array(setup.adapter.layout.total);
  setup.adapter.layout.scatter(start, new Map([...stepCase.adapter].map(([name, t]) => [name, t.data])));
  trainer.setState(start);
  return { gpu, trainer, planned };
}

function peakRssBytes(): number {
  const line = /VmHWM:\s+(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"));
  return line ? Number(line[1]) * 1024 : NaN;
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
    const kernels = await trainer.executable.profiler!.report();
    const total = kernels.reduce((sum, k) => sum + k.milliseconds, 0);
    console.log(`${gpu.description.name}: ${name}, ${planned.plan.totalBytes} bytes`);
    console.log("launches      ms  share  GFLOP/s   GB/s  kernel");
    for (const k of kernels) {
      const cells = [
        (k.launches / STEPS).toFixed(0).padStart(8),
        (k.milliseconds / STEPS).toFixed(2).padStart(8),
        (100 * k.milliseconds / total).toFixed(1).padStart(6),
        (k.flops / k.milliseconds / 1e6).toFixed(1).padStart(8),
        (k.bytes / k.milliseconds / 1e6).toFixed(1).padStart(6),
      ];
      console.log(cells.join(" "), "", k.kernel);
    }
    console.log(`${(total / STEPS).toFixed(1)} ms in kernels`);
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
