/**
 * Which of several teachers teaches each sample: the one that its row names, or the one whose cross-entropy on its supervised tokens is
 * least (MinCE of FuseLLM, Wan et al., arXiv 2401.10491; temperature 1, the first where two are equal). Teachers that stay as they are choose
 * the same all run long, so each goes over all samples once, before training, and what it finds is kept in the run's folder.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { openFile } from "../../formats/files.ts";
import { SafetensorsFile } from "../../formats/safetensors/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors/write.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu } from "../../gpu/device.ts";
import { compile } from "../../tensor/executable.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packSequential } from "../../text/packing.ts";
import { InputError } from "../../base/errors.ts";
import { canonicalJson } from "../../base/json.ts";
import { computedIdentity, samplesIdentity, sha256 } from "../inputs/identity.ts";
import { type Model, uploadWeights } from "../inputs/models.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { chunkedLoss } from "../objective/chunked_loss.ts";
import { labelInput, writeBatch } from "../program/metrics/measure.ts";
import type { PlanChoices, TrainingSetup } from "../program/plan_training.ts";
import { type SampleChoice } from "../program/sample_choice.ts";
import { runInSlices } from "../program/slices.ts";
import {
  streamedSide,
  type StreamedTeacher,
  streamTeacher,
  traceStreamedTeacher,
  waitingCounts,
} from "../program/streamed/streamed_teacher.ts";
import { TeacherStream } from "../program/streamed/teacher_stream.ts";
import { headInput, traceModel } from "../program/traced_model.ts";
import { teachersBySample } from "../recipe/teachers.ts";

/** What each of several teachers is found to be on each sample. */
export interface FoundTeachers {
  /** In the recipe's order. */
  readonly names: readonly string[];
  readonly choice: SampleChoice;
  /** Hash of the choice, of training samples and held out. */
  readonly identity: string;
  /** Sums of the cross-entropy over the supervised tokens of each sample, [teacher][sample], nats; absent where none were measured. */
  readonly losses?: readonly Float64Array[];
  /** The samples' places in those. */
  readonly order: ReadonlyMap<EncodedSample, number>;
  /** Whether each teacher was measured on all samples, not on its own alone. */
  readonly isWhole: boolean;
}

/** Cross-entropy of some samples under the teacher that each has: the sum in nats, and the tokens; undefined where none was measured. */
export function lossUnderChosen(
  { choice, losses, order }: FoundTeachers,
  samples: readonly EncodedSample[],
): { loss: number; tokens: number } | undefined {
  if (!losses) return undefined;
  const sum = { loss: 0, tokens: 0 };
  for (const sample of samples) {
    sum.loss += losses[choice.get(sample)!]![order.get(sample)!]!;
    sum.tokens += supervisedTokens(sample);
  }
  return sum;
}

/** What each of several teachers teaches of some samples, in the recipe's order. */
export interface TeacherPart {
  readonly name: string;
  readonly samples: number;
  /** Supervised tokens. */
  readonly tokens: number;
  /** Its mean cross-entropy on them, in nats a token; null where it was not measured, or there are none. */
  readonly loss: number | null;
  /** Its mean cross-entropy on all of the samples; null where it was not measured on all. */
  readonly lossOfAll: number | null;
}

/** The parts of several teachers. */
export function teacherParts(found: FoundTeachers, samples: readonly EncodedSample[]): TeacherPart[] {
  const { names, choice, losses, order, isWhole } = found;
  const tokensOf = (some: readonly EncodedSample[]) => some.reduce((sum, s) => sum + supervisedTokens(s), 0);
  const all = tokensOf(samples);
  return names.map((name, i) => {
    const own = samples.filter((sample) => choice.get(sample) === i);
    const tokens = tokensOf(own);
    const sum = lossUnderChosen(found, own);
    const its = losses?.[i];
    const whole = its ? samples.reduce((sum, sample) => sum + its[order.get(sample)!]!, 0) : 0;
    return {
      ...{ name, samples: own.length, tokens },
      loss: sum && tokens > 0 ? sum.loss / tokens : null,
      lossOfAll: its && isWhole && all > 0 ? whole / all : null,
    };
  });
}

function supervisedTokens({ supervised }: EncodedSample): number {
  // Nothing predicts the first token.
  return supervised.subarray(1).reduce((sum, flag) => sum + flag, 0);
}

/** What a pass tells while it runs. */
export interface ChoosingHost {
  /** Called several times a batch. What it throws ends the pass, and nothing is left behind. */
  onSlice(): void;
  /** Called before a teacher goes over the samples. */
  onTeacher(name: string, samples: number): void;
}

