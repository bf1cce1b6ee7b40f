/**
 * What one model, or a model and its teacher, think of each of many tokens: log-probabilities, confidence, and how near the two are. Only
 * rows that predict something go through the head, whatever stands before them.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { compileRowLoss } from "../../losses/compile.ts";
import { initialScalars, type ResolvedLoss } from "../../losses/traced.ts";
import type { Divergence, RowLoss } from "../../registry/contract.ts";
import type { Registry } from "../../registry/registry.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { assign } from "../../tensor/ops/assign.ts";
import { gatherRows } from "../../tensor/ops/cache.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packBatch, planBatches } from "../../text/packing.ts";
import { vocabularyDifference } from "../../text/tokenizer.ts";
import { type Model, uploadWeights } from "../inputs/models.ts";
import { chunkedLoss, type HeadInput, headTarget } from "../objective/chunked_loss.ts";
import {
  accuracy,
  agreement,
  confidence,
  reverseKl,
  teacherFirstAmong,
  topOverlap,
} from "../objective/monitors.ts";
import type { RowLosses } from "../objective/row_loss.ts";
import { writePacked } from "../program/measure.ts";
import { MetricsRing } from "../program/metrics_ring.ts";
import { headChunks } from "../program/plan_training.ts";
import { checkPrompts, streamPrompts, writePrompts } from "../program/prompt_features.ts";
import { runInSlices } from "../program/slices.ts";
import { headInput, traceHead, traceModel } from "../program/traced_model.ts";
import type { OpenedModel } from "./measured_model.ts";

/** Tokens of which the last ones are predicted. */
export interface Stretch {
  readonly ids: Int32Array;
  /** The first that is predicted, from 1. */
  readonly from: number;
}

/** What is found of a stretch: for each measure a value of each predicted token, in order. */
export type ScoredStretch = Readonly<Record<string, Float32Array>>;

/** The measures of a model alone. */
export const ALONE = {
  /** -log p of the token, nats. */
  loss: "cross-entropy",
  /** Probability of the likeliest token. */
  confidence: confidence.id,
  /** 1 where that is the token. */
  correct: accuracy.id,
} as const;

/** Those of a model beside its teacher; p is the teacher's distribution, q the model's. */
export const BESIDE = {
  /** KL(p || q), nats. */
  forwardKl: "forward-kl",
  /** KL(q || p), nats. */
  reverseKl: reverseKl.id,
  /** Half of KL(p || m) + KL(q || m), m the mean of both; nats. */
  jensenShannon: "jensen-shannon",
  /** Whether both find the same token the likeliest. */
  agreement: agreement.id,
} as const;

/** What {@linkcode TokenScorer} is made of. */
export interface ScoredModels {
  readonly learner: OpenedModel;
  readonly teacher?: OpenedModel | undefined;
  /** How many of the likeliest tokens of both are compared. */
  readonly topK?: readonly number[];
}

/** How much is to be scored. */
export interface ScoringWork {
  /** Tokens of the longest stretch. */
  readonly longest: number;
  /** Of all of them. */
  readonly tokens: number;
  /** Those that are predicted. */
  readonly predicted: number;
}

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

/** Tokens in one pass, or the longest stretch where that is more. */
const TOKENS = 1024;
/** Most rows that go through the head at once: of a batch of questions few predict anything. */
const HEAD_ROWS = 256;
/** Heads whose rows may wait on the GPU. */
const RING = 16;
const [DECODER, HEAD, ROWS, LABELS, VALUES] = ["decoder", "head", "head.rows", "head.labels", "values"];

interface Sizes {
  readonly tokens: number;
  readonly rows: number;
  readonly positions: number;
}

/** One of the models as it is traced. */
interface Role {
  readonly name: string;
  readonly model: Model;
  readonly run: OpenedModel["run"];
}

/** Models on the device, ready to score. */
export class TokenScorer {
  readonly #executable: Executable;
  readonly #weights: ReadonlyMap<string, GpuBuffer>;
  readonly #gpu: Gpu;
  readonly #sizes: Sizes;
  readonly #measures: readonly string[];
  readonly #roles: readonly Role[];

