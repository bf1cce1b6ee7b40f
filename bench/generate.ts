/**
 * Tokens a second of batched generation, and what a rollout costs beside a training step:
 * `deno run -A bench/generate.ts [MODEL] [--batch 1,4,16] [--tokens 256] [--prompt 12] [--temperature 1] [--steps 6]`.
 *
 * Each of B rows writes so many tokens after a prompt, none of which ends it. Then a training step of LLM-Neo is timed whose teacher is the
 * model and whose student is every other layer of it, with one micro-batch of 256 tokens; and the time in which that student writes as many
 * tokens in all, and in which each row writes as many. Seconds are those of the machine as it was.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { builtins } from "../plugins/mod.ts";
import { generationPlan, Generator } from "../src/distill/generate/generator.ts";
import { generationBuffers } from "../src/distill/generate/samples.ts";
import { Model, uploadWeights } from "../src/distill/inputs/models.ts";
import { Trainer } from "../src/distill/program/trainer.ts";
import { planTraining } from "../src/distill/program/plan_training.ts";
import { parseRecipe } from "../src/distill/recipe/parse.ts";
import { setUp } from "../src/distill/run/set_up.ts";
import { attachOf } from "../src/distill/trained/attach.ts";
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import { Registry } from "../src/registry/registry.ts";
import { packBatch } from "../src/text/packing.ts";

/** Tokens of a micro-batch of the step that rollouts are compared with. */
const STEP_TOKENS = 256;

/** Prompts of random tokens. */
function promptsOf(count: number, length: number, vocabulary: number): Int32Array[] {
  return Array.from(
    { length: count },
    (_, i) => Int32Array.from({ length }, (_, t) => 3 + (7919 * (i * length + t)) % (vocabulary - 3)),
  );
}

/** Seconds in which each prompt is continued by so many tokens; kernels have run before. */
async function timed(
  gpu: Gpu,
  generator: Generator,
  prompts: readonly Int32Array[],
  tokens: number,
  temperature: number,
): Promise<number> {
  const sampling = { temperature, topK: 0, topP: 1, seed: 1, stopTokens: [] };
  await generator.generate(prompts, { ...sampling, maxTokens: 2 });
  await gpu.idle();
  const begin = performance.now();
  await generator.generate(prompts, { ...sampling, maxTokens: tokens });
  return (performance.now() - begin) / 1000;
}

const flags = parseArgs(Deno.args, { string: ["batch", "tokens", "prompt", "temperature", "steps"] });
const path = String(flags._[0] ?? "examples/stories/stories15M-q8_0.gguf");
const batches = String(flags.batch ?? "1,4,16").split(",").map(Number);
const tokens = Number(flags.tokens ?? 256);
const promptLength = Number(flags.prompt ?? 12);
const temperature = Number(flags.temperature ?? 1);
const length = promptLength + tokens;

const gpu = await openGpu();
const model = await Model.open(path, { category: "weights" });
console.log(`${path} on ${gpu.description.name}, ${tokens} tokens after ${promptLength}`);
const planOf = (sequences: number) => generationPlan(gpu.description, model, { sequences, length });
const weights = await uploadWeights(gpu, planOf(1), [model]);
for (const sequences of batches) {
  const generator = await Generator.create(gpu, model, weights, { sequences, length });
  const prompts = promptsOf(sequences, promptLength, model.config.vocabularySize);
  const seconds = await timed(gpu, generator, prompts, tokens, temperature);
  console.log(
    `B = ${String(sequences).padStart(2)}: ${
      (sequences * tokens / seconds).toFixed(1).padStart(7)
    } tokens/s, ${(1000 * seconds / tokens).toFixed(1)} ms a pass`,
  );
  generator.destroy();
}
for (const buffer of weights.values()) buffer.destroy();

const layers = Array.from({ length: Math.ceil(model.config.layers / 2) }, (_, i) => 2 * i);
const recipe = parseRecipe({
  teacher: { model: path },
  student: { model: "teacher", layers },
  data: { train: "bench", contextLength: Math.max(STEP_TOKENS, length) },
  train: { tokensPerMicroBatch: Math.max(STEP_TOKENS, length), steps: 100, warmup: 0 },
});
const student = await Model.open(path, { category: "student weights", layers });
const setup = setUp({ recipe, teacher: model, student }, new Registry().addAll(builtins));
const planned = planTraining(setup, gpu.description);
const trainer = await Trainer.create(gpu, setup, planned);
trainer.setState((await setup.trainables.initialValues(1)).trained);
const ids = promptsOf(1, STEP_TOKENS, model.config.vocabularySize)[0]!;
const sample = { ids, supervised: ids.map((_, t) => Number(t > 0)), source: { file: "bench", line: 1 } };
const batch = packBatch(
  [{ ...sample, supervised: Uint8Array.from(sample.supervised) }],
  planned.choices.tokens,
);
const times: number[] = [];
for (let step = 0; step < Number(flags.steps ?? 6); step++) {
  const begin = performance.now();
  await trainer.step(step, [batch]);
  await trainer.collect();
  if (step > 0) times.push((performance.now() - begin) / 1000);
}
const stepSeconds = times.sort((a, b) => a - b)[times.length >> 1]!;
console.log(`a step of one micro-batch of ${planned.choices.tokens} tokens: ${stepSeconds.toFixed(3)} s`);
const attach = attachOf(setup)!;
const shared = {
  length: recipe.data.contextLength,
  attach: (graph: Parameters<typeof attach>[0], prompt: Parameters<typeof attach>[3]) =>
    attach(graph, (name) => setup.trainables.view(graph, name), false, prompt),
};
for (const sequences of batches) {
  const generator = await Generator.create(gpu, student, generationBuffers(trainer), {
    ...shared,
    sequences,
  });
  const prompts = promptsOf(sequences, promptLength, model.config.vocabularySize);
  const inAll = Math.ceil(STEP_TOKENS / sequences);
  const [all, each] = [
    await timed(gpu, generator, prompts, inAll, temperature),
    await timed(gpu, generator, prompts, tokens, temperature),
  ];
  console.log(
    `B = ${String(sequences).padStart(2)}: ${sequences * inAll} tokens in all cost ${
      (all / stepSeconds).toFixed(2)
    } steps, ${tokens} a row ${(each / stepSeconds).toFixed(2)} steps`,
  );
  generator.destroy();
}
trainer.destroy();
student.close();
model.close();
Deno.exit(0);
