/**
 * What can be told of a recipe without running it: whether it is valid, what it needs, and how its data are read. The values are those of
 * `--json` and of HTTP.
 *
 * @module
 */
import { DeviceError } from "../../base/errors.ts";
import { DEFAULT_DEVICE } from "../../gpu/description.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import type { EncodeReport } from "../../text/encode.ts";
import { type Preview, previewDataset } from "../../text/preview.ts";
import { alignmentText } from "../inputs/aligned_teacher.ts";
import { privilegedText } from "../inputs/privileged_teacher.ts";
import type { DataWarning } from "../inputs/data_warnings.ts";
import { type Forecast, forecast } from "./forecast.ts";
import { checkHostMemory, hostMemory } from "./host_memory.ts";
import { runMemory, weightTypes } from "../program/memory.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { type PackingReport, packingReport } from "../inputs/packing_report.ts";
import { drawnSets, encodeOptions } from "../inputs/sample_sets.ts";
import type { OpenedRecipe } from "./open_recipe.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { sampleBytes, teacherTexts } from "../generate/samples.ts";
import { type PayloadSize, payloadSizes } from "../teacher/payload_sizes.ts";
import { cacheOf, passesOf, SERVED, teachersBySample } from "../recipe/teachers.ts";
import { taggedChoice } from "../teacher/choose.ts";
import { samplesOf, setupOf } from "../teacher/teacher_targets.ts";
import { cacheBytes, planTeacherPass } from "../teacher/plan_pass.ts";
import { type ServedCost, servedCosts } from "./served_cost.ts";
import { type StreamCost, streamCost } from "./stream_cost.ts";
import { planTraining, type TrainingSetup } from "../program/plan_training.ts";
import { choicesOf, deviceIdentity, kernelsOf, type TunedDevice } from "../../tune/tuned.ts";

/** What is trained, for `--json`. */
export interface TrainedValue {
  /** Trained values, of all models. */
  readonly parameters: number;
  /** Module paths of the student's layers that have an adapter. */
  readonly adaptedLayers: readonly string[];
  /** What each entry of `student.train` means. */
  readonly tensors: readonly { readonly name: string; readonly tensors: readonly string[] }[];
}

/** What a setup trains. */
export function trainedValue({ adapter, tensors, trainables }: TrainingSetup): TrainedValue {
  return {
    parameters: trainables.layout.trainable,
    adaptedLayers: adapter?.layers.map(({ path }) => path) ?? [],
    tensors: [...tensors?.selection ?? []].map(([name, found]) => ({ name, tensors: found })),
  };
}

/** A held-out set of several, for `--json`. */
export interface SetValue extends EncodeReport {
  readonly name: string;
}

/** A training set of several, for `--json`. */
export interface TrainingSetValue extends SetValue {
  readonly weight: number;
  /** Expected share of the tokens that are drawn, from 0 to 1. */
  readonly share: number;
}

/** A set whose file was looked at only, for `--json`. Its counts are estimated from the rows that were encoded. */
export interface LookedValue {
  readonly field: "train" | "heldOut";
  readonly name: string;
  /** Rows that were encoded, spread over those that were read. */
  readonly encoded: number;
  /** Rows that were read and found to be right. */
  readonly checked: number;
  /** Rows of the whole file. */
  readonly total: number;
  /** Whether they were counted; else they are estimated. */
  readonly isCounted: boolean;
}

function lookedValues({ recipe: { data }, sets }: PreparedRun): { looked?: LookedValue[] } {
  const of = (field: LookedValue["field"]) =>
    sets[field].flatMap(({ name, looked, rows }): LookedValue[] =>
      looked ? [{ field, name, encoded: rows.length, ...looked }] : []
    );
  // Held-out rows that were split off a training file were looked at with it.
  const looked = [...of("train"), ...(data.heldOut === undefined ? [] : of("heldOut"))];
  return looked.length > 0 ? { looked } : {};
}

/** The sets of lists; a file alone has none. */
export interface SetValues {
  readonly trainSets?: readonly TrainingSetValue[];
  readonly heldOutSets?: readonly SetValue[];
}

function setValues({ recipe: { data }, sets }: PreparedRun): SetValues {
  const drawn = sets.train.map(({ weight, report }) =>
    data.mix === "tokens" ? weight : weight * report.tokens / report.samples
  );
  const all = drawn.reduce((sum, tokens) => sum + tokens, 0);
  const train = sets.train.map(({ name, weight, report }, i) => ({
    ...{ name, weight, share: drawn[i]! / all },
    ...report,
  }));
  return {
    ...(train.length > 1 ? { trainSets: train } : {}),
    ...(sets.heldOut.length > 1
      ? { heldOutSets: sets.heldOut.map(({ name, report }) => ({ name, ...report })) }
      : {}),
  };
}

