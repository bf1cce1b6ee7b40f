/**
 * Running the teacher over samples for a cache: their rows, its own held-out loss and its sample texts.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packBatch, type PackedBatch, planBatches } from "../../text/packing.ts";
import { uploadWeights } from "../inputs/models.ts";
import { LOSS_SUMS } from "../objective/loss_sets.ts";
import { countedPositions } from "../objective/token_masks.ts";
import { writeBatch } from "../program/metrics/measure.ts";
import type { PlanChoices, TrainingSetup } from "../program/plan_training.ts";
import { runInSlices } from "../program/slices.ts";
import type { StreamedTeacher } from "../program/streamed/streamed_teacher.ts";
import { cacheScalars } from "../program/fed/teacher_rows.ts";
import { TeacherStream } from "../program/streamed/teacher_stream.ts";
import type { MeasuredSet } from "./cache.ts";
import { RowCodec, type RowFormat, type TeacherRow } from "./cached_rows.ts";
import { HiddenCodec, type HiddenFormat } from "./hidden_rows.ts";
import type { SampleKey } from "./origin.ts";
import { keepsHidden } from "./payload.ts";
import { BLOCKS, COUNTERS, HIDDEN, KEPT, keptOf, PARTS, type PlannedPass } from "./plan_pass.ts";

/** The rows of a sample, as the teacher gave them. */
export interface SampleRows {
  readonly sample: EncodedSample;
  readonly rows: Uint8Array<ArrayBuffer>;
}

/** The teacher on the GPU, alone. */
export class TeacherPass {
  /** By the name of their storage. */
  readonly weights: ReadonlyMap<string, GpuBuffer>;
  /** Batches that are brought through a streamed teacher at once; 1 where it is on the GPU. */
  readonly together: number;
  readonly #setup: TrainingSetup;
  readonly #choices: Pick<PlanChoices, "tokens" | "chunkRows">;
  readonly #executable: Executable;
  readonly #onSlice: () => void;
  readonly #stream: TeacherStream | undefined;

