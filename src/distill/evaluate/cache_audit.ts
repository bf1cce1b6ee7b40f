/**
 * What the payloads of a cache cost: each loss on held-out tokens with the teacher's hidden states as they are, with these rounded, and
 * with the K largest logits and the weight of the rest.
 *
 * The models run on the GPU up to their logits; the losses are those of the f64 reference, from the same expressions as the kernels'.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import { looksAtTarget } from "../../losses/sparse_target.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";
import type { Registry } from "../../registry/registry.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { plan, Program } from "../../tensor/plan.ts";
import { matmul } from "../../tensor/ops/matmul.ts";
import { type PackedBatch, packSequential } from "../../text/packing.ts";
import { type Model, uploadWeights } from "../inputs/models.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { isPairTerm } from "../objective/pairs.ts";
import { isRowTerm, learnerOf, resolve, type ResolvedTerm } from "../objective/terms.ts";
import { writePacked } from "../program/metrics/measure.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import { runInSlices } from "../program/slices.ts";
import { traceHead, traceModel } from "../program/traced_model.ts";
import { HiddenCodec } from "../teacher/hidden_rows.ts";
import { type AuditRows, AuditSums, type CacheAudit } from "./audit_sums.ts";

/** How an audit is made. */
export interface AuditOptions {
  readonly registry: Registry;
  /** Tokens at the most: the first that count of the held-out samples. */
  readonly tokens: number;
  /** Numbers of logits that are looked at, as far as the vocabulary has as many. */
  readonly topK?: readonly number[];
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, all: number) => void;
}

/** The numbers of logits that an audit looks at. */
const AUDITED_K = [8, 16, 32, 64, 128, 256] as const;

/** Rows of a head at a time. */
const ROWS = 64;

/** Audits the payloads for a run's losses and the usual divergences, with the student as the run begins with it. */
export async function auditCache(
  gpu: Gpu,
  prepared: PreparedRun,
  setup: TrainingSetup,
  { registry, tokens: wanted, topK = AUDITED_K, signal, onProgress }: AuditOptions,
): Promise<CacheAudit> {
  const terms = auditedTerms(setup, registry);
  const vocabulary = setup.student.config.vocabularySize;
  const sums = new AuditSums(terms, topK.filter((k) => k <= vocabulary), setup.teacher.config);
  const models = await AuditedModels.create(gpu, prepared, setup);
  try {
    const batches = packSequential(prepared.heldOut, models.tokens);
    const all = Math.min(wanted, batches.reduce((sum, batch) => sum + batch.supervised, 0));
    for (const batch of batches) {
      const places = [...batch.label.keys()].filter((t) => batch.label[t]! >= 0).slice(0, all - sums.tokens);
      if (places.length === 0) break;
      const [teacher, student] = await models.hidden(batch, () => signal?.throwIfAborted());
      for (let first = 0; first < places.length; first += ROWS) {
        const some = places.slice(first, first + ROWS);
        const rows = await models.logits(some, teacher, student);
        for (const [i, t] of some.entries()) {
          signal?.throwIfAborted();
          sums.add(rows, i, batch.label[t]!);
          onProgress?.(sums.tokens, all);
          // What is computed here would keep a stop from being heard.
          await new Promise((resolve) => setTimeout(resolve));
        }
      }
    }
    return sums.result();
  } finally {
    models.destroy();
  }
}

/** The usual divergences. */
const DIVERGENCES = [
  ...["forward-kl", "reverse-kl", "jensen-shannon", "total-variation", "skew-kl", "skew-reverse-kl"],
  "soft-cross-entropy",
];

/** The objective's losses that look at the teacher, and the usual divergences at temperature 1; each once. */
function auditedTerms({ objective, recipe }: TrainingSetup, registry: Registry): ResolvedLoss[] {
  const plain = (loss: string) =>
    resolve(registry, { loss, weight: 0, temperature: 1, options: {} }, loss, "audit") as ResolvedLoss;
  const rows = new Set<ResolvedTerm>(objective.terms.filter((term) => !isPairTerm(term)));
  const own = objective.terms.filter((term, i): term is ResolvedLoss =>
    rows.has(term) && isRowTerm(term) && looksAtTarget(term.loss, term.options) &&
    learnerOf(recipe.objective[i]!) === "student"
  );
  const key = ({ loss, options, temperature }: ResolvedLoss) =>
    JSON.stringify([loss.id, options, temperature]);
  const terms = new Map([...own, ...DIVERGENCES.map(plain)].map((term) => [key(term), term]));
  return [...terms.values()].map((term) => ({
    ...{ loss: term.loss, options: term.options, temperature: term.temperature },
    name: term.temperature === 1 ? term.loss.id : `${term.loss.id} at ${term.temperature}`,
    ...{ weight: 0, monitor: true },
  }));
}

