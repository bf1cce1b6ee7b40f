/** Runs that learn from the student's own texts. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { newestState } from "../../src/distill/checkpoint/checkpoint.ts";
import { Generator } from "../../src/distill/generate/generator.ts";
import { Rollouts } from "../../src/distill/generate/rollouts.ts";
import { generationBuffers } from "../../src/distill/generate/samples.ts";
import { importanceWeights, lossOfRows } from "../../src/distill/objective/importance.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { rolloutOptions } from "../../src/distill/program/written/rollout_blocks.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { ON_POLICY, type Recipe } from "../../src/distill/recipe/recipe.ts";
import type { WrittenSample } from "../../src/distill/program/written/written_samples.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch } from "../../src/text/packing.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { BatchStream } from "../../src/text/batch_stream.ts";
import { assertWithin, gpuTest, modelTest, relativeError, run } from "../tensor/harness.ts";
import { type TinyFiles, tinyRecipe, tinySample, tinySetup, withTiny } from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

const recipe = (files: TinyFiles, change: Partial<NonNullable<Recipe["train"]["onPolicy"]>> = {}) =>
  tinyRecipe(files, {
    objective: [{ loss: "cross-entropy", weight: 0.2 }, { loss: "reverse-kl", weight: 1 }],
    train: {
      ...{ steps: 6, accumulation: 2, checkpointEvery: 4, evaluateEvery: 0 },
      onPolicy: {
        ...{ every: 3, ratio: 0.6, tokens: 12, promptTokens: 4, together: 3, importance: { max: 1.5 } },
        ...change,
      },
    },
  });

const rolloutsOf = (events: readonly RunEventBody[]) =>
  events.flatMap((e) => e.type === "rollout" ? [{ ...e, seconds: 0 }] : []);

modelTest(
  "a run is the same bit for bit when it is stopped between a rollout and the steps that learn from it",
  () =>
    withTiny(async (files) => {
      const whole: RunEventBody[] = [];
      const result = await runHere(recipe(files), `${files.folder}/whole`, {}, whole);
      assertEquals(rolloutsOf(whole).map(({ step }) => step), [0, 3]);
      assert(rolloutsOf(whole).every((e) => e.answers > 4 && e.tokens > 0 && e.entropy! > 0));
      assert(result.peakBytes.allocated <= result.peakBytes.planned);

      const cut: RunEventBody[] = [];
      const folder = `${files.folder}/cut`;
      await runHere(recipe(files), folder, { control: (step) => step === 5 ? "stop" : "run" }, cut);
      // Steps are done of the window that began with step 3; two batches of it are left.
      const state = await newestState(`${folder}/checkpoints`);
      assertEquals([state!.step, state!.rollouts?.waiting?.length], [5, 2]);
      await runHere(recipe(files), folder, { resume: true }, cut);
      assertEquals(rolloutsOf(cut), rolloutsOf(whole));
      assertEquals(heldMetrics(cut), heldMetrics(whole));
      const adapter = (name: string) =>
        Deno.readFile(`${files.folder}/${name}/adapter/adapter_model.safetensors`);
      assertEquals(await adapter("cut"), await adapter("whole"));
      const last = await newestState(`${folder}/checkpoints`);
      assertEquals(last!.rollouts?.waiting, undefined);
    }),
);

modelTest(
  "a student writes within its training what it writes alone, at any step",
  (gpu) =>
    withTiny(async (files) => {
      const all = recipe(files, { every: 1, ratio: 1, temperature: 0, importance: undefined as never });
      delete all.train.onPolicy!.importance;
      using setup = await tinySetup(all);
      const planned = planTraining(setup, gpu.description);
      assert(planned.plan.bytesByCategory.get("keys and values")! > 0);
      const trainer = await Trainer.create(gpu, setup, planned);
      const rollouts = (await Rollouts.open(trainer, [2]))!;
      trainer.setState((await setup.trainables.initialValues(1)).trained);
      const samples = Array.from({ length: 9 }, (_, i) => tinySample(12 + 2 * i, 6 + i, i + 1));
      const stream = new BatchStream(samples, { tokensPerBatch: planned.choices.tokens, seed: 1 });
      const alone = await Generator.create(gpu, setup.student, generationBuffers(trainer), {
        ...rolloutOptions(setup),
        sequences: 1,
      });
      let answers = 0;
      for (let step = 0; step < 3; step++) {
        await rollouts.write(step, stream);
        const window = Array.from({ length: 2 }, () => rollouts.next(stream.next()));
        for (const { members } of window) {
          for (const { ids, supervised } of members) {
            const start = supervised.indexOf(1);
            const [text] = await alone.generate([ids.subarray(0, start)], {
              ...{
                temperature: 0,
                topK: 0,
                topP: 1,
                seed: 1,
                stopTokens: [2],
                maxTokens: ids.length - start,
              },
            });
            assertEquals([...text!.tokens, ...(text!.finished ? [2] : [])], [...ids.subarray(start)]);
            answers++;
          }
        }
        await trainer.step(step, window);
        await trainer.collect();
      }
      assert(answers > 6, `${answers} answers`);
      alone.destroy();
      rollouts.close();
      trainer.destroy();
    }),
);

modelTest(
  "tokens that have become likelier weigh more in the gradient, up to the bound",
  (gpu) =>
    withTiny(async (files) => {
      using setup = await tinySetup(recipe(files));
      const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
      const start = (await setup.trainables.initialValues(1)).trained;
      // B of an adapter is zero at first, and so is the gradient of A.
      start.forEach((value, i) => start[i] = value === 0 ? 0.01 * (i % 7 - 3) : value);
      const plain: EncodedSample = { ...tinySample(20, 8, 3), origin: ON_POLICY };
      const gradientOf = async (sample: EncodedSample) => {
        trainer.setState(start);
        await trainer.step(0, [packBatch([sample], trainer.planned.choices.tokens)]);
        await trainer.collect();
        return [...(await trainer.readGradients()).values()].flatMap((g) => [...g]);
      };
      const written = (logProbability: number): WrittenSample => ({
        ...plain,
        logProbabilities: new Array(8).fill(logProbability),
      });
      const gradient = await gradientOf(plain);
      assert(gradient.some((g) => Math.abs(g) > 1e-3));
      const much = await gradientOf(written(-60));
      assert(relativeError(much, gradient.map((g) => 1.5 * g)) < 1e-6);
      // All were certain to be drawn: what is left is their probability now.
      const little = await gradientOf(written(0));
      assert(relativeError(little, gradient) > 0.3);
      trainer.destroy();
    }),
);

gpuTest(
  "importance weights are ratios of probabilities, cut off, and 1 where nothing was drawn",
  async (gpu) => {
    const [chunks, chunkRows] = [2, 3];
    const surprise = [0.5, 3, 1, 2, 700, 0];
    const drawn = [-1, -1, 1, -2, -1, 1];
    // Each chunk has its rows of another loss first.
    const values = [9, 9, 9, ...surprise.slice(0, 3), 9, 9, 9, ...surprise.slice(3)];
    const { outputs } = await run(
      gpu,
      [
        { shape: [chunks, 2 * chunkRows], data: Float32Array.from(values) },
        { shape: [6], data: Float32Array.from(drawn) },
      ],
      (_, values, drawn) =>
        importanceWeights(lossOfRows(values!, { names: ["other", "own"] }, "own"), drawn!, 1.5),
    );
    const expected = surprise.map((s, i) => drawn[i]! > 0 ? 1 : Math.min(Math.exp(-s - drawn[i]!), 1.5));
    assertWithin(outputs[0]!, expected, 1e-6);
  },
);
