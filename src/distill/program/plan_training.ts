/**
 * Planning the training of a recipe for an adapter: the program, and the choices that make it fit.
 *
 * @module
 */
import { DeviceError } from "../../base/errors.ts";
import type { DeviceDescription, KernelFamily } from "../../gpu/description.ts";
import { type Plan, plan, type Program } from "../../tensor/plan.ts";
import type { Model } from "../inputs/models.ts";
import type { ModelFeatureLoss } from "../objective/feature_losses.ts";
import { hiddenPrecision } from "../objective/cache.ts";
import type { Objective } from "../objective/objective.ts";
import type { Recipe, SelfRecipe, TeacherMemberRecipe } from "../recipe/recipe.ts";
import { attachOf, headParameters, type Trained } from "../trained/attach.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";
import type { Trainables } from "../trained/trainables.ts";
import type { TrainedTensors } from "../trained/trained_tensors.ts";
import type { AlignedProgram, AlignedSizes } from "./aligned_groups.ts";
import type { AlignedTeacher } from "../inputs/aligned_teacher.ts";
import { type PrivilegedTeacher, tableRows } from "../inputs/privileged_teacher.ts";
import { memoryError, runMemory } from "./memory.ts";
import type { PrivilegedProgram } from "./privileged.ts";
import { traceRollouts } from "./written/rollout_blocks.ts";
import type { OneForAll, TeacherMember, TracedModel } from "./block_models.ts";
import { type StreamedTeacher, streamTeacher, waitingCounts } from "./streamed/streamed_teacher.ts";
import { trainingProgram } from "./training_program.ts";
import { cacheOf, isMoving, keepsPart, teachersBySample } from "../recipe/teachers.ts";

/** What a trainer trains. */
export interface TrainingSetup {
  readonly recipe: Recipe;
  /** The student itself, where it is its own teacher. */
  readonly teacher: Model;
  /** All teachers, in the recipe's order: the first of them is `teacher`. */
  readonly teachers: readonly Model[];
  readonly student: Model;
  /** The student's, if it has one. */
  readonly adapter?: ModelAdapter;
  /** Tensors of the student that are trained themselves. */
  readonly tensors?: TrainedTensors;
  /** The teacher's, where it trains along. */
  readonly teacherAdapter?: ModelAdapter;
  readonly objective: Objective;
  /** The objective's losses over inner values, on these models. */
  readonly features: readonly ModelFeatureLoss[];
  readonly trainables: Trainables;
  /** Where several shapes of the student are trained at once. */
  readonly oneForAll?: OneForAll;
  /** Where the teacher has a tokenizer of its own. */
  readonly aligned?: AlignedTeacher;
  /** Where the teacher is told more than the student. */
  readonly privileged?: PrivilegedTeacher;
}

/** The choices of a plan that change the last digits of results: kept in checkpoints, and followed on resume. */
export interface PlanChoices {
  /** Tokens in a micro-batch, rounded up to whole head chunks. */
  readonly tokens: number;
  readonly chunkRows: number;
  readonly recompute: boolean;
  readonly family: KernelFamily;
  /** Names of the kernels, by what they are for. Absent in earlier checkpoints, whose runs had those that stand first. */
  readonly kernels?: Readonly<Record<string, string>>;
  /** Where the teacher's layers come from disk: how many micro-batches go through each while it is there. */
  readonly streamed?: { readonly waiting: number };
  /** Where the teacher has a tokenizer of its own: the sizes of its stream, and of the groups. */
  readonly aligned?: AlignedSizes;
  /** Where the teacher is told more than the student: how many privileged tokens a micro-batch may have. */
  readonly privileged?: { readonly tokens: number };
}

/** What of a second tokenizer's encodings, or of privileged tokens, goes into a micro-batch. */
export function otherTokens({ aligned, privileged }: PlanChoices): number | undefined {
  return (aligned ?? privileged)?.tokens;
}

/** A training program planned for an adapter. */
export interface PlannedTraining {
  readonly choices: PlanChoices;
  readonly plan: Plan;
  /** The teacher, where its layers come from disk. */
  readonly streamed?: StreamedTeacher;
  /** Bytes that writing samples takes beside the program. */
  readonly sampleBytes: number;
}

/** Bytes of one chunk of logits that the head aims at: large enough for full speed, small beside the rest. */
const HEAD_CHUNK_BYTES = 64 * 2 ** 20;

/** Bytes within which activations are kept rather than recomputed, where the recipe names no limit. */
const DEFAULT_BUDGET = 8 * 2 ** 30;

/** Options of {@linkcode planTraining}. */
export interface PlanningOptions {
  /** Choices to follow exactly, from the checkpoint of a run that is resumed. */
  readonly choices?: PlanChoices;
  /** Bytes that writing samples takes beside the program; they count towards the limit. */
  readonly sampleBytes?: (streamed?: StreamedTeacher) => number;
  /** Bytes that there are for the run, where that is known: a teacher that does not fit comes from disk, layer by layer. */
  readonly availableBytes?: number | undefined;
}

