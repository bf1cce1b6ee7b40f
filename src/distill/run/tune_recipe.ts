/**
 * Letting a device choose its kernels ahead of the runs: all that a recipe's training, and its teachers' passes over the data, would
 * choose among.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import type { ChosenKernel } from "../../tensor/variants.ts";
import { byCost, TRIALS, tuneKernels, type TuneOptions } from "../../tune/tune.ts";
import {
  choicesOf,
  type DeviceIdentity,
  deviceIdentity,
  kernelsOf,
  knownChoices,
  type TunedChoice,
  type TunedDevice,
} from "../../tune/tuned.ts";
import { sampleBytes, teacherTexts } from "../generate/samples.ts";
import { planTraining } from "../program/plan_training.ts";
import { cacheOf, passesOf } from "../recipe/teachers.ts";
import { planTeacherPass } from "../teacher/plan_pass.ts";
import { setupOf } from "../teacher/teacher_targets.ts";
import { hostMemory } from "./host_memory.ts";
import type { OpenedRecipe } from "./open_recipe.ts";

/** A recipe's kernels on a device, for `--json`. */
export interface TunedRecipe {
  readonly device: DeviceIdentity;
  /** Choices of the recipe that were measured, now or before, those first in which most of the time goes. */
  readonly choices: readonly (TunedChoice & { readonly uses: number; readonly measured: "now" | "before" })[];
  /** Choices that were not, and why, by what they are for. */
  readonly left: Readonly<Record<string, string>>;
  /** That measuring took. */
  readonly seconds: number;
  /** Share of the time of all that was measured that the best kernels save, each as often as the plans use it. */
  readonly saved: number;
}

/** How a recipe is tuned. */
export interface TuneRecipeOptions extends TuneOptions {
  /** Measure what was measured before, too; otherwise only where fewer kernels were tried than now may be. */
  readonly again?: boolean;
}

/** All choices among kernels that a recipe's plans make on a device, by what they are for. */
export function choicesOfRecipe(
  { prepared, setup }: OpenedRecipe,
  { description, adapter }: Pick<Gpu, "description" | "adapter">,
): Map<string, ChosenKernel> {
  const availableBytes = adapter.info.isFallbackAdapter ? hostMemory() : undefined;
  const { plan, choices } = planTraining(setup, description, {
    sampleBytes: (streamed) => sampleBytes(description, prepared, setup, streamed),
    availableBytes,
  });
  const texts = cacheOf(setup.recipe.teacher, 0) && teacherTexts(description, prepared, setup);
  const passes = passesOf(setup.recipe.teacher).map((i) =>
    planTeacherPass(setupOf(setup, i), description, { choices, texts, availableBytes }).plan
  );
  return new Map([plan, ...passes].reverse().flatMap(({ kernels }) => [...kernels]));
}

/**
 * Measures what is not known of a recipe's kernels. What is found is handed back, not kept.
 *
 * @param kept What was measured before, on this device and others
 * @throws {DeviceError} the recipe does not fit the device, or the device is lost
 */
export async function tuneRecipe(
  opened: OpenedRecipe,
  gpu: Gpu,
  kept: readonly TunedDevice[],
  { again = false, ...options }: TuneRecipeOptions = {},
): Promise<TunedRecipe> {
  const device = deviceIdentity(gpu);
  const before = choicesOf(kept, device);
  gpu.prefer(kernelsOf(before));
  const all = choicesOfRecipe(opened, gpu);
  const { known, missing } = await knownChoices(gpu, all.values(), before);
  // Of what was measured with a smaller budget, more is tried now.
  const { trials = TRIALS } = options;
  const anew = known.map(({ key, tried }) => ({ choice: all.get(key)!, tried }))
    .filter(({ choice, tried }) => again || tried.length < Math.min(trials, byCost(choice).length));
  const found = await tuneKernels(gpu, [...missing, ...anew.map(({ choice }) => choice)], options);
  const isNew = new Set(found.choices.map(({ key }) => key));
  const told = (measured: "now" | "before") => (choice: TunedChoice) => ({
    ...choice,
    ...{ uses: all.get(choice.key)!.uses, measured },
  });
  const choices = [
    ...found.choices.map(told("now")),
    ...known.filter(({ key }) => !isNew.has(key)).map(told("before")),
  ];
  const seconds = ({ firstSeconds, uses }: typeof choices[number]) => firstSeconds * uses;
  choices.sort((a, b) => seconds(b) - seconds(a));
  const first = choices.reduce((sum, choice) => sum + seconds(choice), 0);
  const best = choices.reduce((sum, { seconds, uses }) => sum + seconds * uses, 0);
  const saved = first > 0 ? 1 - best / first : 0;
  return { device, choices, left: found.left, seconds: found.seconds, saved };
}