  private constructor(
    gpu: Gpu,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
    sizes: Sizes,
    measures: readonly string[],
    roles: readonly Role[],
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
    const roles = rolesOf(learner, teacher);
    const terms = termsOf(registry, teacher !== undefined, topK);
    const sizes = sizesOf(work, roles[0]!.model.config.vocabularySize, gpu.description);
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
    const roles = rolesOf(learner, teacher);
    const sizes = sizesOf(work, roles[0]!.model.config.vocabularySize, device);
    return planScoring(roles, termsOf(registry, teacher !== undefined, topK), sizes, device);
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
      [{ name: VALUES, block: HEAD, words: this.#measures.length * this.#sizes.rows }],
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
        for (const { name } of this.#roles) await runInSlices(this.#executable, `${name} ${DECODER}`);
        const rows = headRows(batch.map((i) => shared[i]!), stretches);
        for (let first = 0; first < rows.length; first += this.#sizes.rows) {
          const part = rows.slice(first, first + this.#sizes.rows);
          const column = (of: (row: HeadRow) => number, filler: number) =>
            Int32Array.from({ length: this.#sizes.rows }, (_, i) => (part[i] ? of(part[i]) : filler));
          this.#executable.write(ROWS!, column(({ position }) => position, -1));
          this.#executable.write(LABELS!, column(({ label }) => label, IGNORED_LABEL));
          await runInSlices(this.#executable, HEAD!);
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

function rolesOf(learner: OpenedModel, teacher: OpenedModel | undefined): Role[] {
  const role = (name: string, { model, run }: OpenedModel): Role => ({ name, model, run });
  if (!teacher) return [role("model", learner)];
  if (teacher.run) {
    throw new InputError("the teacher is a run with an adapter that cannot be merged", {
      where: teacher.model.path,
      hint: "Name a model: a folder, a GGUF file or hf:ORG/NAME.",
    });
  }
  const difference = vocabularyDifference(teacher.tokenizer, learner.tokenizer);
  if (difference) {
    throw new InputError(`has another vocabulary than the teacher: ${difference}`, {
      where: learner.model.path,
      hint: "Agreement is measured token by token, so both must mean the same by their ids.",
    });
  }
  const roles = [role("model", learner), role("teacher", teacher)];
  const rows = roles.map(({ model }) => model.config.vocabularySize);
  // Embeddings are padded to different sizes: what stands behind the shorter one has no meaning.
  return rows[0] === rows[1]
    ? roles
    : roles.map((role) => ({ ...role, model: role.model.withRows(Math.min(...rows)) }));
}

function termsOf(registry: Registry, hasTeacher: boolean, topK: readonly number[]): ResolvedLoss[] {
  const term = (loss: Divergence | RowLoss, options: Record<string, unknown> = {}): ResolvedLoss => ({
    ...{ loss, options, name: loss.id, weight: 0, temperature: 1, monitor: true },
  });
  const builtin = (id: string) => {
    const loss = registry.get("loss", id) as Divergence | RowLoss;
    return term(loss, registry.options(loss, {}, id) as Record<string, unknown>);
  };
  return [
    ...[builtin(ALONE.loss), term(confidence), term(accuracy)],
    ...(hasTeacher
      ? [
        ...[builtin(BESIDE.forwardKl), term(reverseKl), builtin(BESIDE.jensenShannon), term(agreement)],
        ...topK.flatMap((k) => [term(topOverlap(k)), term(teacherFirstAmong(k))]),
      ]
      : []),
  ];
}

function sizesOf(
  { longest, tokens, predicted }: ScoringWork,
  vocabulary: number,
  device: DeviceDescription,
): Sizes {
  const head = { tokensPerMicroBatch: Math.min(HEAD_ROWS, predicted), headChunk: "auto" as const };
  const stream = Math.max(longest, Math.min(TOKENS, tokens));
  return {
    tokens: Math.ceil(stream / 64) * 64,
    rows: headChunks(head, vocabulary, device).chunkRows,
    positions: longest,
  };
}

/** Plans the program: a decoder for each model, and the head of all over some rows. */
function planScoring(
  roles: readonly Role[],
  terms: readonly ResolvedLoss[],
  sizes: Sizes,
  device: DeviceDescription,
): Plan {
  const program = new Program();
  const stream = { length: sizes.positions };
  const hiddenOf = (graph: Graph, { name, model }: Role) =>
    graph.state(`${name}.hidden`, [sizes.tokens, model.config.hiddenSize], "f32", "program");
  for (const role of roles) {
    const graph = program.block(`${role.name} ${DECODER}`);
    const { run } = role;
    const { hidden } = traceModel(graph, role.name, role.model, sizes.tokens, stream, {
      attach: run && ((prompt) => run.attach(graph, prompt)),
    });
    assign(hiddenOf(graph, role), [hidden], (_, h) => h!);
  }
  const graph = program.block(HEAD!);
  const index = graph.input(ROWS!, [sizes.rows], "i32");
  const side = (role: Role): HeadInput => {
    const { run, model, name } = role;
    const prompt = () =>
      gatherRows(streamPrompts(graph, model, graph.input("tokens", [sizes.tokens], "i32")), index);
    const hooks = run?.attach(graph, prompt);
    const head = traceHead(graph, name, model, sizes.tokens, stream, hooks);
    return headInput({ ...head, hidden: gatherRows(hiddenOf(graph, role), index) }, run !== undefined);
  };
  const [learner, target] = roles.map(side) as [HeadInput, HeadInput?];
  const { values } = chunkedLoss(graph, {
    learner,
    ...(target ? { target: headTarget(target) } : {}),
    labels: graph.input(LABELS!, [sizes.rows], "i32") as Tensor,
    ...{ losses: rowLosses(terms, roles[0]!.model.config.vocabularySize, graph) },
    ...{ chunkRows: sizes.rows, gradient: false },
  });
  graph.output(VALUES!, values);
  return plan(program, device);
}

function rowLosses(terms: readonly ResolvedLoss[], vocabulary: number, graph: Graph): RowLosses {
  const needsTarget = terms.some(({ name }) => name === BESIDE.forwardKl);
  return {
    ...{ valueCount: terms.length, needsTarget, needsCache: false, tokenMasks: false },
    weights: terms.map(() => undefined),
    compile: (device, gradient) => {
      const { label, wgsl, memoryWords, size, groups } = compileRowLoss(terms, { vocabulary }, device, {
        gradient,
      });
      return {
        ...{ name: label, wgsl, memoryWords, groups },
        size: (rows, part) => size(rows, (name) => graph.scalar(name), part),
      };
    },
  };
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
