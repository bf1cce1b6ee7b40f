/**
 * Measuring subsets of a model's layers on calibration samples.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, type PackedBatch, packSequential } from "../../text/packing.ts";
import type { Model } from "../../distill/inputs/models.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { type HeadBlock, SubsetProgram } from "./subset_program.ts";
import { without } from "./subsets.ts";

/** Sees the losses of a batch's positions, each [T], in the order of the head's losses. */
export type RowVisitor = (batch: PackedBatch, losses: readonly Float32Array[]) => void;

/** What is measured of a subset on calibration samples: means over the supervised positions, in nats a token. */
export interface CalibrationValues {
  /** Cross-entropy. */
  readonly loss: number;
  /** KL(full || subset), exact over the vocabulary. */
  readonly kl?: number;
}

/** What an evaluator is given beside its samples. */
export interface EvaluatorOptions {
  /** Final hidden states, batch by batch, of another model that divergences are from; see {@linkcode SubsetEvaluator.fullHidden}. */
  readonly full?: Float32Array[] | undefined;
  /** Aborting it ends what is being measured, between two batches. */
  readonly signal?: AbortSignal | undefined;
}

/** Runs subsets over batches of samples. */
export class SubsetEvaluator {
  readonly #program: SubsetProgram;
  readonly #batches: readonly PackedBatch[];
  readonly #layers: number;
  /** Final hidden states of the full model on each batch, once they were wanted. */
  #full: Float32Array[] | undefined;
  /** The batch that is in the inputs, and the one whose full hidden states are. */
  #written = -1;
  #fullWritten = -1;

  readonly #signal: AbortSignal | undefined;

  /** @throws {InputError} if no token of the samples is supervised */
  constructor(
    program: SubsetProgram,
    layers: number,
    samples: readonly EncodedSample[],
    { full, signal }: EvaluatorOptions = {},
  ) {
    [this.#program, this.#layers, this.#full, this.#signal] = [program, layers, full, signal];
    this.#batches = packSequential(samples, program.sizes.tokens);
    if (this.supervised > 0) return;
    throw new InputError(
      "no token of the calibration samples is supervised, so there is nothing to measure",
      {
        where: samples[0]!.source.file,
        hint: "Use rows with a text or a completion, or another --mask.",
      },
    );
  }

  /** Positions that predict a target. */
  get supervised(): number {
    return this.#batches.reduce((sum, batch) => sum + batch.supervised, 0);
  }

  /** Runs a subset with a head over all batches. */
  async rows(kept: readonly number[], head: HeadBlock, visit: RowVisitor): Promise<void> {
    const full = head === "divergence" ? await this.fullHidden() : undefined;
    const ring = this.#program.ring<PackedBatch>(head);
    const collect = async () => {
      for (const { tag, losses } of await ring.collect()) visit(tag, losses);
    };
    try {
      for (const [i, batch] of this.#batches.entries()) {
        this.#write(i);
        if (full && this.#fullWritten !== i) this.#program.setFull(full[this.#fullWritten = i]!);
        await this.#program.run(kept, head);
        ring.push(batch);
        if (ring.full) await collect();
      }
      await collect();
    } finally {
      ring.destroy();
    }
  }

  /** The means of a subset. */
  async measure(kept: readonly number[], head: HeadBlock): Promise<CalibrationValues> {
    const sums = [0, 0];
    await this.rows(kept, head, ({ label }, losses) => {
      label.forEach((label, t) => {
        if (label !== IGNORED_LABEL) losses.forEach((loss, k) => sums[k]! += loss[t]!);
      });
    });
    const [loss, kl] = sums.map((sum) => sum / this.supervised);
    return { loss: loss!, ...(head === "divergence" ? { kl: kl! } : {}) };
  }

  /** The mean cosine of each layer's input and output in the full model, over all tokens of the samples. */
  async cosines(): Promise<number[]> {
    const sums = new Float64Array(this.#layers);
    let tokens = 0;
    for (const [i, { segment }] of this.#batches.entries()) {
      this.#write(i);
      const found = await this.#program.cosines();
      segment.forEach((sample, t) => {
        if (sample < 0) return;
        tokens++;
        found.forEach((cosines, layer) => sums[layer]! += cosines[t]!);
      });
    }
    return [...sums].map((sum) => sum / tokens);
  }

  /**
   * Runs a subset with its head several times over the batch that holds most tokens, until the GPU has done all.
   *
   * @returns tokens, and seconds
   */
  async passes(kept: readonly number[], times: number): Promise<{ tokens: number; seconds: number }> {
    const tokens = this.#batches.map(({ segment }) => segment.reduce((sum, s) => sum + Number(s >= 0), 0));
    const fullest = tokens.indexOf(Math.max(...tokens));
    this.#write(fullest);
    await this.#program.gpu.idle();
    const begin = performance.now();
    for (let i = 0; i < times; i++) await this.#program.run(kept, "loss");
    await this.#program.gpu.idle();
    return { tokens: tokens[fullest]! * times, seconds: (performance.now() - begin) / 1000 };
  }

  #write(i: number): void {
    this.#signal?.throwIfAborted();
    if (this.#written !== i) this.#program.write(this.#batches[this.#written = i]!);
  }

  /** Final hidden states of the full model on each batch, f32 [T * H]. */
  async fullHidden(): Promise<Float32Array[]> {
    if (this.#full) return this.#full;
    const found: Float32Array[] = [];
    for (const i of this.#batches.keys()) {
      this.#write(i);
      await this.#program.run(without(this.#layers, []));
      found.push(await this.#program.hidden());
    }
    return this.#full = found;
  }
}

/** Lends an evaluator of a model that is there for so long. */
export async function withEvaluator<T>(
  gpu: Gpu,
  model: Model,
  registry: Registry,
  sizes: SubsetProgram["sizes"],
  samples: readonly EncodedSample[],
  fn: (evaluator: SubsetEvaluator) => Promise<T>,
  options: EvaluatorOptions = {},
): Promise<T> {
  const program = await SubsetProgram.create(gpu, model, registry, sizes);
  try {
    return await fn(new SubsetEvaluator(program, model.config.layers, samples, options));
  } finally {
    program.destroy();
  }
}
