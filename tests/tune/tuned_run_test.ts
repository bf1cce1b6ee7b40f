/** Runs with the kernels that their device chose. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertNotEquals, assertStrictEquals } from "@std/assert";
import { newestState } from "../../src/distill/checkpoint/checkpoint.ts";
import type { RunEventBody, RunTuning } from "../../src/distill/run/events.ts";
import { choicesOfRecipe, tuneRecipe } from "../../src/distill/run/tune_recipe.ts";
import { openRecipe } from "../../src/distill/run/open_recipe.ts";
import { Registry } from "../../src/registry/registry.ts";
import { deviceIdentity, kernelTexts, type TunedChoice, type TunedDevice } from "../../src/tune/tuned.ts";
import { builtins } from "../../plugins/mod.ts";
import { tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { heldMetrics, runHere } from "../distill/tiny_run.ts";
import { freeing, testGpu } from "../tensor/harness.ts";
import { tunedChoice } from "./tuned.ts";

const gpuTest = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name, sanitizeResources: false, sanitizeOps: false, fn });

/** Products of these are what other kernels make. */
const isOther = (key: string) => key.startsWith("matmul NT");

const frozenOf = async (folder: string) => (await newestState(`${folder}/checkpoints`))!.frozen.kernels!;

gpuTest(
  "a run takes the kernels that its device chose, and goes on with them bit for bit",
  () =>
    withTiny(async (files) => {
      const gpu = await testGpu();
      const before = gpu.description.kernels;
      const recipe = tinyRecipe(files, { train: { steps: 4, checkpointEvery: 2, evaluateEvery: 0 } });
      const registry = new Registry().addAll(builtins);
      const choices: TunedChoice[] = [];
      const wanted = new Map<string, string>();
      await openRecipe(recipe, registry, async (opened) => {
        for (const choice of choicesOfRecipe(opened, gpu).values()) {
          const other = choice.candidates.at(1)?.name;
          if (!other || !isOther(choice.key)) continue;
          wanted.set(choice.key, other);
          const text = await kernelTexts(choice, gpu);
          choices.push(tunedChoice(choice.key, { text, kernel: other, first: choice.candidates[0]!.name }));
        }
      });
      assertGreater(wanted.size, 2);
      const stale = tunedChoice("matmul NN 1x1x1 f32", { kernel: "of another version" });
      const device = (own: readonly TunedChoice[]): TunedDevice => ({
        ...{ version: 1, device: deviceIdentity(gpu), choices: [...own] },
      });
      const never = (kept: readonly TunedDevice[]): RunTuning => ({ kept, measure: "never" });
      const tuning = never([device([...choices, stale])]);

      const events: RunEventBody[] = [];
      await runHere(recipe, `${files.folder}/whole`, { tuning }, events);
      const frozen = await frozenOf(`${files.folder}/whole`);
      for (const [key, kernel] of wanted) assertEquals(frozen[key], kernel, key);
      assertEquals(frozen[stale.key], stale.kernel, "another plan of the run may ask for it");
      const told = events.flatMap((event) => event.type === "plan" ? [event.kernels] : []);
      assertEquals(told, [Object.fromEntries(wanted)]);
      // The device is as it was.
      assertStrictEquals(gpu.description.kernels, before);

      // Paused, and resumed when the device has come to know otherwise: what the run began with holds.
      const half = `${files.folder}/half`;
      const halves: RunEventBody[] = [];
      const stop = (step: number) => step >= 2 ? "stop" as const : "run" as const;
      await runHere(recipe, half, { tuning, control: stop }, halves);
      await runHere(recipe, half, { resume: true, tuning: never([]) }, halves);
      assertEquals(await frozenOf(half), frozen);
      const steps = (all: readonly RunEventBody[]) =>
        heldMetrics(all).filter(({ step }) => (step as number) > 0).slice(-4);
      assertEquals(steps(halves), steps(events));
      const adapter = (folder: string) => Deno.readFile(`${folder}/adapter/adapter_model.safetensors`);
      assertEquals(await adapter(half), await adapter(`${files.folder}/whole`));

      // What was measured of other texts is not taken.
      const others = choices.map((choice) => ({ ...choice, text: "of another version" }));
      await runHere(recipe, `${files.folder}/stale`, { tuning: never([device(others)]) });
      const plain = await frozenOf(`${files.folder}/stale`);
      for (const [key, kernel] of wanted) assertNotEquals(plain[key], kernel, key);
    }),
);

gpuTest(
  "a run times what is not known where it is told to, for as long as it may",
  () =>
    withTiny(async (files) => {
      const gpu = await testGpu();
      const recipe = tinyRecipe(files, { train: { steps: 1, evaluateEvery: 0 } });
      const told = async (tuning: RunTuning, name: string) => {
        const events: RunEventBody[] = [];
        await runHere(recipe, `${files.folder}/${name}`, { tuning }, events);
        const [event, ...rest] = events.flatMap((event) => event.type === "tuned" ? [event] : []);
        assertEquals(rest, []);
        return event;
      };
      // On a CPU that plays a GPU it does not pay.
      if (gpu.adapter.info.isFallbackAdapter) {
        assertEquals(await told({ kept: [], measure: "auto" }, "auto"), undefined);
      }
      assertEquals(await told({ kept: [], measure: "never" }, "never"), undefined);
      const event = await told({ kept: [], measure: "always", seconds: 0 }, "always");
      assert(event !== undefined);
      assertEquals(event.device, deviceIdentity(gpu));
      assertGreater(event.choices.length, 0);
      assertGreater(event.left, 0, "no time is enough for one alone");
      assertEquals(event.choices.flatMap(({ tried }) => tried.filter(({ refused }) => refused)), []);
      const frozen = await frozenOf(`${files.folder}/always`);
      for (const { key, kernel } of event.choices) assertEquals(frozen[key], kernel);
    }),
);

gpuTest(
  "a recipe is tuned ahead: what is known is not timed again unless that is asked for",
  () =>
    withTiny(async (files) => {
      const gpu = await testGpu();
      await openRecipe(tinyRecipe(files), new Registry().addAll(builtins), async (opened) => {
        await freeing(gpu, async () => {
          const bounds = { trials: 1, seconds: 0 };
          const first = await tuneRecipe(opened, gpu, [], bounds);
          assertGreater(first.choices.length, 0);
          assert(first.choices.every(({ measured, uses }) => measured === "now" && uses > 0));
          const choices = first.choices.map(({ uses: _, measured: __, ...choice }) => choice);
          const kept: TunedDevice[] = [{ version: 1, device: first.device, choices }];
          const known = new Set(choices.map(({ key }) => key));
          const second = await tuneRecipe(opened, gpu, kept, bounds);
          for (const { key, measured } of second.choices) {
            assertEquals(measured, known.has(key) ? "before" : "now", key);
          }
          const again = await tuneRecipe(opened, gpu, kept, { ...bounds, again: true });
          assert(again.choices.some(({ key, measured }) => measured === "now" && known.has(key)));
          gpu.prefer(undefined);
        });
      });
    }),
);
