/**
 * Which of several teachers teaches each sample: the one that its row names, or the one whose cross-entropy on its supervised tokens is
 * least (MinCE of FuseLLM, Wan et al., arXiv 2401.10491; temperature 1, the first where two are equal). Teachers that stay as they are choose
 * the same all run long, so each goes over all samples once, before training, and what it finds is kept in the run's folder.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { dirname, join } from "@std/path";
import { openFile } from "../../formats/files.ts";
import { SafetensorsFile } from "../../formats/safetensors/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors/write.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { canonicalJson } from "../../base/json.ts";
import { system } from "../../base/system.ts";
import { samplesIdentity, sha256 } from "../inputs/identity.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import type { SampleChoice } from "../program/sample_choice.ts";
import type { Recipe } from "../recipe/recipe.ts";
import {
  cacheOf,
  cachesOf,
  keepsPart,
  servedTeachers,
  teachersBySample,
  teachersOf,
} from "../recipe/teachers.ts";
import { type MeasuringSizes, sampleLosses } from "./measure_samples.ts";
import { keptOf } from "./plan_pass.ts";
import { teacherIdentity } from "./served.ts";
import { preparedOf, setupOf } from "./teacher_targets.ts";

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

/** Where a run keeps what its teachers were found to be, and how they are measured. */
export interface ChoosingPlace extends MeasuringSizes {
  readonly path: string;
  /** A folder that runs share, where another may have kept it. */
  readonly shared?: string | undefined;
}

/** The teacher of each sample by the tags of their rows, which have been checked; undefined where rows do not choose. */
export function taggedChoice(
  { recipe: { teacher }, train, heldOut }: Pick<PreparedRun, "recipe" | "train" | "heldOut">,
): SampleChoice | undefined {
  if (teacher.combine !== "tag") return undefined;
  const names = teacher.teachers!.map(({ name }) => name!);
  return new Map([...train, ...heldOut].map((sample) => [sample, names.indexOf(sample.teacher!)]));
}

/**
 * Whether each teacher is measured on its samples before training: to find the best of each; where the program cannot, since of some a part
 * of the distribution alone is kept; and where none of them is in the program.
 */
export function areMeasured({ teacher }: Recipe): boolean {
  const caches = teachersOf(teacher).map((_, i) => cacheOf(teacher, i));
  return teacher.combine === "best" || caches.some(keepsPart) || caches.every((cache) => cache !== undefined);
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
  const tagged = taggedChoice(prepared);
  // Those that are there themselves are measured with the student.
  if (tagged && !areMeasured(setup.recipe)) {
    return { names, choice: tagged, identity: choiceIdentity(samples, tagged), order, isWhole: false };
  }
  const key = await identityOf(prepared, setup, samples, tagged);
  const paths = [place.path, ...(place.shared === undefined ? [] : [sharedPath(place.shared, key)])];
  let losses: Float64Array[] | undefined;
  for (const path of paths) losses ??= await readLosses(path, key, names.length, samples.length);
  if (!losses) {
    losses = await measureAll(gpu, prepared, setup, samples, tagged, place, host);
    await writeLosses(place.path, key, losses);
  }
  const choice = tagged ?? leastChoice(samples, losses);
  const identity = choiceIdentity(samples, choice);
  return { names, choice, identity, losses, order, isWhole: tagged === undefined };
}

/**
 * Likewise, for whoever makes caches ahead of the runs: what is found lies in a folder that runs share.
 *
 * @throws as {@linkcode findTeachers}
 */
export async function findTeachersAhead(
  gpu: Gpu,
  prepared: PreparedRun,
  setup: TrainingSetup,
  place: Omit<ChoosingPlace, "path" | "shared"> & { readonly shared: string },
  host: ChoosingHost,
): Promise<FoundTeachers | undefined> {
  if (teachersBySample(setup.recipe.teacher) === 0) return undefined;
  const tagged = taggedChoice(prepared);
  const key = await identityOf(prepared, setup, [...prepared.train, ...prepared.heldOut], tagged);
  const path = sharedPath(place.shared, key);
  await system.mkdir(dirname(path), { recursive: true });
  return await findTeachers(gpu, prepared, setup, { ...place, path }, host);
}

/**
 * The folder that runs share where what is found of teachers may lie beside their caches: the first that the recipe names, or one that all
 * runs have.
 */
export function sharedFolder(teacher: Recipe["teacher"], otherwise: string | undefined): string | undefined {
  return cachesOf(teacher).flatMap(({ folder }) => folder ?? [])[0] ?? otherwise;
}

/** Where in a folder that runs share the losses of a key lie. */
function sharedPath(folder: string, key: string): string {
  return join(folder, "teachers", `${key.slice(0, 16)}.safetensors`);
}

function choiceIdentity(samples: readonly EncodedSample[], choice: SampleChoice): string {
  return createHash("sha256").update(Uint8Array.from(samples, (sample) => choice.get(sample)!)).digest("hex");
}

/** Everything that the numbers follow from but the device. */
async function identityOf(
  prepared: PreparedRun,
  setup: TrainingSetup,
  samples: readonly EncodedSample[],
  tagged: SampleChoice | undefined,
): Promise<string> {
  const models = await Promise.all(setup.teachers.map((_, i) => teacherIdentity(preparedOf(prepared, i))));
  // Of those behind servers numbers are as what is stored of them.
  const stored = servedTeachers(setup.recipe.teacher).map(({ index }) =>
    keptOf(setupOf(setup, index))!.format
  );
  return sha256(canonicalJson({
    ...{ format: 1, models, samples: samplesIdentity(samples) },
    choice: tagged ? choiceIdentity(samples, tagged) : null,
    ...(stored.length > 0 ? { stored } : {}),
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
  prepared: PreparedRun,
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
      const some = own.map((s) => samples[s]!);
      const sums = await sampleLosses(
        gpu,
        preparedOf(prepared, i),
        setupOf(setup, i),
        some,
        place,
        host.onSlice,
      );
      own.forEach((s, at) => found[s] = sums[at]!);
    }
    all.push(found);
  }
  return all;
}