/** Where a run keeps what its teachers were found to be. */
export interface ChoosingPlace {
  readonly path: string;
  readonly choices: Pick<PlanChoices, "tokens" | "chunkRows">;
  /** Bytes that there are on the GPU, where that is known. */
  readonly availableBytes?: number | undefined;
}

/** The teacher of each sample by the tags of their rows, which have been checked. */
function taggedChoice(samples: readonly EncodedSample[], names: readonly string[]): SampleChoice {
  return new Map(samples.map((sample) => [sample, names.indexOf(sample.teacher!)]));
}

/** The teacher of each sample whose mean cross-entropy is least, the first of equal ones; all have one number of tokens. */
export function leastChoice(
  samples: readonly EncodedSample[],
  losses: readonly Float64Array[],
): SampleChoice {
  return new Map(samples.map((sample, s) => {
    let best = 0;
    for (let i = 1; i < losses.length; i++) if (losses[i]![s]! < losses[best]![s]!) best = i;
    return [sample, best];
  }));
}

/**
 * Finds the teacher of each sample, of training and held out; undefined where samples have none of their own.
 *
 * @throws {InputError} if a teacher's logits are not finite
 */
export async function findTeachers(
  gpu: Gpu,
  prepared: PreparedRun,
  setup: TrainingSetup,
  place: ChoosingPlace,
  host: ChoosingHost,
): Promise<FoundTeachers | undefined> {
  const { teacher } = setup.recipe;
  if (teachersBySample(teacher) === 0) return undefined;
  const names = teacher.teachers!.map(({ name }) => name!);
  const samples = [...prepared.train, ...prepared.heldOut];
  const order = new Map(samples.map((sample, s) => [sample, s]));
  const tagged = teacher.combine === "tag" ? taggedChoice(samples, names) : undefined;
  // A teacher that is there itself is measured with the student.
  if (tagged && !teacher.cache) {
    return { names, choice: tagged, identity: choiceIdentity(samples, tagged), order, isWhole: false };
  }
  const key = await identityOf(setup, samples, tagged);
  const known = await readLosses(place.path, key, names.length, samples.length);
  const losses = known ?? await measureAll(gpu, setup, samples, tagged, place, host);
  if (!known) await writeLosses(place.path, key, losses);
  const choice = tagged ?? leastChoice(samples, losses);
  const identity = choiceIdentity(samples, choice);
  return { names, choice, identity, losses, order, isWhole: tagged === undefined };
}

function choiceIdentity(samples: readonly EncodedSample[], choice: SampleChoice): string {
  return createHash("sha256").update(Uint8Array.from(samples, (sample) => choice.get(sample)!)).digest("hex");
}

/** Everything that the numbers follow from but the device. */
async function identityOf(
  { teachers }: TrainingSetup,
  samples: readonly EncodedSample[],
  tagged: SampleChoice | undefined,
): Promise<string> {
  const models = await Promise.all(teachers.map((model) => computedIdentity(model)));
  return sha256(canonicalJson({
    ...{ format: 1, models, samples: samplesIdentity(samples) },
    choice: tagged ? choiceIdentity(samples, tagged) : null,
  }));
}

/** Those of a run's earlier attempt; undefined where there are none, or they are of something else. */
async function readLosses(
  path: string,
  key: string,
  teachers: number,
  samples: number,
): Promise<Float64Array[] | undefined> {
  let file: SafetensorsFile;
  try {
    file = await SafetensorsFile.open(await openFile(path));
  } catch {
    return undefined;
  }
  try {
    const shape = file.tensors.get(LOSSES)?.shape;
    if (file.metadata.get("key") !== key || String(shape) !== String([teachers, samples])) return undefined;
    const all = (await file.readArray(LOSSES)).data as Float64Array;
    return Array.from({ length: teachers }, (_, i) => all.slice(i * samples, (i + 1) * samples));
  } finally {
    file.close();
  }
}

async function writeLosses(path: string, key: string, losses: readonly Float64Array[]): Promise<void> {
  const all = new Float64Array(losses.length * losses[0]!.length);
  losses.forEach((own, i) => all.set(own, i * own.length));
  await writeSafetensors(
    path,
    [{ name: LOSSES, dtype: "F64", shape: [losses.length, losses[0]!.length] }],
    () => all,
    { format: "limbeck teachers 1", key },
  );
}

const LOSSES = "cross-entropy";

/** Each teacher over all samples, or over its own where rows have named them; 0 for the others. */
async function measureAll(
  gpu: Gpu,
  setup: TrainingSetup,
  samples: readonly EncodedSample[],
  tagged: SampleChoice | undefined,
  place: ChoosingPlace,
  host: ChoosingHost,
): Promise<Float64Array[]> {
  const all: Float64Array[] = [];
  for (const [i, { name }] of setup.recipe.teacher.teachers!.entries()) {
    const own = samples.flatMap((sample, s) => (!tagged || tagged.get(sample) === i ? [s] : []));
    host.onTeacher(name!, own.length);
    const found = new Float64Array(samples.length);
    if (own.length > 0) {
      const sums = await measureOne(gpu, setup, setup.teachers[i]!, own.map((s) => samples[s]!), place, host);
      own.forEach((s, at) => found[s] = sums[at]!);
    }
    all.push(found);
  }
  return all;
}

