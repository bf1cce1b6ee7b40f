/**
 * Making a run's cache of its teacher ahead of the run.
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
import { checkHostMemory, hostMemory } from "./host_memory.ts";
import type { OpenedRecipe } from "./open_recipe.ts";
import { streamCost, streamCostText } from "./stream_cost.ts";

/** What is told while a cache is made. */
export interface FillOptions {
  /** Folder of caches where the recipe names none. */
  readonly place?: string;
  /** Opened where it is absent. */
  readonly gpu?: Gpu;
  /** Where it is opened. */
  readonly devices?: TunedDevices;
  /** Aborting it stops the work; what is finished stays. */
  readonly signal?: AbortSignal;
  /** Samples that have their rows, of all. */
  readonly onProgress?: (done: number, all: number) => void;
  /** What is about to be done, in words. */
  readonly onStage?: (message: string) => void;
  /** Called several times a batch. */
  readonly onSlice?: () => void;
  /** Batches that make a shard, at the most. */
  readonly shardBatches?: number;
}

/** A cache that is complete. */
export interface FilledCache {
  /** Its folder. */
  readonly path: string;
  /** Samples of the run, and those that the teacher was run over here or by others meanwhile. */
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
 * Makes what is missing of the cache that a recipe names. Several processes may do so at once: they share the work out.
 *
 * @throws {InputError} the recipe wants no cache, or one in the folder of a run; or a damaged one lies there
 */
export async function fillCache(
  { recipe, prepared, setup }: OpenedRecipe,
  { place: given, gpu, devices = new TunedDevices(), signal, onProgress, onStage, onSlice, shardBatches }:
    FillOptions = {},
): Promise<FilledCache> {
  const begun = performance.now();
  const { cache, teachers } = recipe.teacher;
  if (teachers) {
    throw new InputError(
      "names several teachers, whose caches a run makes when it knows which samples each has",
      {
        where: "recipe teacher.teachers",
        hint: "Start the run; or make the cache of one: --set teacher.model=MODEL without teachers.",
      },
    );
  }
  const place = cache && (cache.folder ?? given);
  if (place === undefined) {
    throw new InputError(
      cache
        ? "is absent, and no other place for the cache is given"
        : "is absent: the recipe keeps nothing of its teacher",
      {
        where: cache ? "recipe teacher.cache.folder" : "recipe teacher.cache",
        hint: cache
          ? "Name a folder that runs share, such as --set teacher.cache.folder=caches."
          : "Say what is kept, such as teacher.cache: {payload: hidden}, or {payload: hidden, folder: caches} to say where.",
      },
    );
  }
  let own: Gpu | undefined;
  try {
    const sizesOn = (description: DeviceDescription, software: boolean) => ({
      choices: headChunks(recipe.train, setup.student.config.vocabularySize, description),
      texts: teacherTexts(description, prepared, setup),
      availableBytes: software ? hostMemory() : undefined,
    });
    const device = gpu ?? (own = await devices.open((description, software) => [
      planTeacherPass(setup, description, sizesOn(description, software)).plan,
    ]));
    const { description, adapter } = device;
    const software = adapter.info.isFallbackAdapter;
    let made = 0;
    const opened = await openTeacherCache(
      device,
      prepared,
      setup,
      {
        ...sizesOn(description, software),
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
        heldOut: prepared.sets.heldOut.map(({ name }, i) => ({ name, ...filled.findings.heldOut[i]! })),
        seconds: (performance.now() - begun) / 1000,
      };
    } finally {
      filled.close();
    }
  } finally {
    own?.destroy();
  }
}
