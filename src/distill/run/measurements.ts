/**
 * What a run measures of its models: losses on the held-out samples, and texts.
 *
 * @module
 */
import { generationBuffers, textSettings, writeSamples } from "../generate/samples.ts";
import { supervisedBytes } from "../../text/alignment/spell.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";
import type { Evaluation } from "../objective/monitors.ts";
import type { Trainer } from "../program/trainer.ts";
import { allShapes, shapeName, shapeParameters } from "../inputs/shape_space.ts";
import type { Learner } from "../recipe/recipe.ts";
import { SERVED } from "../recipe/teachers.ts";
import { cachedEvaluation } from "../teacher/cache.ts";
import { lossUnderChosen } from "../teacher/choose.ts";
import { type Attempt, finite, finiteAll } from "./attempt.ts";
import type { SetEvaluation, ShapesEvent } from "./events.ts";

/** Measures the teacher before the first step; of a cached one, tells what the cache says. */
export async function measureTeacher(attempt: Attempt, trainer: Trainer): Promise<void> {
  const { progress } = attempt;
  const known = attempt.cache?.findings;
  const found = await measureSets(attempt, "teacher", (samples, i) => {
    if (trainer.planned.plan.blocks.has("evaluateTeacher")) return trainer.evaluateTeacher(samples);
    const sum = attempt.found && lossUnderChosen(attempt.found, samples);
    if (!sum) return cachedEvaluation(known!, i);
    return { losses: { "cross-entropy": sum.loss / Math.max(1, sum.tokens) }, tokens: sum.tokens };
  });
  const bits = bitsOf(found);
  if (bits !== undefined) progress.bitsPerByte = { teacher: bits, before: null, last: null };
  progress.heldOutTokens = found[0]!.tokens;
  progress.teacherLoss = tellEvaluation(attempt, "teacher", 0, found);
  const sets = Object.entries(setsOf(attempt, found) ?? {});
  if (sets.length === 0) return;
  progress.sets = Object.fromEntries(
    sets.map(([name, { loss, tokens }]) => [name, { teacher: loss, before: null, last: null, tokens }]),
  );
}

/**
 * Measures the student after so many steps, and a teacher that changes with them; remembers the best, which of several sets the first decides.
 * Returns the student's cross-entropy on that one.
 */
export async function evaluate(attempt: Attempt, trainer: Trainer, step: number): Promise<number | null> {
  const { progress, setup } = attempt;
  const changes = setup.teacherAdapter !== undefined || setup.trainables.copy.total > 0;
  if (changes && step > 0) {
    const found = await measureSets(attempt, "teacher", (samples) => trainer.evaluateTeacher(samples));
    tellEvaluation(attempt, "teacher", step, found);
  }
  const found = await measureSets(attempt, "student", (samples) => trainer.evaluate(samples));
  const loss = tellEvaluation(attempt, "student", step, found);
  if (loss !== null && step > 0 && loss < (progress.best?.loss ?? Infinity)) progress.best = { loss, step };
  progress.lastLoss = loss;
  if (progress.bitsPerByte) {
    progress.bitsPerByte.last = bitsOf(found) ?? null;
    if (step === 0) progress.bitsPerByte.before = progress.bitsPerByte.last;
  }
  for (const [name, { loss }] of Object.entries(setsOf(attempt, found) ?? {})) {
    const known = progress.sets?.[name];
    if (!known) continue;
    known.last = loss;
    if (step === 0) known.before = loss;
  }
  return loss;
}

/** What `measure` finds of each held-out set, in their order. */
async function measureSets(
  { prepared: { sets, aligned, tokenizer } }: Attempt,
  model: Learner,
  measure: (samples: readonly EncodedSample[], i: number) => Evaluation | Promise<Evaluation>,
): Promise<Evaluation[]> {
  const found: Evaluation[] = [];
  for (const [i, { samples }] of sets.heldOut.entries()) {
    const evaluation = await measure(samples, i);
    if (!aligned) found.push(evaluation);
    else if (model === "student") found.push(withBits(evaluation, tokenizer, samples));
    else found.push(withBits(evaluation, aligned.tokenizer, samples.flatMap(({ other }) => other ?? [])));
  }
  return found;
}

