/**
 * A step of several shapes beside steps of each shape alone, really cut: `deno run -A bench/one_for_all.ts MODEL [TOKENS] [ROUNDS]`.
 *
 * The shapes are the whole model, two between and one of half its layers. Alone, the whole model learns from the data, and each of the others
 * from the whole one as a frozen teacher. Of that step two times are told: as it is, and less the teacher's pass, as the whole model's hidden
 * states are there in a step of several shapes (the pass has a head too, which such a step has as well, so this one is a bit too low). They
 * take turns, so that whatever else the machine does slows all. `--tiled` runs the kernels for hardware GPUs.
 *
 * @module
 */
import { builtins } from "../plugins/mod.ts";
import { Model } from "../src/distill/inputs/models.ts";
import { openStudent } from "../src/distill/inputs/prepare.ts";
import { planTraining } from "../src/distill/program/plan_training.ts";
import { Trainer } from "../src/distill/program/trainer.ts";
import { parseRecipe } from "../src/distill/recipe/parse.ts";
import type { RecipeInput } from "../src/distill/recipe/recipe.ts";
import { setUp } from "../src/distill/run/set_up.ts";
import { Registry } from "../src/registry/registry.ts";
import { evenlySpaced } from "../src/shape/depth/rules.ts";
import { packBatch } from "../src/text/packing.ts";
import { openForBench } from "./measure.ts";

const [path, tokensGiven = "256", roundsGiven = "5"] = Deno.args.filter((arg) => !arg.startsWith("--"));
if (path === undefined) throw new Error("name a model folder or GGUF file");
const [tokens, rounds] = [Number(tokensGiven), Number(roundsGiven)];
const LENGTH = Math.min(256, tokens);
const registry = new Registry().addAll(builtins);
const gpu = await openForBench();

const { layers, vocabulary } = await outline(path);
const depths = [layers, Math.ceil(0.8 * layers), Math.ceil(0.65 * layers), Math.ceil(layers / 2)];
if (new Set(depths).size < 4) throw new Error(`${layers} layers are too few for four depths`);
const kept = depths.map((depth) => evenlySpaced(layers, depth));
const batch = packBatch(
  Array.from({ length: tokens / LENGTH }, (_, s) => ({
    ids: Int32Array.from({ length: LENGTH }, (_, t) => (s * 7919 + t * 104729) % vocabulary),
    supervised: Uint8Array.from({ length: LENGTH }, (_, t) => Number(t > 0)),
    source: { file: "bench", line: s + 1 },
  })),
  tokens,
);

const together = await trainerOf({ model: "teacher", shapes: { layers: kept.slice(1).map((k) => [...k]) } });
const alone: Trainer[] = [];
for (const [i, own] of kept.entries()) {
  alone.push(await trainerOf({ model: "teacher", ...(i === 0 ? {} : { layers: [...own] }) }, i > 0));
}
const shapes = kept.map((own) => ({ layers: own, width: 0 }));
const steps: (() => Promise<void>)[] = [
  () => together.step(0, [batch], shapes),
  ...alone.map((trainer) => () => trainer.step(0, [batch])),
];
const names = ["four shapes", ...depths.map((depth) => `${depth} layers alone`)];
const times = steps.map((): number[] => []);
for (let round = -1; round < rounds; round++) {
  for (const [i, step] of steps.entries()) {
    const trainer = [together, ...alone][i]!;
    const begun = performance.now();
    await step();
    await trainer.collect();
    if (round >= 0) times[i]!.push(performance.now() - begun);
  }
}
const teacher: number[] = [];
for (let round = -1; round < rounds; round++) {
  const begun = performance.now();
  // What a step with a teacher has beside its own: the teacher's layers.
  await alone[1]!.evaluateTeacher([{
    ids: batch.tokens.subarray(0, LENGTH),
    supervised: new Uint8Array(LENGTH).fill(1),
    source: { file: "bench", line: 1 },
  }]);
  if (round >= 0) teacher.push((performance.now() - begun) * tokens / LENGTH);
}
const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;
const [all, full, ...others] = times.map(median) as [number, number, ...number[]];
const sum = full + others.reduce((total, time) => total + time, 0);
const bare = sum - others.length * median(teacher);
times.forEach((time, i) => console.log(`${names[i]}: ${median(time).toFixed(1)} ms`));
console.log(`the teacher's pass, which a shape alone has beside its own: ${median(teacher).toFixed(1)} ms`);
console.log(
  `four shapes at once take ${(all / sum).toFixed(3)} times the sum of their own steps, ` +
    `${(all / bare).toFixed(3)} times the sum without the teacher's passes`,
);
const bytes = (trainer: Trainer) => trainer.planned.plan.totalBytes;
console.log(`bytes on the GPU: ${bytes(together)}, of the whole model alone ${bytes(alone[0]!)}`);
Deno.exit(0);

async function outline(path: string): Promise<{ layers: number; vocabulary: number }> {
  const model = await Model.open(path, { category: "weights" });
  model.close();
  return { layers: model.config.layers, vocabulary: model.config.vocabularySize };
}

async function trainerOf(student: RecipeInput["student"], distilled = false): Promise<Trainer> {
  const recipe = parseRecipe({
    teacher: { model: path! },
    student,
    data: { train: "bench", contextLength: LENGTH },
    ...(student.shapes ? {} : { objective: [{ loss: distilled ? "soft-cross-entropy" : "cross-entropy" }] }),
    adapter: { type: "shape-gated-lora", rank: 8 },
    train: { steps: 10, tokensPerMicroBatch: tokens },
  });
  const model = await Model.open(recipe.teacher.model, { category: "teacher weights" });
  const setup = setUp({ recipe, teacher: model, student: await openStudent(recipe) }, registry);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  trainer.setState((await setup.trainables.initialValues(1)).trained);
  return trainer;
}