const [BLOCK, ROWS] = ["teacher", "row losses"] as const;

/** Sums over the supervised tokens of each sample. What positions come to is f32 on the GPU, their sums f64. */
async function measureOne(
  gpu: Gpu,
  setup: TrainingSetup,
  model: Model,
  samples: readonly EncodedSample[],
  { choices, availableBytes }: ChoosingPlace,
  { onSlice }: ChoosingHost,
): Promise<number[]> {
  const { plan, streamed } = planOne({ ...setup, teacher: model }, gpu.description, choices, availableBytes);
  const weights = await uploadWeights(gpu, plan, [model], onSlice);
  const opened: { destroy(): void }[] = [...weights.values()];
  let stream: TeacherStream | undefined;
  try {
    const executable = await compile(gpu, plan, { weights, onProgress: onSlice });
    opened.unshift(executable);
    setup.objective.setEvaluationScalars(executable);
    const run = (block: string) => runInSlices(executable, block, onSlice);
    stream = streamed && new TeacherStream(executable, streamed, weights, run, onSlice);
    const found: number[] = [];
    const batches = packSequential(samples, choices.tokens);
    for (const [n, batch] of batches.entries()) {
      const i = n % (stream?.most ?? 1);
      if (i === 0) await stream?.pass(batches.slice(n, n + stream.most));
      writeBatch(executable, batch, setup.objective.masks.mark(batch));
      stream?.select(i);
      await run(BLOCK);
      const losses = (await executable.read([ROWS], BLOCK)).get(ROWS)!.data as Float32Array;
      const sums = batch.members.map(() => 0);
      batch.label.forEach((label, t) => {
        if (label !== IGNORED_LABEL) sums[batch.segment[t]!]! += losses[t]!;
      });
      found.push(...sums);
    }
    checkFinite(found, samples, model);
    return found;
  } finally {
    stream?.close();
    for (const one of opened) one.destroy();
  }
}

function checkFinite(losses: readonly number[], samples: readonly EncodedSample[], { path }: Model): void {
  const bad = losses.findIndex((loss) => !Number.isFinite(loss));
  if (bad < 0) return;
  const { file, line } = samples[bad]!.source;
  throw new InputError("the teacher's logits are not finite numbers here", {
    where: `${file}:${line}`,
    hint: `The weights of ${path} are damaged, or too large for f32: check the model.`,
  });
}

/** With the layers on the GPU, or from disk where the recipe keeps its teachers and one does not fit. */
function planOne(
  setup: TrainingSetup,
  device: DeviceDescription,
  choices: ChoosingPlace["choices"],
  availableBytes = Infinity,
): { plan: Plan; streamed: StreamedTeacher | undefined } {
  const { recipe: { teacher: { cache, stream }, limits }, teacher: model } = setup;
  const isStreamable = cache !== undefined && stream !== false && model !== setup.student;
  const ways = [undefined, ...(isStreamable ? waitingCounts(model, choices.tokens, 1, device) : [])];
  let last: { plan: Plan; streamed: StreamedTeacher | undefined } | undefined;
  for (const waiting of ways) {
    const streamed = waiting === undefined
      ? undefined
      : streamTeacher(setup, choices.tokens, waiting, device);
    last = { plan: plan(programOne(setup, choices, streamed), device), streamed };
    if (last.plan.totalBytes <= Math.min(limits.gpuBytes ?? Infinity, availableBytes)) break;
  }
  return last!;
}

function programOne(
  { recipe, teacher: model, objective }: TrainingSetup,
  { tokens, chunkRows }: ChoosingPlace["choices"],
  streamed: StreamedTeacher | undefined,
): Program {
  const program = new Program();
  const graph = program.block(BLOCK);
  const sizes = { tokens, positions: recipe.data.contextLength };
  if (streamed) traceStreamedTeacher(program, streamed, sizes);
  const learner = streamed
    ? streamedSide(graph, streamed, sizes)
    : headInput(traceModel(graph, "teacher", model, tokens, { length: sizes.positions }), false);
  const losses = objective.rowLosses(objective.crossEntropy, graph);
  const { values } = chunkedLoss(graph, {
    ...{ learner, losses, chunkRows, gradient: false },
    ...labelInput(graph, tokens, losses),
  });
  // One loss: the rows of one chunk follow those of the one before.
  graph.output(ROWS, values);
  return program;
}
