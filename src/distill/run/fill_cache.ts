/**
 * Making a run's caches of its teachers ahead of the run.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu } from "../../gpu/device.ts";
import { TunedDevices } from "../../tune/tuned_devices.ts";
import { teacherTexts } from "../generate/samples.ts";
import { headChunks } from "../program/plan_training.ts";
import { openTeacherCache } from "../teacher/make_cache.ts";
import { cacheBytes, planTeacherPass } from "../teacher/plan_pass.ts";
import { preparedOf, samplesOf, setupOf } from "../teacher/teacher_targets.ts";
import { findTeachersAhead, sharedFolder, taggedChoice } from "../teacher/choose.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import type { SampleChoice } from "../program/sample_choice.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { cacheField, cacheOf, cachesOf, passesOf } from "../recipe/teachers.ts";
import { checkHostMemory, hostMemory } from "./host_memory.ts";
import type { OpenedRecipe } from "./open_recipe.ts";
import { streamCost, streamCostText } from "./stream_cost.ts";

/** What is told while a cache is made. */
export interface FillOptions {
  /** Folder of caches where the recipe names none. */
  readonly place?: string | undefined;
  /** Opened where it is absent. */
  readonly gpu?: Gpu;
  /** Where it is opened. */
  readonly devices?: TunedDevices;
  /** Aborting it stops the work; what is finished stays. */
  readonly signal?: AbortSignal;
  /** Samples that have their rows, of all; of one of several teachers with what that is called. */
  readonly onProgress?: (done: number, all: number, teacher?: string) => void;
  /** What is about to be done, in words. */
  readonly onStage?: (message: string) => void;
  /** Called several times a batch. */
  readonly onSlice?: () => void;
  /** Batches that make a shard, at the most. */
  readonly shardBatches?: number;
}

/** A cache that is complete. */
export interface FilledCache {
  /** What the teacher is called; absent where it is the only one. */
  readonly teacher?: string;
  /** Its folder. */
  readonly path: string;
  /** Samples of the run, or those that this one of several teaches, and those that the teacher was run over here or by others meanwhile. */
  readonly samples: number;
  readonly made: number;
  /** Of a position that counts. */
  readonly bytesPerToken: number;
  /** Of the rows of the run's samples, headers left out. */
  readonly cacheBytes: number;
  /** Hash (SHA-256, hex) of the rows of all samples in their order: what a checkpoint of a run keeps. */
  readonly identity: string;
  /** The teacher's cross-entropy on each held-out set, nats a token. */
  readonly heldOut: readonly { readonly name: string; readonly loss: number; readonly tokens: number }[];
  readonly seconds: number;
}

/**
 * Makes what is missing of the caches that a recipe names, of every teacher whose weights are here. Several processes may do so at once: they
 * share the work out. Which of several teachers is best for each sample is found first, and kept where runs look for it; those behind servers
 * have to have been asked.
 *
 * @returns one for each teacher that is run over the data, in the recipe's order; none of teachers without samples
 * @throws {InputError} the recipe wants no cache, or one in the folder of a run; or a damaged one lies there
 */
export async function fillCaches(
  opened: OpenedRecipe,
  { gpu, devices = new TunedDevices(), ...options }: FillOptions = {},
): Promise<FilledCache[]> {
  const { recipe: { teacher }, prepared, setup } = opened;
  const indices = passesOf(teacher);
  for (const i of indices) placeOf(teacher, i, options.place);
  if (cachesOf(teacher).length === 0) {
    throw new InputError("is absent: the recipe keeps nothing of its teacher", {
      where: "recipe teacher.cache",
      hint:
        "Say what is kept, such as teacher.cache: {payload: hidden}, or {payload: hidden, folder: caches} to say where.",
    });
  }
  if (indices.length === 0) return [];
  let own: Gpu | undefined;
  try {
    const device = gpu ?? (own = await devices.open((description, software) =>
      indices.map((i) => {
        const one = { prepared: preparedOf(prepared, i), setup: setupOf(setup, i), isFirst: i === 0 };
        return planTeacherPass(one.setup, description, sizesOn(one, description, software)).plan;
      })
    ));
    const choice = await findChoice(device, opened, options);
    const filled: FilledCache[] = [];
    for (const i of indices) {
      const its = choice ? samplesOf(choice, i, prepared) : prepared;
      if (its.train.length + its.heldOut.length === 0) continue;
      const name = teacher.teachers?.[i]?.name;
      const isFirst = filled.length === 0 && indices.includes(0);
      const one = { prepared: preparedOf(its, i), setup: setupOf(setup, i), isFirst };
      const told = name === undefined ? options : { ...options, ...toldOf(name, options) };
      const made = await fillOne(device, one, placeOf(teacher, i, options.place), told);
      filled.push(name === undefined ? made : { teacher: name, ...made });
    }
    return filled;
  } finally {
    own?.destroy();
  }
}