/**
 * Plans the training of a recipe. Pure: needs no GPU.
 *
 * @throws {DeviceError} with the numbers and the knobs if it does not fit
 */
export function planTraining(
  setup: TrainingSetup,
  device: DeviceDescription,
  { choices, sampleBytes = () => 0, availableBytes = Infinity }: PlanningOptions = {},
): PlannedTraining {
  const { recipe } = setup;
  const { family } = device;
  if (choices && choices.family !== family) {
    throw new DeviceError(
      `the run was planned for ${choices.family} kernels, this device (${device.name}) wants ${family}`,
      { hint: "Resume on the device the run began on, or start a new run." },
    );
  }
  const build = (choices: PlanChoices): PlannedTraining => {
    const { kernels = {} } = choices;
    const chosen = { ...device, kernels };
    const streamed = choices.streamed &&
      streamTeacher(setup, choices.tokens, choices.streamed.waiting, chosen);
    const planned = plan(programFor(setup, choices, streamed), chosen);
    const names = [...planned.kernels].map(([key, { chosen }]) => [key, chosen]);
    return {
      choices: { ...choices, kernels: { ...kernels, ...Object.fromEntries(names) } },
      sampleBytes: sampleBytes(streamed),
      plan: planned,
      ...(streamed ? { streamed } : {}),
    };
  };
  if (choices) return build(choices);
  const { tokens, chunkRows } = headChunks(recipe.train, setup.student.config.vocabularySize, device);
  const aligned = setup.aligned && alignedSizes(setup, setup.aligned, tokens, device);
  const privileged = setup.privileged && { tokens: privilegedTokens(setup.privileged, tokens) };
  const allowed = recipe.limits.gpuBytes;
  const fits = ({ plan, sampleBytes }: PlannedTraining, bytes: number) =>
    plan.totalBytes + sampleBytes <= bytes;
  const modes = { auto: [false, true], on: [true], off: [false] }[recipe.train.activationCheckpointing];
  const ways = waysOfTeacher(setup, tokens, device);
  let last: PlannedTraining | undefined;
  for (const streamed of ways) {
    for (const recompute of modes) {
      last = build({
        ...{ tokens, chunkRows, recompute, family, kernels: device.kernels ?? {} },
        ...(streamed ? { streamed } : {}),
        ...(aligned ? { aligned } : {}),
        ...(privileged ? { privileged } : {}),
      });
      if (fits(last, Math.min(allowed ?? DEFAULT_BUDGET, availableBytes))) return last;
    }
    // More than what activations are kept within is no reason to read a teacher again and again.
    if (allowed === undefined && fits(last!, availableBytes)) return last!;
  }
  if (allowed === undefined || fits(last!, allowed)) return last!;
  const memory = runMemory(last!.plan, last!.sampleBytes);
  throw memoryError(memory, { bytes: allowed, name: "limits.gpuBytes" }, recipe, last!.choices.recompute);
}

/** Whether a live teacher may be, and has to be, streamed: in the order in which they are tried. */
function waysOfTeacher(
  { recipe, teacher, objective, aligned, privileged }: TrainingSetup,
  tokens: number,
  device: DeviceDescription,
): PlanChoices["streamed"][] {
  const { stream, train, model, teachers } = recipe.teacher;
  const isAlone = !teachers && model !== "student";
  if (objective.isStored || train || stream === false || aligned || privileged || !isAlone) {
    return [undefined];
  }
  const streamed = waitingCounts(teacher, tokens, recipe.train.accumulation, device);
  return [...(stream ? [] : [undefined]), ...streamed.map((waiting) => ({ waiting }))];
}

/** Rows of the head at a time, and T rounded up to whole chunks; both multiples of 64. */
export function headChunks(
  { tokensPerMicroBatch, headChunk }: Pick<Recipe["train"], "tokensPerMicroBatch" | "headChunk">,
  vocabulary: number,
  device: DeviceDescription,
): { tokens: number; chunkRows: number } {
  const most = Math.min(HEAD_CHUNK_BYTES, device.maxBindingSize) / (vocabulary * 4);
  const wanted = headChunk === "auto" ? most : headChunk;
  const rows = Math.max(64, Math.floor(Math.min(wanted, tokensPerMicroBatch + 63) / 64) * 64);
  const chunks = Math.ceil(tokensPerMicroBatch / rows);
  // Spread evenly, so that the last chunk is not mostly filler.
  const chunkRows = Math.ceil(tokensPerMicroBatch / chunks / 64) * 64;
  return { tokens: chunks * chunkRows, chunkRows };
}

/** More room in the teacher's stream than the mean needs, so that batches whose samples it splits finer are filled too. */
const SPARE = 1.1;