/** The two models up to their final norm, and their heads over any hidden states. */
class AuditedModels {
  readonly tokens: number;
  readonly #executable: Executable;
  readonly #weights: ReadonlyMap<string, { destroy(): void }>;

  private constructor(
    tokens: number,
    executable: Executable,
    weights: ReadonlyMap<string, { destroy(): void }>,
  ) {
    [this.tokens, this.#executable, this.#weights] = [tokens, executable, weights];
  }

  static async create(gpu: Gpu, prepared: PreparedRun, setup: TrainingSetup): Promise<AuditedModels> {
    const { contextLength: length } = prepared.recipe.data;
    const longest = Math.max(...prepared.heldOut.map((sample) => sample.ids.length));
    const tokens = Math.ceil(longest / 64) * 64;
    const program = new Program();
    for (const name of ["teacher", "student"] as const) {
      const model = setup[name];
      const graph = program.block(name);
      graph.output("hidden", traceModel(graph, name, model, tokens, { length }).hidden);
      traceLogits(program, name, model, length);
    }
    const planned = plan(program, gpu.description);
    const weights = await uploadWeights(gpu, planned, [setup.teacher, setup.student]);
    try {
      return new AuditedModels(tokens, await compile(gpu, planned, { weights }), weights);
    } catch (error) {
      for (const buffer of weights.values()) buffer.destroy();
      throw error;
    }
  }

  /** Final hidden states of a batch, teacher's and student's, row by row. */
  async hidden(batch: PackedBatch, onSlice: () => void): Promise<[HiddenRows, HiddenRows]> {
    writePacked(this.#executable, batch);
    const found: HiddenRows[] = [];
    for (const name of ["teacher", "student"]) {
      await runInSlices(this.#executable, name, onSlice);
      const data = (await this.#executable.read(["hidden"], name)).get("hidden")!.data as Float32Array;
      const width = data.length / this.tokens;
      found.push((t) => data.slice(t * width, (t + 1) * width));
    }
    return found as [HiddenRows, HiddenRows];
  }

  /** Logits at some positions, ROWS at the most. */
  async logits(places: readonly number[], teacher: HiddenRows, student: HiddenRows): Promise<AuditRows> {
    const rows = places.map(teacher);
    const rounded = (precision: "bf16" | "int8") => {
      const codec = new HiddenCodec({ width: rows[0]!.length, precision });
      return rows.map((row) => codec.rounded(row));
    };
    return {
      student: await this.#head("student", places.map(student)),
      f32: await this.#head("teacher", rows),
      bf16: await this.#head("teacher", rounded("bf16")),
      int8: await this.#head("teacher", rounded("int8")),
    };
  }

  async #head(name: "teacher" | "student", rows: readonly Float32Array[]): Promise<Float64Array[]> {
    const width = rows[0]!.length;
    const all = new Float32Array(ROWS * width);
    rows.forEach((row, i) => all.set(row, i * width));
    this.#executable.write(`${name}.rows`, all);
    this.#executable.run(`${name}.head`);
    const back = await this.#executable.read(["logits"], `${name}.head`);
    const data = back.get("logits")!.data as Float32Array;
    const vocabulary = data.length / ROWS;
    return rows.map((_, i) => Float64Array.from(data.subarray(i * vocabulary, (i + 1) * vocabulary)));
  }

  destroy(): void {
    this.#executable.destroy();
    for (const buffer of this.#weights.values()) buffer.destroy();
  }
}

/** The hidden state at a position. */
type HiddenRows = (t: number) => Float32Array;

function traceLogits(program: Program, name: string, model: Model, length: number): void {
  const graph = program.block(`${name}.head`);
  const head = traceHead(graph, name, model, ROWS, { length, prefix: `${name}.head.` });
  const x = graph.input(`${name}.rows`, [ROWS, model.config.hiddenSize], "f32");
  graph.output("logits", head.plain ? matmul("NT", x, head.headWeight()) : head.logits(x));
}