/** A valid recipe. */
export interface Validation extends SetValues {
  readonly valid: true;
  readonly recipe: Recipe;
  readonly train: EncodeReport;
  readonly heldOut: EncodeReport;
  /** How the training samples are packed. */
  readonly packing: PackingReport;
  /** Sets whose files are too large to be read whole here. */
  readonly looked?: readonly LookedValue[];
  readonly trained: TrainedValue;
  /** Of a teacher with a tokenizer of its own: how its tokens and the student's stand for the same texts, in words. */
  readonly alignment?: string;
  /** Of a teacher that is told more than the student: how much, in words. */
  readonly privileged?: string;
  readonly warnings: readonly DataWarning[];
}

/** What is known of a recipe once all that it names is open. */
export function validation({ recipe, prepared, setup, warnings }: OpenedRecipe): Validation {
  const { trainReport: train, heldOutReport: heldOut } = prepared;
  return {
    valid: true,
    recipe,
    train,
    heldOut,
    ...setValues(prepared),
    packing: packingReport(prepared),
    ...lookedValues(prepared),
    trained: trainedValue(setup),
    ...(prepared.aligned ? { alignment: alignmentText({ ...prepared, aligned: prepared.aligned }) } : {}),
    ...(prepared.privileged
      ? { privileged: privilegedText(prepared.privileged, prepared.train.length + prepared.heldOut.length) }
      : {}),
    warnings,
  };
}

/** Samples as training sees them, with how all of them are packed. */
export interface RecipePreview extends Preview {
  readonly packing: PackingReport;
  /** Sets whose files are too large to be read whole here. */
  readonly looked?: readonly LookedValue[];
}

/** Samples as training sees them. */
export function preview(
  { recipe, prepared }: OpenedRecipe,
  heldOut: boolean,
  samples: number,
): RecipePreview {
  const sets = heldOut ? prepared.sets.heldOut : drawnSets(prepared.sets.train);
  const rows = inTurn(sets.map((set) => set.rows));
  const { tokenizer, template } = prepared;
  const options = encodeOptions(recipe.data, { tokenizer, ...(template ? { template } : {}) });
  const encoded = {
    samples: inTurn(sets.map((set) => set.samples)),
    report: heldOut ? prepared.heldOutReport : prepared.trainReport,
  };
  return {
    ...previewDataset(rows, options, samples, encoded),
    packing: packingReport(prepared),
    ...lookedValues(prepared),
  };
}

/** The first row of each list, then the second of each, so that the first few are of all. */
function inTurn<T>(lists: readonly (readonly T[])[]): T[] {
  const longest = Math.max(...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, i) => lists.flatMap((list) => list.slice(i, i + 1))).flat();
}

/** What a run needs. Bytes are exact. */
export interface Estimate extends SetValues {
  /** Name of the GPU adapter that was planned for. */
  readonly adapter: string;
  readonly totalBytes: number;
  /** Bytes on the GPU by category. */
  readonly bytes: Readonly<Record<string, number>>;
  /** Those of weights by the type in which they lie there, such as `{"student weights": {nf4: 2048, f32: 512}}`. */
  readonly weightTypes: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly tokensPerMicroBatch: number;
  readonly headChunk: number;
  /** Whether activations are computed twice to save memory. */
  readonly activationCheckpointing: boolean;
  readonly train: EncodeReport;
  readonly heldOut: EncodeReport;
  readonly trained: TrainedValue;
  readonly steps: number;
  /** Forecast of the time; null where nothing was measured. */
  readonly seconds: Forecast | null;
  /** What the teacher's pass over the data needs before training, where its distribution is kept. */
  readonly teacherPass:
    | { totalBytes: number; bytes: Record<string, number>; cacheBytes: number; bytesPerToken: number }
    | null;
  /** What a server will be asked for, where the teacher is behind one and as if nothing of it were there yet. */
  readonly served: ServedCost | null;
  /** Likewise, of those of several teachers that are behind servers; absent where none is. */
  readonly servedTeachers?: readonly ServedCost[];
  /** What a cache of the teacher would take by its payload; empty where the teacher trains along. */
  readonly payloads: readonly PayloadSize[];
  /** Where the teacher's layers come from disk, in training or in its pass: what reading them takes. */
  readonly stream: StreamCost | null;
  readonly warnings: readonly DataWarning[];
}