  private constructor(
    setup: TrainingSetup,
    choices: Pick<PlanChoices, "tokens" | "chunkRows">,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
    streamed: StreamedTeacher | undefined,
    onSlice: () => void,
  ) {
    [this.#setup, this.#choices, this.#executable] = [setup, choices, executable];
    [this.weights, this.#onSlice] = [weights, onSlice];
    this.#stream = streamed &&
      new TeacherStream(executable, streamed, weights, (block) => this.#run(block), onSlice);
    this.together = this.#stream?.most ?? 1;
  }

  /** Its layers, where they come from disk. */
  get streamed(): TeacherStream | undefined {
    return this.#stream;
  }

  /** Uploads the teacher's weights and compiles the program. @param onSlice Called several times a batch; what it throws ends the work */
  static async create(
    gpu: Gpu,
    setup: TrainingSetup,
    { plan, streamed }: PlannedPass,
    choices: Pick<PlanChoices, "tokens" | "chunkRows">,
    onSlice: () => void,
  ): Promise<TeacherPass> {
    const weights = await uploadWeights(gpu, plan, [setup.teacher]);
    try {
      // A set may have been measured before.
      const later = plan.blocks.has(BLOCKS.measured) ? [BLOCKS.measured] : [];
      const executable = await compile(gpu, plan, { weights, later });
      return new TeacherPass(setup, choices, executable, weights, streamed, onSlice);
    } catch (error) {
      for (const buffer of weights.values()) buffer.destroy();
      throw error;
    }
  }

  /**
   * The rows of samples, batch by batch.
   *
   * @param keys of the samples: what draws are counted by
   * @param measured Where the teacher's cross-entropy on them is wanted: the sum of its losses, and its tokens, are added to it
   * @throws {InputError} if what the teacher gives are no finite numbers, or `onSlice` throws
   */
  async *rows(
    samples: readonly EncodedSample[],
    keys: ReadonlyMap<EncodedSample, SampleKey>,
    measured?: { loss: number; tokens: number },
  ): AsyncIterable<SampleRows[]> {
    const executable = this.#executable;
    const stream = this.#stream;
    const { format } = keptOf(this.#setup)!;
    const block = measured && keepsHidden(format) ? BLOCKS.measured : BLOCKS.rows;
    await executable.ready(block);
    executable.setScalar("accumulate", 0);
    if (!keepsHidden(format)) executable.setScalars(cacheScalars(format.target));
    for (const group of inGroups(sequentialBatches(samples, this.#choices.tokens), this.together)) {
      await stream?.pass(group);
      for (const [i, batch] of group.entries()) {
        const marked = this.#setup.objective.masks.mark(batch);
        const positions = countedPositions(marked, 0, batch.tokens.length);
        writeBatch(executable, batch, marked);
        if (!keepsHidden(format)) this.#writeKept(batch, positions, keys, format);
        stream?.select(i);
        await this.#run(block);
        const bytes = keepsHidden(format)
          ? await this.#readHidden(batch, positions, block, format)
          : await this.#readSparse(batch, positions, format);
        if (measured) await this.#measure(measured, marked.counts[0]!);
        yield bySample(batch, positions, bytes);
      }
    }
  }

  async #run(block: string): Promise<void> {
    await runInSlices(this.#executable, block, this.#onSlice);
  }

  #writeKept(
    batch: PackedBatch,
    positions: readonly number[],
    keys: ReadonlyMap<EncodedSample, SampleKey>,
    { target }: RowFormat,
  ): void {
    if (target.kind === "samples") this.#executable.write(COUNTERS, countersOf(batch, positions, keys));
    else this.#executable.write(KEPT, keptFlags(batch, positions));
  }

  /** Hidden states of some positions of a batch, encoded. */
  async #readHidden(
    batch: PackedBatch,
    positions: readonly number[],
    block: string,
    format: HiddenFormat,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const codec = new HiddenCodec(format);
    const { width } = format;
    const all = (await this.#executable.read([HIDDEN], block)).get(HIDDEN)!.data as Float32Array;
    const bytes = new Uint8Array(positions.length * codec.bytes);
    positions.forEach((t, i) => {
      const good = codec.write(all.subarray(t * width, (t + 1) * width), bytes.buffer, i * codec.bytes);
      if (!good) throw notFinite("hidden states", batch, t);
    });
    return bytes;
  }

  /** What is kept of the logits of some positions of a batch, encoded. */
  async #readSparse(
    batch: PackedBatch,
    positions: readonly number[],
    format: RowFormat,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const codec = new RowCodec(format);
    const { entries, temperatures } = format.target;
    const { tokens, chunkRows } = this.#choices;
    const parts = format.target.kind === "samples" ? PARTS.slice(0, 2) : PARTS;
    const chunks = Array.from({ length: tokens / chunkRows }, (_, c) => c * chunkRows);
    const names = chunks.flatMap((c) => parts.map((p) => `${p} ${c}`));
    const back = await this.#executable.read(names, BLOCKS.rows);
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
      if (!codec.write(row, bytes.buffer, i * codec.bytes)) throw notFinite("logits", batch, t);
    });
    return bytes;
  }

  /** Adds what the last batch came to. */
  async #measure(sum: { loss: number; tokens: number }, tokens: number): Promise<void> {
    const back = await this.#executable.read([LOSS_SUMS.teacher]);
    sum.loss += (back.get(LOSS_SUMS.teacher)!.data as Float32Array)[0]!;
    sum.tokens += tokens;
  }

  destroy(): void {
    this.#stream?.close();
    this.#executable.destroy();
    for (const buffer of this.weights.values()) buffer.destroy();
  }
}

/** The mean of a sum of losses. */
export function measuredSet({ loss, tokens }: { loss: number; tokens: number }): MeasuredSet {
  return { loss: loss / Math.max(1, tokens), tokens };
}

function notFinite(what: string, batch: PackedBatch, t: number): InputError {
  const { source } = batch.members[batch.segment[t]!]!;
  return new InputError(`the teacher's ${what} are not finite numbers here`, {
    where: `${source.file}:${source.line}`,
    hint: "The teacher's weights are damaged, or too large for f32: check the model.",
  });
}

/** The samples of a batch, each with its own part of the rows of all. */
function bySample(
  batch: PackedBatch,
  positions: readonly number[],
  bytes: Uint8Array<ArrayBuffer>,
): SampleRows[] {
  const counts = batch.members.map(() => 0);
  for (const t of positions) counts[batch.segment[t]!]!++;
  const rowBytes = bytes.length / Math.max(1, positions.length);
  let at = 0;
  return batch.members.map((sample, i) => {
    const rows = bytes.subarray(at, at += counts[i]! * rowBytes);
    return { sample, rows };
  });
}

/** Batches in the order of the samples, made one at a time. */
export function* sequentialBatches(samples: readonly EncodedSample[], tokens: number): Iterable<PackedBatch> {
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

/** What the draws of some positions of a batch depend on: the sample's own tokens, and the place among its rows. */
function countersOf(
  batch: PackedBatch,
  positions: readonly number[],
  keys: ReadonlyMap<EncodedSample, SampleKey>,
): Uint32Array {
  const numbers = new Uint32Array(batch.tokens.length);
  const next = batch.members.map((sample) => parseInt(keys.get(sample)!.hash.slice(0, 8), 16));
  for (const t of positions) numbers[t] = next[batch.segment[t]!]!++;
  return numbers;
}
