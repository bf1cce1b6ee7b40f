/**
 * Which kernels a run computes with, where there are several: those of its checkpoint; else those that the device has chosen before, or
 * chooses now.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import type { ChosenKernel } from "../../tensor/variants.ts";
import { choicesOf, deviceIdentity, kernelsOf, knownChoices } from "../../tune/tuned.ts";
import { RUN_BUDGET, tuneKernels, type TuneProgress, type Tuning } from "../../tune/tune.ts";
import type { PlanChoices, PlannedTraining } from "../program/plan_training.ts";
import type { Attempt } from "./attempt.ts";
import type { RunTuning } from "./events.ts";

/** Bytes that trials may take where the recipe does not say what there is. */
const TRIAL_BYTES = 2 * 2 ** 30;

/** How often to tell how far the trials are, milliseconds. */
const TELL_MS = 3000;

/**
 * Plans a run with the kernels that it is to use, which all that is planned on the device from then on uses too.
 *
 * @param frozen Choices of the checkpoint that the run continues from: nothing is measured then
 * @param availableBytes What there is for the run, where that is known
 * @param plan Plans for the device as it is at that moment
 */
export async function planWithKernels(
  attempt: Attempt,
  frozen: PlanChoices | undefined,
  availableBytes: number | undefined,
  plan: () => PlannedTraining,
): Promise<PlannedTraining> {
  const { gpu } = attempt;
  if (frozen) {
    gpu.prefer(frozen.kernels);
    return plan();
  }
  const planned = await planByDevice(attempt, availableBytes, plan);
  // As when it is resumed: a pass of the teacher may have shapes of a class for which training has settled on a kernel.
  gpu.prefer(planned.choices.kernels);
  return planned;
}

/** Plans with what the device has chosen before, and with what it chooses now, where it may. */
async function planByDevice(
  attempt: Attempt,
  availableBytes: number | undefined,
  plan: () => PlannedTraining,
): Promise<PlannedTraining> {
  const { gpu, host: { tuning, resume } } = attempt;
  if (!tuning) return plan();
  const kept = choicesOf(tuning.kept, deviceIdentity(gpu));
  gpu.prefer(kernelsOf(kept));
  const planned = plan();
  const choices = [...planned.plan.kernels.values()];
  const { known, missing } = await knownChoices(gpu, choices, kept);
  const wanted: Record<string, string> = { ...kernelsOf(kept), ...kernelsOf(known) };
  // What was measured of other texts says nothing of these.
  for (const { key } of missing) delete wanted[key];
  if (missing.length > 0 && !resume && measures(gpu, tuning)) {
    const limits = [attempt.recipe.limits.gpuBytes, availableBytes].map((bytes) => bytes ?? TRIAL_BYTES);
    const found = await tune(attempt, missing, Math.min(TRIAL_BYTES, ...limits));
    Object.assign(wanted, kernelsOf(found.choices));
  }
  gpu.prefer(wanted);
  const isAsPlanned = choices.every(({ key, chosen, candidates }) =>
    chosen === (wanted[key] ?? candidates[0]!.name)
  );
  return isAsPlanned ? planned : plan();
}

function measures(gpu: Gpu, { measure }: RunTuning): boolean {
  return measure === "always" || (measure === "auto" && !gpu.adapter.info.isFallbackAdapter);
}

async function tune(
  attempt: Attempt,
  missing: readonly ChosenKernel[],
  bytes: number,
): Promise<Tuning> {
  const { gpu, host } = attempt;
  const seconds = host.tuning?.seconds ?? RUN_BUDGET.seconds;
  attempt.stage(
    TUNING,
    `timing kernels for ${missing.length} kinds of work that this device has not done before, for about ${seconds} s at most`,
  );
  let told = performance.now();
  const onProgress = ({ done, total, key }: TuneProgress) => {
    host.emit({ type: "heartbeat" });
    if (performance.now() - told < TELL_MS) return;
    told = performance.now();
    attempt.stage(TUNING, `${done} of ${total} kernels: ${key}`);
  };
  const found = await tuneKernels(gpu, missing, {
    ...{ ...RUN_BUDGET, seconds, bytes, onProgress },
    stopped: () => attempt.stopAsked(),
  });
  gpu.forgetPeak();
  const left = Object.keys(found.left).length;
  host.emit({
    ...{ type: "tuned", device: deviceIdentity(gpu) },
    ...{ choices: [...found.choices], left, seconds: found.seconds },
  });
  return found;
}

/** The stage in which kernels are timed. */
export const TUNING = "tune";
