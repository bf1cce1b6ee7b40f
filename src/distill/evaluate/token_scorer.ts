/**
 * What one model, or a model and its teacher, think of each of many tokens: log-probabilities, confidence, and how near the two are. Only
 * rows that predict something go through the head, whatever stands before them.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { initialScalars } from "../../losses/traced.ts";
import type { Registry } from "../../registry/registry.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import type { Plan } from "../../tensor/plan.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packBatch, planBatches } from "../../text/packing.ts";
import { uploadWeights } from "../inputs/models.ts";
import { writePacked } from "../program/metrics/measure.ts";
import { MetricsRing } from "../program/metrics/metrics_ring.ts";
import { checkPrompts, writePrompts } from "../program/fed/prompt_features.ts";
import { runInSlices } from "../program/slices.ts";
import {
  planScoring,
  type ScoredModels,
  SCORING,
  type ScoringRole,
  scoringRoles,
  type ScoringSizes,
  scoringSizes,
  scoringTerms,
  type ScoringWork,
} from "./scoring_program.ts";

/** Tokens of which the last ones are predicted. */
export interface Stretch {
  readonly ids: Int32Array;
  /** The first that is predicted, from 1. */
  readonly from: number;
}

/** What is found of a stretch: for each measure a value of each predicted token, in order. */
export type ScoredStretch = Readonly<Record<string, Float32Array>>;

/** How much some stretches are. */
export function workOf(stretches: readonly Stretch[]): ScoringWork {
  const lengths = stretches.map(({ ids }) => ids.length);
  const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
  return {
    longest: lengths.reduce((most, length) => Math.max(most, length), 0),
    tokens: sum(lengths),
    predicted: sum(stretches.map(({ ids, from }) => ids.length - from)),
  };
}

/** Heads whose rows may wait on the GPU. */
const RING = 16;

/** Models on the device, ready to score. */
export class TokenScorer {
  readonly #executable: Executable;
  readonly #weights: ReadonlyMap<string, GpuBuffer>;
  readonly #gpu: Gpu;
  readonly #sizes: ScoringSizes;
  readonly #measures: readonly string[];
  readonly #roles: readonly ScoringRole[];