/**
 * Plans a whole run without a single buffer. Where there is no GPU, WebGPU's default limits are planned for.
 *
 * @param measure whether to run two steps, for a forecast of the time
 * @param tuned What devices have chosen among kernels, as a run would
 * @throws {DeviceError} it does not fit, with the numbers; or there is no GPU to measure on
 */
export async function estimate(
  opened: OpenedRecipe,
  measure: boolean,
  tuned: readonly TunedDevice[] = [],
): Promise<Estimate> {
  const { recipe, prepared, setup, warnings } = opened;
  const gpu = await openHere(measure);
  try {
    // Kernels differ in the memory that they take beside their operands.
    if (gpu) gpu.prefer(kernelsOf(choicesOf(tuned, deviceIdentity(gpu))));
    const device = gpu?.description ?? DEFAULT_DEVICE;
    const software = gpu?.adapter.info.isFallbackAdapter ?? false;
    const planned = planTraining(setup, device, {
      sampleBytes: (streamed) => sampleBytes(device, prepared, setup, streamed),
      availableBytes: software ? hostMemory() : undefined,
    });
    const memory = runMemory(planned.plan, planned.sampleBytes);
    const { choices } = planned;
    if (software) checkHostMemory(memory, recipe, choices.recompute);
    const texts = cacheOf(setup.recipe.teacher, 0) && teacherTexts(device, prepared, setup);
    const availableBytes = software ? hostMemory() : undefined;
    const passes = passesOf(recipe.teacher).map((i) =>
      planTeacherPass(setupOf(setup, i), device, { choices, texts, availableBytes })
    );
    // One teacher after another: the largest pass is what there must be room for.
    const pass = passes.toSorted((a, b) => b.memory.total - a.memory.total)[0];
    if (pass && software) checkHostMemory(pass.memory, recipe, choices.recompute);
    const kept = keptBytes(setup, prepared);
    const served = servedCosts(opened);
    const reading = planned.streamed ? planned : pass;
    return {
      adapter: device.name,
      totalBytes: memory.total,
      bytes: Object.fromEntries(memory.byCategory),
      weightTypes: weightTypes(planned.plan),
      tokensPerMicroBatch: choices.tokens,
      headChunk: choices.chunkRows,
      activationCheckpointing: choices.recompute,
      train: prepared.trainReport,
      heldOut: prepared.heldOutReport,
      ...setValues(prepared),
      trained: trainedValue(setup),
      steps: recipe.train.steps,
      seconds: measure ? await forecast(gpu!, prepared, setup, planned) : null,
      teacherPass: pass && kept
        ? {
          totalBytes: pass.memory.total,
          bytes: Object.fromEntries(pass.memory.byCategory),
          cacheBytes: kept.total,
          bytesPerToken: kept.row,
        }
        : null,
      served: recipe.teacher.teachers ? null : served[0] ?? null,
      ...(recipe.teacher.teachers && served.length > 0 ? { servedTeachers: served } : {}),
      payloads: recipe.teacher.train || recipe.teacher.model === SERVED ? [] : payloadSizes(setup, prepared),
      stream: reading?.streamed ? await streamCost(reading.streamed, reading.plan) : null,
      warnings,
    };
  } finally {
    gpu?.destroy();
  }
}

/**
 * What caches that a pass makes take: of several teachers all. Where each sample has one of them and nobody knows which, as many rows as
 * there are, of the largest.
 */
function keptBytes(setup: TrainingSetup, prepared: PreparedRun): ReturnType<typeof cacheBytes> {
  const choice = taggedChoice(prepared);
  const all = passesOf(setup.recipe.teacher).map((i) =>
    cacheBytes(setupOf(setup, i), choice ? samplesOf(choice, i, prepared) : prepared)!
  );
  const isOfOne = teachersBySample(setup.recipe.teacher) > 0;
  const largest = Math.max(...all.map(({ row }) => row));
  if (all.length === 0) return undefined;
  if (isOfOne && !choice) return all.find(({ row }) => row === largest);
  const total = all.reduce((sum, kept) => sum + kept.total, 0);
  return { row: isOfOne ? largest : all.reduce((sum, kept) => sum + kept.row, 0), total };
}

/** The GPU that is here; undefined where there is none and none is needed. */
async function openHere(needed: boolean): Promise<Gpu | undefined> {
  try {
    return await openGpu();
  } catch (error) {
    if (!needed && error instanceof DeviceError) return undefined;
    throw error;
  }
}
