/**
 * The one pass of the teacher over all samples that makes a cache: its rows, its own held-out loss and its sample texts. When it is
 * over, nothing of the teacher is left on the GPU.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packBatch, type PackedBatch, planBatches } from "../../text/packing.ts";
import { RowCodec, type TeacherRow } from "./cached_rows.ts";
import { writeBatch } from "../program/measure.ts";
import { uploadWeights } from "../inputs/models.ts";
import { LOSS_SUMS } from "../objective/loss_sets.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { quantisedIdentity } from "../inputs/identity.ts";
import { runInSlices } from "../program/slices.ts";
import {
  type CachedSamples,
  cachedSamples,
  cacheKey,
  type CacheOrigin,
  cachePath,
  TeacherCache,
  type TeacherFindings,
  writeTeacherCache,
} from "./cache.ts";
import { cacheScalars } from "../program/teacher_rows.ts";
import type { StreamedTeacher } from "../program/streamed_teacher.ts";
import type { LayerSource } from "../program/streamed_layers.ts";
import { TeacherStream } from "../program/teacher_stream.ts";
import { countedPositions, type TokenMasks } from "../objective/token_masks.ts";
import type { PlanChoices, TrainingSetup } from "../program/plan_training.ts";
import {
  BLOCK,
  COUNTERS,
  KEPT,
  keptOf,
  PARTS,
  type PassSizes,
  type PlannedPass,
  planTeacherPass,
} from "./plan_pass.ts";

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

/** What the pass tells while it runs. */
export interface TeacherPassHost {
  /** Called several times a batch. What it throws ends the pass, and nothing is left behind. */
  onSlice(): void;
  /** Called once: where the cache lies, and whether it was there already. */
  onFound(path: string, exists: boolean): void;
  /** Called before anything is made on the GPU. What it throws ends the pass. */
  onPlanned(planned: PlannedPass): void | Promise<void>;
}

/**
 * Opens the run's cache, or makes it.
 *
 * @param folder the run's own folder of caches, where the recipe names none
 * @param sizes with what the teacher is to write, if anything
 * @returns the cache, and the bytes on the GPU that the pass was planned with; 0 where there was none
 * @throws {InputError} if a cache of this key is damaged, or the teacher's logits are not finite
 */
export async function openTeacherCache(
  gpu: Gpu,
  prepared: PreparedRun,
  setup: TrainingSetup,
  sizes: PassSizes & { readonly texts: TeacherTexts | undefined },
  folder: string,
  host: TeacherPassHost,
): Promise<{ cache: TeacherCache; plannedBytes: number } | undefined> {
  const kept = keptOf(setup);
  if (!kept) return undefined;
  const { heldOut } = prepared.sets;
  const { masks } = setup.objective;
  const samples = cachedSamples([...prepared.train, ...prepared.heldOut], masks);
  const origin: CacheOrigin = {
    teacher: await quantisedIdentity(prepared.teacher),
    samples: samples.identity,
    format: kept.format,
    seed: kept.format.target.kind === "samples" ? kept.cache.seed : null,
    heldOutSets: heldOut.map((set) => set.samples.length),
  };
  const place = kept.cache.folder ?? folder;
  const path = cachePath(place, cacheKey(origin));
  const found = await TeacherCache.open(place, origin, samples) ??
    await openEarlier(place, origin, samples, prepared, masks);
  host.onFound(found?.path ?? path, found !== undefined);
  if (found) return { cache: found, plannedBytes: 0 };
  const planned = planTeacherPass(setup, gpu.description, sizes);
  await host.onPlanned(planned);
  const pass = await TeacherPass.create(gpu, prepared, setup, planned, sizes.choices, sizes.texts);
  let failure: unknown;
  try {
    await writeTeacherCache(path, origin, samples, () => pass.rows(host), () => pass.findings());
  } catch (error) {
    failure = error;
  } finally {
    pass.destroy();
  }
  const cache = await TeacherCache.open(place, origin, samples);
  // Another run may have made the same cache in a shared folder meanwhile: it has the name, and serves as well.
  if (!cache) throw failure;
  return { cache, plannedBytes: planned.memory.total };
}

