/**
 * What a run measures of its models: losses on the held-out samples, and texts.
 *
 * @module
 */
import { generationBuffers, textSettings, writeSamples } from "../generate/samples.ts";
import type { Evaluation } from "../objective/monitors.ts";
import type { Trainer } from "../program/trainer.ts";
import type { Learner } from "../recipe/recipe.ts";
import { type Attempt, finite, finiteAll } from "./attempt.ts";

/** Measures the teacher before the first step; of a cached one, tells what the cache says. */
export async function measureTeacher(attempt: Attempt, trainer: Trainer): Promise<void> {
  const known = attempt.cache?.findings.heldOut;
  const teacher = known
    ? { losses: { "cross-entropy": known.loss }, tokens: known.tokens }
    : await trainer.evaluateTeacher(attempt.prepared.heldOut);
  attempt.progress.heldOutTokens = teacher.tokens;
  attempt.progress.teacherLoss = tellEvaluation(attempt, "teacher", 0, teacher);
}

/** Measures the student after so many steps, and a teacher that trains along; remembers the best. Returns the student's cross-entropy. */
export async function evaluate(attempt: Attempt, trainer: Trainer, step: number): Promise<number | null> {
  const { progress, prepared: { heldOut }, setup } = attempt;
  if (setup.teacherAdapter && step > 0) {
    tellEvaluation(attempt, "teacher", step, await trainer.evaluateTeacher(heldOut));
  }
  const loss = tellEvaluation(attempt, "student", step, await trainer.evaluate(heldOut));
  if (loss !== null && step > 0 && loss < (progress.best?.loss ?? Infinity)) progress.best = { loss, step };
  progress.lastLoss = loss;
  return loss;
}

/** Returns the cross-entropy. */
function tellEvaluation(
  { host }: Attempt,
  model: Learner,
  step: number,
  { losses: { "cross-entropy": crossEntropy, ...losses }, tokens }: Evaluation,
): number | null {
  const loss = finite(crossEntropy!);
  host.emit({ type: "evaluation", step, model, loss, losses: finiteAll(losses), tokens });
  return loss;
}

/** Lets a model write what the recipe asks for after so many steps. */
export async function tellSamples(
  attempt: Attempt,
  trainer: Trainer,
  model: Learner,
  step: number,
): Promise<void> {
  if (attempt.recipe.samples.tokens === 0) return;
  attempt.stage("sample", `writing samples of the ${model}`);
  for (const sample of await samplesOf(attempt, trainer, model)) {
    attempt.progress.samples.push({ model, step, ...sample });
    attempt.host.emit({ type: "sample", step, model, ...sample });
  }
}

/** Of a cached teacher those that the cache has, if they were written with the same settings. */
async function samplesOf(
  { cache, gpu, prepared, setup, host }: Attempt,
  trainer: Trainer,
  model: Learner,
): Promise<readonly { prompt: string; text: string }[]> {
  if (model === "student" || !cache) {
    return await writeSamples(gpu, generationBuffers(trainer), prepared, setup, model);
  }
  const { texts } = cache.findings;
  if (texts?.settings === textSettings(prepared)) return texts.samples;
  host.emit({
    type: "warning",
    code: "no_teacher_samples",
    message:
      "the teacher's cache was made with other samples.* settings, so there are no texts of the teacher",
  });
  return [];
}