/** Sizes that follow from the data: a micro-batch is full on the student's side, as a rule. */
function alignedSizes(
  { recipe: { train }, student, teacher, objective }: TrainingSetup,
  { data: { longest, ratio } }: AlignedTeacher,
  tokens: number,
  device: DeviceDescription,
): AlignedSizes {
  const wanted = Math.max(longest, Math.ceil(tokens * ratio * SPARE));
  const chunks = (count: number, vocabulary: number) =>
    headChunks({ tokensPerMicroBatch: count, headChunk: train.headChunk }, vocabulary, device);
  const own = chunks(wanted, teacher.config.vocabularySize);
  const widest = Math.max(student.config.vocabularySize, teacher.config.vocabularySize);
  // A group has a token of each side at least, but a row of the student alone.
  const isOfEach = objective.groups.some(({ rows }) => rows === "mapped");
  const groups = chunks(isOfEach ? tokens : Math.min(tokens, own.tokens), widest);
  return { ...own, groups: groups.tokens, groupRows: groups.chunkRows };
}

/** How many privileged tokens go into a micro-batch of so many tokens of the student. */
function privilegedTokens({ longest, ratio }: PrivilegedTeacher, tokens: number): number {
  return Math.ceil(Math.max(longest, tokens * ratio * SPARE) / 64) * 64;
}

/** How a teacher that is told more than the student takes part. */
export function privilegedProgram(
  { recipe: { data }, privileged }: TrainingSetup,
  choices: Pick<PlanChoices, "tokens" | "privileged">,
): PrivilegedProgram | undefined {
  if (!choices.privileged || !privileged) return undefined;
  return {
    tokens: choices.tokens + choices.privileged.tokens,
    positions: tableRows(data, privileged),
  };
}

/** How a teacher with a tokenizer of its own takes part. */
export function alignedProgram(
  { recipe: { data }, aligned }: TrainingSetup,
  sizes: AlignedSizes | undefined,
): AlignedProgram | undefined {
  if (!sizes || !aligned) return undefined;
  const { match, data: { longest, studentFactors, teacherFactors } } = aligned;
  return { ...sizes, match, studentFactors, teacherFactors, positions: teacherPositions(data, longest) };
}

/** Rows of the teacher's rotary table, which writes samples too. */
export function teacherPositions({ contextLength }: Recipe["data"], longest: number): number {
  return Math.max(contextLength, longest);
}

function programFor(
  setup: TrainingSetup,
  { tokens, chunkRows, recompute, aligned, privileged }: PlanChoices,
  streamed: StreamedTeacher | undefined,
): Program {
  const { recipe, objective, features, trainables } = setup;
  const { beta1, beta2, epsilon, clip, weightDecay } = recipe.train;
  const traced = (model: Model, trained: Trained): TracedModel => {
    const attach = attachOf(trained);
    return {
      model,
      ...(attach ? { attach } : {}),
      adaptsHead: trained.adapter?.adaptsHead ?? false,
      headParameters: headParameters(trained),
    };
  };
  const ownTeacher = (self: SelfRecipe | undefined): TracedModel =>
    isMoving(self) ? { ...traced(setup.student, setup), copied: true } : traced(setup.student, {});
  const { teachers, combine } = recipe.teacher;
  const member = ({ name, self, model }: TeacherMemberRecipe, i: number): TeacherMember => {
    const cache = cacheOf(recipe.teacher, i);
    const stored = keepsPart(cache) ? "part" : hiddenPrecision(cache);
    return {
      name: name!,
      ...(model === "student" ? ownTeacher(self) : traced(setup.teachers[i]!, {})),
      ...(stored ? { stored } : {}),
    };
  };
  const members = teachers?.map(member) ?? [];
  const program = trainingProgram({
    models: {
      teacher: recipe.teacher.model === "student"
        ? ownTeacher(recipe.teacher.self)
        : traced(setup.teacher, setup.teacherAdapter ? { adapter: setup.teacherAdapter } : {}),
      student: traced(setup.student, setup),
    },
    positions: tableRows(recipe.data, setup.privileged),
    ...{ tokens, chunkRows, recompute, objective, features, trainables },
    compute: recipe.train.compute === "f16" ? "f16" : undefined,
    ...{ accumulation: recipe.train.accumulation, oneForAll: setup.oneForAll, streamed },
    taught: teachersBySample(recipe.teacher),
    // Where a part of each one's distribution is stored, that stands for all of them.
    ...(members.some(({ stored }) => stored !== "part") ? { several: { combine: combine!, members } } : {}),
    aligned: alignedProgram(setup, aligned),
    privileged: privilegedProgram(setup, { tokens, ...(privileged ? { privileged } : {}) }),
    optimiser: { beta1, beta2, epsilon, clip, weightDecay },
    importance: recipe.train.onPolicy?.importance,
  });
  // Texts are written by kernels for a few rows, which have no need of it.
  program.compute = undefined;
  traceRollouts(program, setup);
  return program;
}