/**
 * Opens the cache that an earlier version made of the same samples, if the same ones were held out: samples that are held out come last,
 * so where as many tokens were measured, the loss is of the same tokens.
 */
async function openEarlier(
  place: string,
  { heldOutSets, ...origin }: CacheOrigin,
  samples: CachedSamples,
  { heldOut }: PreparedRun,
  masks: TokenMasks,
): Promise<TeacherCache | undefined> {
  if (heldOutSets!.length > 1) return undefined;
  const cache = await TeacherCache.open(place, origin, samples);
  if (!cache) return undefined;
  const tokens = heldOut.reduce(
    (sum, sample) => sum + masks.mark(packBatch([sample], sample.ids.length)).counts[0]!,
    0,
  );
  if (cache.findings.heldOut.tokens === tokens) return cache;
  cache.close();
  return undefined;
}

class TeacherPass {
  readonly #gpu: Gpu;
  readonly #prepared: PreparedRun;
  readonly #setup: TrainingSetup;
  readonly #choices: Pick<PlanChoices, "tokens" | "chunkRows">;
  readonly #texts: TeacherTexts | undefined;
  readonly #executable: Executable;
  readonly #weights: ReadonlyMap<string, GpuBuffer>;
  readonly #streamed: StreamedTeacher | undefined;
  #stream: TeacherStream | undefined;
  /** Of each held-out set: the sum of its losses, and its tokens. */
  readonly #heldOut: { loss: number; tokens: number }[];