  private constructor(
    gpu: Gpu,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
    sizes: ScoringSizes,
    measures: readonly string[],
    roles: readonly ScoringRole[],
  ) {
    [this.#gpu, this.#executable, this.#weights] = [gpu, executable, weights];
    [this.#sizes, this.#measures, this.#roles] = [sizes, measures, roles];
  }

  /**
   * Puts the models on the device.
   *
   * @param work What will be scored: nothing is made larger than that needs
   * @throws {InputError} the two mean other tokens by their ids, or the teacher is a run with an adapter that no model can hold
   * @throws {DeviceError} memory does not suffice
   */
  static async create(
    gpu: Gpu,
    registry: Registry,
    { learner, teacher, topK = [] }: ScoredModels,
    work: ScoringWork,
  ): Promise<TokenScorer> {
    const roles = scoringRoles(learner, teacher);
    const terms = scoringTerms(registry, teacher !== undefined, topK);
    const sizes = scoringSizes(work, roles[0]!.model.config.vocabularySize, gpu.description);
    const planned = planScoring(roles, terms, sizes, gpu.description);
    const weights = await uploadWeights(gpu, planned, roles.map(({ model }) => model));
    try {
      for (const { run } of roles) await run?.upload(gpu, weights);
      const executable = await compile(gpu, planned, { weights });
      executable.setScalars(initialScalars(terms));
      return new TokenScorer(gpu, executable, weights, sizes, terms.map(({ name }) => name), roles);
    } catch (error) {
      for (const buffer of weights.values()) buffer.destroy();
      throw error;
    }
  }

  /**
   * What {@linkcode TokenScorer.create} would put on a device. Pure: needs no GPU.
   *
   * @throws {InputError} as it
   */
  static plan(
    device: DeviceDescription,
    registry: Registry,
    { learner, teacher, topK = [] }: ScoredModels,
    work: ScoringWork,
  ): Plan {
    const roles = scoringRoles(learner, teacher);
    const sizes = scoringSizes(work, roles[0]!.model.config.vocabularySize, device);
    return planScoring(roles, scoringTerms(registry, teacher !== undefined, topK), sizes, device);
  }

  /**
   * Scores stretches, in their order. Those that differ in their last token alone go through the model once.
   *
   * @param onTokens Told how many tokens have gone through, of how many
   */
  async score(
    stretches: readonly Stretch[],
    onTokens: (done: number, total: number) => void = () => {},
  ): Promise<ScoredStretch[]> {
    const found = stretches.map(({ ids, from }): Record<string, Float32Array> =>
      Object.fromEntries(this.#measures.map((name) => [name, new Float32Array(ids.length - from)]))
    );
    const shared = sharedStreams(stretches);
    const samples = shared.map(([first]) => sampleOf(stretches[first!]!));
    checkPrompts(samples, ...this.#roles.map(({ run }) => run?.adapter));
    const lengths = samples.map(({ ids }) => ids.length);
    const total = lengths.reduce((sum, length) => sum + length, 0);
    const ring = new MetricsRing<readonly HeadRow[]>(
      this.#gpu,
      this.#executable,
      [{ name: SCORING.values, block: SCORING.head, words: this.#measures.length * this.#sizes.rows }],
      RING,
    );
    const collect = async () => {
      for (const { tag, values: [values] } of await ring.collect()) {
        tag.forEach(({ stretch, place }, row) =>
          this.#measures.forEach((name, k) =>
            found[stretch]![name]![place] = values![k * this.#sizes.rows + row]!
          )
        );
      }
    };
    let done = 0;
    try {
      for (const batch of planBatches(lengths, samples.map((_, i) => i), this.#sizes.tokens)) {
        const packed = packBatch(batch.map((i) => samples[i]!), this.#sizes.tokens);
        writePacked(this.#executable, packed);
        writePrompts(this.#executable, packed);
        for (const { name } of this.#roles) await runInSlices(this.#executable, `${name} ${SCORING.decoder}`);
        const rows = headRows(batch.map((i) => shared[i]!), stretches);
        for (let first = 0; first < rows.length; first += this.#sizes.rows) {
          const part = rows.slice(first, first + this.#sizes.rows);
          const column = (of: (row: HeadRow) => number, filler: number) =>
            Int32Array.from({ length: this.#sizes.rows }, (_, i) => (part[i] ? of(part[i]) : filler));
          this.#executable.write(SCORING.rows, column(({ position }) => position, -1));
          this.#executable.write(SCORING.labels, column(({ label }) => label, IGNORED_LABEL));
          await runInSlices(this.#executable, SCORING.head);
          ring.push(part);
          if (ring.full) await collect();
        }
        done += packed.members.reduce((sum, { ids }) => sum + ids.length, 0);
        onTokens(done, total);
      }
      await collect();
      return found;
    } finally {
      ring.destroy();
    }
  }

  /** Poisons what is computed, for tests: what a kernel does not write shows. */
  poison(): void {
    this.#executable.poison();
  }

  /** Frees everything. */
  destroy(): void {
    this.#executable.destroy();
    for (const buffer of this.#weights.values()) buffer.destroy();
  }
}

/** A row of the head: what it is of, where its hidden state stands, and what it predicts. */
interface HeadRow {
  readonly stretch: number;
  readonly place: number;
  readonly position: number;
  readonly label: number;
}

function sampleOf({ ids, from }: Stretch): EncodedSample {
  const supervised = Uint8Array.from(ids, (_, i) => Number(i >= from));
  return { ids, supervised, source: { file: "task", line: 0 } };
}

/** Numbers of stretches that are equal but for their last token, together. */
function sharedStreams(stretches: readonly Stretch[]): number[][] {
  const groups = new Map<string, number[]>();
  stretches.forEach(({ ids, from }, i) => {
    const key = `${from}:${ids.subarray(0, -1).join()}`;
    const group = groups.get(key);
    if (group) group.push(i);
    else groups.set(key, [i]);
  });
  return [...groups.values()];
}

/** The rows of the head of samples that lie in a batch one behind another. */
function headRows(groups: readonly (readonly number[])[], stretches: readonly Stretch[]): HeadRow[] {
  const rows: HeadRow[] = [];
  let start = 0;
  for (const group of groups) {
    for (const stretch of group) {
      const { ids, from } = stretches[stretch]!;
      for (let i = from; i < ids.length; i++) {
        rows.push({ stretch, place: i - from, position: start + i - 1, label: ids[i]! });
      }
    }
    start += stretches[group[0]!]!.ids.length;
  }
  return rows;
}
