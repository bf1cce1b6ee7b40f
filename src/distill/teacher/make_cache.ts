/**
 * Making a cache: what of it is missing is found, shared out among the processes that want it, and the teacher is run over the rest. When
 * that is over, nothing of the teacher is left on the GPU.
 *
 * @module
 */
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { exists } from "../../formats/files.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { samplesIdentity, sha256 } from "../inputs/identity.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import {
  type MeasuredSet,
  openCache,
  TeacherCache,
  type TeacherFindings,
  type WrittenTexts,
} from "./cache.ts";
import { CacheFolder } from "./cache_folder.ts";
import { CacheWriter } from "./cache_writer.ts";
import { earlierSamples, openEarlierCache } from "./earlier_cache.ts";
import { cacheKey, type CacheOrigin, cachePath, type SampleKey, sampleKeys } from "./origin.ts";
import { measuredSet, sequentialBatches, TeacherPass } from "./pass.ts";
import { keepsHidden } from "./payload.ts";
import { missingAnswers, teacherIdentity } from "./served.ts";
import type { LayerSource } from "../program/streamed/streamed_layers.ts";
import { keptOf, type PassSizes, type PlannedPass, planTeacherPass } from "./plan_pass.ts";

/** The sample texts that the teacher writes in its pass, since nothing of it is left afterwards. */
export interface TeacherTexts {
  /** Hash of what decides them. */
  readonly settings: string;
  /** Bytes on the GPU that writing them takes beside the weights, and beside the buffers that layers from disk come through. */
  bytes(streamed?: LayerSource): number;
  /** Writes them with the teacher's weights, by the name of their storage. */
  write(
    gpu: Gpu,
    weights: ReadonlyMap<string, GpuBuffer>,
    streamed?: LayerSource,
  ): Promise<{ prompt: string; text: string }[]>;
}

/** What the making of a cache tells. */
export interface CacheHost {
  /** Called several times a batch, and while others are waited for. What it throws ends the work; what is finished stays. */
  onSlice(): void;
  /** Called once: where the cache lies, and how many samples the teacher has to be run over; 0 where all is there. */
  onFound(path: string, samples: number): void;
  /** Called before anything is made on the GPU. What it throws ends the work. */
  onPlanned(planned: PlannedPass): void | Promise<void>;
  /** Called batch by batch as rows are made: samples that have theirs, of all. */
  onRows?(done: number, all: number): void;
}

/** How it is made. */
export interface CacheSizes extends PassSizes {
  readonly texts: TeacherTexts | undefined;
  /**
   * Whether what the teacher is on held-out sets belongs to it; it does when absent. Of one of several that a server was asked about, what
   * they are together is measured instead.
   */
  readonly isMeasured?: boolean;
  /** Batches that make a shard; what their rows take in memory bounds it too. */
  readonly shardBatches?: number;
}

/** Batches of a shard, and the bytes of their rows, at the most: what a kill can cost, against the number of files. */
const [SHARD_BATCHES, SHARD_BYTES] = [32, 8 * 2 ** 20];

/** How long to wait before looking again how far others are, milliseconds. */
const WAIT_MS = 250;

/** What a run wants of its teacher's cache, and where that lies. */
export interface WantedCache {
  readonly origin: CacheOrigin;
  /** Folder of caches. */
  readonly place: string;
  /** Of all samples, those for training first. */
  readonly keys: Map<EncodedSample, SampleKey>;
}

/**
 * What a run wants.
 *
 * @param places Folders of caches where the recipe names none: the run's own, then those that it may share. The first that has the cache
 * serves, or else its own
 * @returns undefined where its recipe wants no cache
 */
export async function wantedCache(
  prepared: PreparedRun,
  setup: TrainingSetup,
  places: readonly string[],
): Promise<WantedCache | undefined> {
  const kept = keptOf(setup);
  if (!kept) return undefined;
  const { tokenizer, template } = prepared;
  const drawn = !keepsHidden(kept.format) && kept.format.target.kind === "samples";
  const origin: CacheOrigin = {
    teacher: await teacherIdentity(prepared),
    tokenizer: tokenizer.fingerprint(),
    template: template ? sha256(template.source) : null,
    format: kept.format,
    seed: drawn ? kept.cache.seed : null,
  };
  return {
    origin,
    place: kept.cache.folder ?? await firstWith(cacheKey(origin), places),
    keys: sampleKeys([...prepared.train, ...prepared.heldOut], setup.objective.masks),
  };
}

async function firstWith(key: string, places: readonly string[]): Promise<string> {
  for (const place of places) if (await exists(cachePath(place, key))) return place;
  return places[0]!;
}

/**
 * Opens the run's cache; what is missing of it is made.
 *
 * @param places As of {@linkcode wantedCache}
 * @param sizes With what the teacher is to write, if anything
 * @returns the cache, and the bytes on the GPU that the pass was planned with; 0 where there was none
 * @throws {InputError} if a cache of this key is damaged, or what the teacher gives is not finite
 */