  private constructor(
    gpu: Gpu,
    prepared: PreparedRun,
    setup: TrainingSetup,
    choices: Pick<PlanChoices, "tokens" | "chunkRows">,
    texts: TeacherTexts | undefined,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
    streamed: StreamedTeacher | undefined,
  ) {
    this.#streamed = streamed;
    [this.#gpu, this.#prepared, this.#setup, this.#texts] = [gpu, prepared, setup, texts];
    [this.#choices, this.#executable, this.#weights] = [choices, executable, weights];
    this.#heldOut = prepared.sets.heldOut.map(() => ({ loss: 0, tokens: 0 }));
  }

  static async create(
    gpu: Gpu,
    prepared: PreparedRun,
    setup: TrainingSetup,
    { plan, streamed }: PlannedPass,
    choices: Pick<PlanChoices, "tokens" | "chunkRows">,
    texts: TeacherTexts | undefined,
  ): Promise<TeacherPass> {
    const weights = await uploadWeights(gpu, plan, [setup.teacher]);
    try {
      const executable = await compile(gpu, plan, { weights });
      return new TeacherPass(gpu, prepared, setup, choices, texts, executable, weights, streamed);
    } catch (error) {
      for (const buffer of weights.values()) buffer.destroy();
      throw error;
    }
  }

  /** The bytes of all rows, batch by batch. */
  async *rows(host: TeacherPassHost): AsyncIterable<Uint8Array> {
    const { target } = keptOf(this.#setup)!.format;
    const executable = this.#executable;
    executable.setScalar("accumulate", 0);
    executable.setScalars(cacheScalars(target));
    const { train, sets: { heldOut } } = this.#prepared;
    const parts = [
      [train, undefined],
      ...heldOut.map((set, i) => [set.samples, this.#heldOut[i]] as const),
    ] as const;
    const run = (block: string) => runInSlices(executable, block, host.onSlice);
    const stream = this.#streamed &&
      new TeacherStream(executable, this.#streamed, this.#weights, run, host.onSlice);
    this.#stream = stream;
    let row = 0;
    for (const [samples, measured] of parts) {
      for (const group of inGroups(sequentialBatches(samples, this.#choices.tokens), stream?.most ?? 1)) {
        await stream?.pass(group);
        for (const [i, batch] of group.entries()) {
          const marked = this.#setup.objective.masks.mark(batch);
          const positions = countedPositions(marked, 0, batch.tokens.length);
          writeBatch(executable, batch, marked);
          if (target.kind === "samples") executable.write(COUNTERS, countersOf(batch, positions, row));
          else executable.write(KEPT, keptFlags(batch, positions));
          stream?.select(i);
          await run(BLOCK);
          const bytes = await this.#read(batch, positions);
          row += positions.length;
          if (measured) await this.#measure(measured, marked.counts[0]!);
          yield bytes;
        }
      }
    }
  }

  /** What the teacher is found to be, once all rows have been read. */
  async findings(): Promise<TeacherFindings> {
    const sets = this.#heldOut.map(({ loss, tokens }) => ({ loss: loss / Math.max(1, tokens), tokens }));
    const buffers = new Map([...this.#weights, ...this.#stream?.buffers ?? []]);
    const texts = this.#texts
      ? {
        settings: this.#texts.settings,
        samples: await this.#texts.write(this.#gpu, buffers, this.#stream?.source),
      }
      : null;
    return { heldOut: { ...sets[0]!, ...(sets.length > 1 ? { sets } : {}) }, texts };
  }

  /** The rows of some positions of a batch, encoded. */
  async #read(batch: PackedBatch, positions: readonly number[]): Promise<Uint8Array> {
    const { format } = keptOf(this.#setup)!;
    const codec = new RowCodec(format);
    const { entries, temperatures } = format.target;
    const { tokens, chunkRows } = this.#choices;
    const parts = format.target.kind === "samples" ? PARTS.slice(0, 2) : PARTS;
    const chunks = Array.from({ length: tokens / chunkRows }, (_, c) => c * chunkRows);
    const back = await this.#executable.read(chunks.flatMap((c) => parts.map((p) => `${p} ${c}`)), BLOCK);
    const bytes = new Uint8Array(positions.length * codec.bytes);
    positions.forEach((t, i) => {
      const r = t % chunkRows;
      const data = (part: string) => back.get(`${part} ${t - r}`)!.data;
      const own = (part: string) => data(part).subarray(r * entries, (r + 1) * entries);
      const row: TeacherRow = {
        ids: own("ids") as Uint32Array,
        values: own("values") as Float32Array | Uint32Array,
        tails: temperatures.map((_, c) => data("tails")[c * chunkRows + r]!),
      };
      if (codec.write(row, bytes.buffer, i * codec.bytes)) return;
      const { source } = batch.members[batch.segment[t]!]!;
      throw new InputError("the teacher's logits are not finite numbers here", {
        where: `${source.file}:${source.line}`,
        hint: "The teacher's weights are damaged, or too large for f32: check the model.",
      });
    });
    return bytes;
  }

  /** Adds what the last batch came to. */
  async #measure(set: { loss: number; tokens: number }, tokens: number): Promise<void> {
    const back = await this.#executable.read([LOSS_SUMS.teacher]);
    set.loss += (back.get(LOSS_SUMS.teacher)!.data as Float32Array)[0]!;
    set.tokens += tokens;
  }

  destroy(): void {
    this.#stream?.close();
    this.#executable.destroy();
    for (const buffer of this.#weights.values()) buffer.destroy();
  }
}

/** Batches in the order of the samples, made one at a time. */
function* sequentialBatches(samples: readonly EncodedSample[], tokens: number): Iterable<PackedBatch> {
  const lengths = samples.map((sample) => sample.ids.length);
  for (const batch of planBatches(lengths, samples.map((_, i) => i), tokens, 1)) {
    yield packBatch(batch.map((i) => samples[i]!), tokens);
  }
}

function* inGroups<T>(items: Iterable<T>, size: number): Iterable<T[]> {
  let group: T[] = [];
  for (const item of items) {
    group.push(item);
    if (group.length < size) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

/** 0 for some positions of a batch, -100 for the others. */
function keptFlags(batch: PackedBatch, positions: readonly number[]): Int32Array {
  const flags = new Int32Array(batch.tokens.length).fill(IGNORED_LABEL);
  for (const t of positions) flags[t] = 0;
  return flags;
}

/** The number among all rows of some positions of a batch: what their draws depend on, wherever they lie. */
function countersOf(batch: PackedBatch, positions: readonly number[], first: number): Uint32Array {
  const numbers = new Uint32Array(batch.tokens.length);
  positions.forEach((t, i) => numbers[t] = first + i);
  return numbers;
}
