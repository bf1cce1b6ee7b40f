/**
 * What a student makes of its own texts, after learning from the data and after learning from its own:
 * `deno run -A bench/on_policy.ts [RECIPE] [--steps 60] [--seeds 1,2,3] [--ratios 0,0.5,1] [--answers 4] [--tokens 100]`.
 *
 * Trains the recipe's student once for each share of own texts; 0 is the same recipe without `train.onPolicy`. Then the student continues
 * the beginnings of the held-out samples, several times each, drawn with a seed that no training uses, and each of its tokens is held
 * against the teacher: the mean reverse KL, over the whole vocabulary, at the tokens that it wrote. Beside it stands what `evaluate`
 * measures on the held-out samples themselves. Seconds are those of the machine as it was.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { builtins } from "../plugins/mod.ts";
import { Generator } from "../src/distill/generate/generator.ts";
import { promptOf } from "../src/distill/generate/rollout_window.ts";
import { Rollouts } from "../src/distill/generate/rollouts.ts";
import { generationBuffers } from "../src/distill/generate/samples.ts";
import { type PreparedRun, prepareRun } from "../src/distill/inputs/prepare.ts";
import { mixtureOf } from "../src/distill/inputs/sample_sets.ts";
import { planTraining } from "../src/distill/program/plan_training.ts";
import { rolloutOptions } from "../src/distill/program/written/rollout_blocks.ts";
import { Trainer } from "../src/distill/program/trainer.ts";
import { loadRecipe } from "../src/distill/recipe/file.ts";
import type { Recipe } from "../src/distill/recipe/recipe.ts";
import { setUp } from "../src/distill/run/set_up.ts";
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import { Registry } from "../src/registry/registry.ts";
import { BatchStream } from "../src/text/batch_stream.ts";
import type { EncodedSample } from "../src/text/encode.ts";

const flags = parseArgs(Deno.args, { string: ["steps", "seeds", "ratios", "answers", "tokens"] });
const numbers = (name: string, fallback: string) => String(flags[name] ?? fallback).split(",").map(Number);
const path = String(flags._[0] ?? "examples/recipes/on-policy.yaml");
const [answers, tokens] = [numbers("answers", "4")[0]!, numbers("tokens", "100")[0]!];
/** Of the texts that are measured. */
const SEED = 20_260_101;

/** What the student writes after the beginnings of held-out samples, as samples of which its own tokens count. */
async function ownTexts(
  gpu: Gpu,
  trainer: Trainer,
  prepared: PreparedRun,
  recipe: Recipe,
): Promise<EncodedSample[]> {
  const { onPolicy } = recipe.train;
  const generator = await Generator.create(
    gpu,
    trainer.setup.student,
    generationBuffers(trainer),
    rolloutOptions({ ...trainer.setup, recipe }),
  );
  const prompts = prepared.heldOut.flatMap((sample) =>
    new Array<Int32Array>(answers).fill(promptOf(sample, onPolicy!.promptTokens))
  );
  const texts = await generator.generate(prompts, {
    ...{ temperature: 1, topK: 0, topP: 1, seed: SEED, maxTokens: tokens, stopTokens: prepared.stopTokens },
  });
  generator.destroy();
  return texts.flatMap((text, i): EncodedSample[] => {
    const ids = Int32Array.from([
      ...prompts[i]!,
      ...text.tokens,
      ...(text.stopToken === undefined ? [] : [text.stopToken]),
    ]);
    const supervised = Uint8Array.from(ids, (_, t) => Number(t >= prompts[i]!.length));
    return ids.length > prompts[i]!.length ? [{ ids, supervised, source: { file: "own", line: i + 1 } }] : [];
  });
}

const gpu = await openGpu();
const written = await loadRecipe(path);
const steps = numbers("steps", String(written.train.steps))[0]!;
console.log(`${path} on ${gpu.description.name}, ${steps} steps`);
console.log(
  "| share | seed | steps | reverse KL of own texts | reverse KL, held-out | forward KL, held-out | loss, held-out | s |",
);
console.log("| --- | --- | --- | --- | --- | --- | --- | --- |");
for (const seed of numbers("seeds", "1,2,3")) {
  for (const ratio of numbers("ratios", "0,0.5,1")) {
    const recipe = structuredClone(written);
    Object.assign(recipe.train, { seed, steps });
    if (ratio > 0) recipe.train.onPolicy!.ratio = ratio;
    else delete recipe.train.onPolicy;
    const prepared = await prepareRun(recipe);
    const setup = setUp(prepared, new Registry().addAll(builtins));
    const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
    trainer.setState((await setup.trainables.initialValues(seed)).trained);
    const rollouts = await Rollouts.open(trainer, prepared.stopTokens);
    const stream = new BatchStream(prepared.train, {
      ...{ tokensPerBatch: trainer.planned.choices.tokens, seed },
      ...mixtureOf(recipe.data, prepared.sets.train),
    });
    const report = async (done: number, seconds: number) => {
      const own = await trainer.evaluate(await ownTexts(gpu, trainer, prepared, written));
      const heldOut = await trainer.evaluate(prepared.heldOut);
      const cells = [
        own.losses["reverse-kl"],
        ...["reverse-kl", "forward-kl", "cross-entropy"].map((name) => heldOut.losses[name]),
      ].map((value) => value!.toFixed(4));
      console.log(`| ${[ratio, seed, done, ...cells, seconds.toFixed(0)].join(" | ")} |`);
    };
    if (ratio === numbers("ratios", "0,0.5,1")[0] && seed === numbers("seeds", "1,2,3")[0]) {
      await report(0, 0);
    }
    const begun = performance.now();
    for (let step = 0; step < steps; step++) {
      if (rollouts?.isDue(step)) await rollouts.write(step, stream);
      const window = Array.from(
        { length: recipe.train.accumulation },
        () => rollouts ? rollouts.next(stream.next()) : stream.next(),
      );
      await trainer.step(step, window);
      if (trainer.mustCollect) await trainer.collect();
    }
    await trainer.collect();
    await report(steps, (performance.now() - begun) / 1000);
    rollouts?.close();
    trainer.destroy();
    prepared.close();
  }
}
Deno.exit(0);