export async function openTeacherCache(
  gpu: Gpu,
  prepared: PreparedRun,
  setup: TrainingSetup,
  sizes: CacheSizes,
  places: readonly string[],
  host: CacheHost,
): Promise<{ cache: TeacherCache; plannedBytes: number } | undefined> {
  const wanted = await wantedCache(prepared, setup, places);
  if (!wanted) return undefined;
  const folder = await CacheFolder.open(wanted.place, wanted.origin);
  const making = new CacheMaking(gpu, prepared, setup, sizes, folder, wanted.keys, host);
  try {
    const missing = await making.missing();
    const earlier = missing > 0 ? await openEarlier(prepared, setup, wanted) : undefined;
    host.onFound(earlier?.path ?? folder.path, earlier ? 0 : missing);
    if (earlier) return { cache: earlier, plannedBytes: 0 };
    if (missing > 0 && prepared.recipe.teacher.server) throw missingAnswers(folder.path, missing);
    if (missing > 0) await making.make();
    const findings = await making.findings();
    const cache = await openCache(folder, wanted.keys, findings, () => host.onSlice());
    return { cache, plannedBytes: making.plannedBytes };
  } finally {
    making.destroy();
  }
}

/** Opens what an earlier version made for this run, if that is there. */
async function openEarlier(
  { heldOut, sets }: PreparedRun,
  { objective: { masks } }: TrainingSetup,
  { origin: { teacher, format, seed }, place, keys }: WantedCache,
): Promise<TeacherCache | undefined> {
  if (keepsHidden(format)) return undefined;
  const heldOutSets = sets.heldOut.map((set) => set.samples.length);
  const origin = { teacher, samples: earlierSamples(keys).identity, format, seed, heldOutSets };
  const tokens = heldOut.reduce((sum, sample) => sum + masks.supervised(sample), 0);
  return await openEarlierCache(place, origin, keys, tokens);
}

/** Kinds of records, by what identifies them: a held-out set, and the settings of texts. */
export const RECORDS = { heldOut: "held-out", texts: "texts" } as const;

/** A piece of the work that one process does. */
interface Work {
  readonly name: string;
  readonly samples: readonly EncodedSample[];
  /** Identity of the held-out set that they are. */
  readonly set?: string;
  /** Has the teacher write its texts. */
  readonly texts?: true;
}

class CacheMaking {
  /** Bytes on the GPU that the pass was planned with. */
  plannedBytes = 0;
  readonly #gpu: Gpu;
  readonly #prepared: PreparedRun;
  readonly #setup: TrainingSetup;
  readonly #sizes: CacheSizes;
  readonly #folder: CacheFolder;
  readonly #keys: ReadonlyMap<EncodedSample, SampleKey>;
  readonly #host: CacheHost;
  readonly #works: readonly Work[];
  #pass: TeacherPass | undefined;
  readonly #texts: TeacherTexts | undefined;
  /** Samples that have their rows. */
  #done = 0;