/** What is told of one of several teachers says which. */
function toldOf(
  name: string,
  { onStage, onProgress }: FillOptions,
): Pick<FillOptions, "onStage" | "onProgress"> {
  return {
    ...(onStage ? { onStage: (message) => onStage(`${name}: ${message}`) } : {}),
    ...(onProgress ? { onProgress: (done, all) => onProgress(done, all, name) } : {}),
  };
}

/** Folder of caches for a teacher. @throws {InputError} there is none */
function placeOf(teacher: Recipe["teacher"], i: number, given: string | undefined): string {
  const place = cacheOf(teacher, i)!.folder ?? given;
  if (place !== undefined) return place;
  throw new InputError("is absent, and no other place for the cache is given", {
    where: `recipe ${cacheField(teacher, i)}.folder`,
    hint: `Name a folder that runs share, such as --set ${cacheField(teacher, i)}.folder=caches.`,
  });
}

/** Which of several teachers each sample has, as a run would find it; undefined where they have none of their own. */
async function findChoice(
  gpu: Gpu,
  { recipe, prepared, setup }: OpenedRecipe,
  { place, signal, onStage, onSlice }: FillOptions,
): Promise<SampleChoice | undefined> {
  // A run measures those that rows choose by itself, on the way.
  if (recipe.teacher.combine !== "best") return taggedChoice(prepared);
  const shared = sharedFolder(recipe.teacher, place)!;
  const software = gpu.adapter.info.isFallbackAdapter;
  const found = await findTeachersAhead(gpu, prepared, setup, {
    ...{ shared, caches: place === undefined ? [] : [place] },
    choices: headChunks(recipe.train, setup.student.config.vocabularySize, gpu.description),
    availableBytes: software ? hostMemory() : undefined,
  }, {
    onSlice() {
      signal?.throwIfAborted();
      onSlice?.();
    },
    onTeacher: (name, samples) => onStage?.(`measuring the teacher ${name} on ${samples} samples`),
  });
  return found!.choice;
}

/** A run with one teacher as its only one. */
interface OneTeacher {
  readonly prepared: PreparedRun;
  readonly setup: TrainingSetup;
  /** Whether it is the first that is run over the data, and writes the sample texts. */
  readonly isFirst: boolean;
}

/** How its pass is made. */
function sizesOn(
  { prepared, setup, isFirst }: OneTeacher,
  description: DeviceDescription,
  software: boolean,
) {
  return {
    choices: headChunks(setup.recipe.train, setup.student.config.vocabularySize, description),
    texts: isFirst ? teacherTexts(description, prepared, setup) : undefined,
    availableBytes: software ? hostMemory() : undefined,
  };
}

async function fillOne(
  device: Gpu,
  one: OneTeacher,
  place: string,
  { signal, onProgress, onStage, onSlice, shardBatches }: FillOptions,
): Promise<FilledCache> {
  const begun = performance.now();
  const { prepared, setup, setup: { recipe } } = one;
  const { description, adapter } = device;
  const software = adapter.info.isFallbackAdapter;
  let made = 0;
  const opened = await openTeacherCache(
    device,
    prepared,
    setup,
    {
      ...sizesOn(one, description, software),
      ...(shardBatches === undefined ? {} : { shardBatches }),
    },
    [place],
    {
      onSlice() {
        signal?.throwIfAborted();
        onSlice?.();
      },
      onFound(path, samples) {
        made = samples;
        onStage?.(
          samples === 0 ? `all rows are there: ${path}` : `running the teacher over ${samples} samples`,
        );
      },
      async onPlanned({ memory, plan, streamed }) {
        if (software) checkHostMemory(memory, recipe, true);
        if (streamed) onStage?.(streamCostText(await streamCost(streamed, plan)));
      },
      ...(onProgress ? { onRows: onProgress } : {}),
    },
  );
  const { cache: filled } = opened!;
  try {
    const { row, total } = cacheBytes(setup, prepared)!;
    return {
      path: filled.path,
      samples: prepared.train.length + prepared.heldOut.length,
      made,
      bytesPerToken: row,
      cacheBytes: total,
      identity: filled.identity,
      // One of several may have no samples of a set.
      heldOut: prepared.sets.heldOut.flatMap(({ name, samples }, i) =>
        samples.length > 0 ? [{ name, ...filled.findings.heldOut[i]! }] : []
      ),
      seconds: (performance.now() - begun) / 1000,
    };
  } finally {
    filled.close();
  }
}