/** The key of the cross-entropy in bits a byte of the text, which compares across tokenizers. */
const BITS = "bits-per-byte";

/** Adds it: of all targets together, over the bytes that they stand for. */
function withBits(
  { losses, tokens }: Evaluation,
  tokenizer: TextTokenizer,
  samples: readonly { readonly ids: Int32Array; readonly supervised: Uint8Array }[],
): Evaluation {
  const bytes = samples.reduce((sum, sample) => sum + supervisedBytes(tokenizer, sample), 0);
  const bits = losses["cross-entropy"]! * tokens / Math.LN2 / bytes;
  return { losses: { ...losses, [BITS]: bits }, tokens };
}

function bitsOf([first]: readonly Evaluation[]): number | null | undefined {
  const bits = first?.losses[BITS];
  return bits === undefined ? undefined : finite(bits);
}

/** Each of several held-out sets by its name; undefined where there is one. */
function setsOf({ prepared: { sets } }: Attempt, found: readonly Evaluation[]) {
  if (found.length < 2) return undefined;
  return Object.fromEntries(
    found.map((evaluation, i) => [sets.heldOut[i]!.name, toldEvaluation(evaluation)]),
  );
}

function toldEvaluation(
  { losses: { "cross-entropy": crossEntropy, ...losses }, tokens }: Evaluation,
): SetEvaluation {
  return { loss: finite(crossEntropy!), losses: finiteAll(losses), tokens };
}

/** Measures every shape of the student, where several are trained at once, on the first held-out set. */
export async function measureShapes(attempt: Attempt, trainer: Trainer, step: number): Promise<void> {
  const { host, prepared: { sets }, setup: { oneForAll, student } } = attempt;
  if (!oneForAll) return;
  const { space } = oneForAll;
  attempt.stage("shapes", "measuring every shape on the held-out samples");
  const shapes: ShapesEvent["shapes"] = [];
  for (const shape of allShapes(space)) {
    const begun = performance.now();
    const { losses, tokens } = await trainer.evaluate(sets.heldOut[0]!.samples, shape);
    const seconds = (performance.now() - begun) / 1000;
    shapes.push({
      name: shapeName(shape, space),
      layers: [...shape.layers],
      width: space.widths[shape.width]!.share,
      parameters: shapeParameters(student.architecture, shape, space),
      loss: finite(losses["cross-entropy"]!),
      tokensPerSecond: shape.width === 0 ? tokens / seconds : null,
    });
  }
  host.emit({ type: "shapes", step, shapes });
}

/** Returns the cross-entropy on the first set. */
function tellEvaluation(
  attempt: Attempt,
  model: Learner,
  step: number,
  found: readonly Evaluation[],
): number | null {
  const sets = setsOf(attempt, found);
  const first = toldEvaluation(found[0]!);
  attempt.host.emit({ type: "evaluation", step, model, ...first, ...(sets ? { sets } : {}) });
  return first.loss;
}

/** Lets a model write what the recipe asks for after so many steps. */
export async function tellSamples(
  attempt: Attempt,
  trainer: Trainer,
  model: Learner,
  step: number,
): Promise<void> {
  const { samples, teacher } = attempt.recipe;
  if (samples.tokens === 0 || (model === "teacher" && teacher.model === SERVED)) return;
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
    const source = trainer.streamed?.source;
    return await writeSamples(gpu, generationBuffers(trainer), prepared, setup, model, source);
  }
  const { texts } = cache.findings;
  if (texts?.settings === textSettings(prepared)) return texts.samples;
  host.emit({
    type: "warning",
    code: "no_teacher_samples",
    message: "the teacher's cache has no texts of it with these samples.* settings: it was made with others",
  });
  return [];
}