  constructor(
    gpu: Gpu,
    prepared: PreparedRun,
    setup: TrainingSetup,
    sizes: CacheSizes,
    folder: CacheFolder,
    keys: ReadonlyMap<EncodedSample, SampleKey>,
    host: CacheHost,
  ) {
    [this.#gpu, this.#prepared, this.#setup, this.#sizes] = [gpu, prepared, setup, sizes];
    [this.#folder, this.#keys, this.#host, this.#texts] = [folder, keys, host, sizes.texts];
    this.#works = this.#plan();
  }

  /** The work in its order: texts first, so that they are there where all rows are. */
  #plan(): Work[] {
    const { train, sets } = this.#prepared;
    return [
      ...(this.#texts ? [{ name: `texts ${this.#texts.settings}`, samples: [], texts: true } as const] : []),
      ...this.#inShards(train).map((samples) => ({ name: this.#nameOf(samples), samples })),
      ...sets.heldOut.map(({ samples }): Work => {
        const set = samplesIdentity(samples);
        return { name: `held-out ${set}`, samples, ...(this.#sizes.isMeasured === false ? {} : { set }) };
      }),
    ];
  }

  /** Samples whose rows make a shard: those of some batches, as the teacher sees them. */
  #inShards(samples: readonly EncodedSample[]): EncodedSample[][] {
    const { shardBatches = SHARD_BATCHES, choices } = this.#sizes;
    const shards: EncodedSample[][] = [];
    let [shard, batches, bytes]: [EncodedSample[], number, number] = [[], 0, 0];
    for (const { members } of sequentialBatches(samples, choices.tokens)) {
      shard.push(...members);
      bytes += members.reduce((sum, sample) => sum + this.#rows(sample), 0) * this.#folder.rowBytes;
      if (++batches < shardBatches && bytes < SHARD_BYTES) continue;
      shards.push(shard);
      [shard, batches, bytes] = [[], 0, 0];
    }
    return shard.length > 0 ? [...shards, shard] : shards;
  }

  #nameOf(samples: readonly EncodedSample[]): string {
    return sha256(samples.map((sample) => this.#keys.get(sample)!.hash).join(" "));
  }

  #rows(sample: EncodedSample): number {
    return this.#keys.get(sample)!.positions.length;
  }

  /** Samples that the teacher has to be run over. */
  async missing(): Promise<number> {
    let count = 0;
    for (const work of this.#works) if (!work.texts) count += (await this.#open(work)).length;
    return count;
  }

  /** Samples of a piece of work that the teacher has to be run over: all of a set that it is measured on. */
  async #open({ samples, set }: Work): Promise<readonly EncodedSample[]> {
    if (set !== undefined && await this.#folder.record(RECORDS.heldOut, set) === undefined) return samples;
    return samples.filter((sample) => this.#isMissing(sample));
  }

  #isMissing(sample: EncodedSample): boolean {
    const { hash, positions } = this.#keys.get(sample)!;
    return positions.length > 0 && this.#folder.entry(hash) === undefined;
  }

  /** Does what is to be done, or waits for others that do it. */
  async make(): Promise<void> {
    let left = [...this.#works];
    this.#tell();
    while (left.length > 0) {
      const others: Work[] = [];
      for (const work of left) {
        if (await this.#isDone(work)) continue;
        const release = await this.#folder.claim(work.name);
        if (!release) {
          await this.#folder.refresh();
          others.push(work);
          continue;
        }
        try {
          // Others may have done it before it could be claimed.
          await this.#folder.refresh();
          if (!await this.#isDone(work)) await this.#do(work);
        } finally {
          await release();
        }
        this.#tell();
      }
      if (others.length > 0) await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      this.#host.onSlice();
      left = others;
    }
  }

  async #isDone(work: Work): Promise<boolean> {
    if (!work.texts) return (await this.#open(work)).length === 0;
    return !this.#texts || await this.#folder.record(RECORDS.texts, this.#texts.settings) !== undefined;
  }

  async #do(work: Work): Promise<void> {
    const pass = this.#pass ??= await this.#begin();
    if (work.texts) {
      if (!this.#texts) return;
      const { streamed } = pass;
      const buffers = new Map([...pass.weights, ...streamed?.buffers ?? []]);
      const samples = await this.#texts.write(this.#gpu, buffers, streamed?.source);
      const texts: WrittenTexts = { settings: this.#texts.settings, samples };
      return await this.#folder.keep(RECORDS.texts, texts.settings, texts);
    }
    const writer = new CacheWriter(this.#folder);
    const open = await this.#open(work);
    const isMeasured = work.set !== undefined && open === work.samples;
    const sum = { loss: 0, tokens: 0 };
    try {
      for await (const made of pass.rows(open, this.#keys, isMeasured ? sum : undefined)) {
        for (const { sample, rows } of made) {
          if (this.#isMissing(sample)) this.#done++;
          await writer.put(this.#keys.get(sample)!, rows);
        }
        this.#host.onRows?.(this.#done, this.#keys.size);
      }
    } finally {
      // Also what a stop leaves in the middle is worth keeping.
      await writer.flush();
    }
    if (isMeasured) await this.#folder.keep(RECORDS.heldOut, work.set!, measuredSet(sum));
  }

  async #begin(): Promise<TeacherPass> {
    const planned = planTeacherPass(this.#setup, this.#gpu.description, this.#sizes);
    await this.#host.onPlanned(planned);
    this.plannedBytes = planned.memory.total;
    const onSlice = () => this.#host.onSlice();
    return await TeacherPass.create(this.#gpu, this.#setup, planned, this.#sizes.choices, onSlice);
  }

  /** Counts anew: others may have made some. */
  #tell(): void {
    this.#done = [...this.#keys.keys()].filter((sample) => !this.#isMissing(sample)).length;
    this.#host.onRows?.(this.#done, this.#keys.size);
  }

  /** What the cache says of the teacher, all of which is there. */
  async findings(): Promise<TeacherFindings> {
    const heldOut: MeasuredSet[] = [];
    for (const { set } of this.#works) {
      if (set !== undefined) heldOut.push((await this.#folder.record<MeasuredSet>(RECORDS.heldOut, set))!);
    }
    const settings = this.#sizes.texts?.settings;
    const texts = settings === undefined
      ? undefined
      : await this.#folder.record<WrittenTexts>(RECORDS.texts, settings);
    return { heldOut, texts: texts ?? null };
  }

  destroy(): void {
    this.#pass?.destroy();
    this.#pass = undefined;
  }
}
