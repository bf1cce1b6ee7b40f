/**
 * Training on one device: a planned and compiled program, replayed. Knows nothing of files, runs or terminals.
 *
 * @module
 */
import { DeviceError } from "../../base/errors.ts";
import type { AdapterDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { KernelTime } from "../../gpu/profiler.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { biasCorrections } from "../../tensor/ops/adamw.ts";
import { type Plan, plan } from "../../tensor/plan.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { PackedBatch } from "../../text/packing.ts";
import { philox4x32, splitSeed } from "../../base/random.ts";
import { type ModelAdapter, RANDOM_KEY } from "../trained/model_adapter.ts";
import { attachOf, headParameters, type Trained } from "../trained/attach.ts";
import { type ControlledOptions, Controllers } from "../objective/controllers.ts";
import { type CountedLosses, measureLosses, tokenMeans, writeBatch } from "./measure.ts";
import { type Evaluation, withCalibrationError } from "../objective/monitors.ts";
import { memoryError, runMemory } from "./memory.ts";
import type { ModelFeatureLoss } from "../objective/feature_losses.ts";
import { MetricsRing } from "./metrics_ring.ts";
import { type Model, uploadWeights } from "../inputs/models.ts";
import { type Objective } from "../objective/objective.ts";
import { LOSS_SUMS } from "../objective/loss_sets.ts";
import { FLAT, type FlatState, type ParameterLayout } from "../trained/parameters.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { learningRateAt } from "../recipe/schedule.ts";
import { runInSlices } from "./slices.ts";
import { CACHED_INPUTS, type RowArrays, type TargetSource } from "./teacher_rows.ts";
import type { MarkedBatch } from "../objective/token_masks.ts";
import type { Trainables } from "../trained/trainables.ts";
import type { TrainedTensors } from "../trained/trained_tensors.ts";
import { type FrozenPlan, type TracedModel, trainingProgram } from "./training_program.ts";

export type { FrozenPlan } from "./training_program.ts";

/** What a trainer trains. */
export interface TrainingSetup {
  readonly recipe: Recipe;
  readonly teacher: Model;
  readonly student: Model;
  /** The student's, if it has one. */
  readonly adapter?: ModelAdapter;
  /** Tensors of the student that are trained themselves. */
  readonly tensors?: TrainedTensors;
  /** The teacher's, where it trains along. */
  readonly teacherAdapter?: ModelAdapter;
  readonly objective: Objective;
  /** The objective's losses over inner values, on these models. */
  readonly features: readonly ModelFeatureLoss[];
  readonly trainables: Trainables;
}

/** A training program planned for an adapter. */
export interface PlannedTraining {
  readonly frozen: FrozenPlan;
  readonly plan: Plan;
}

/** Bytes of one chunk of logits that the head aims at: large enough for full speed, small beside the rest. */
const HEAD_CHUNK_BYTES = 64 * 2 ** 20;

/** Bytes within which activations are kept rather than recomputed, where the recipe names no limit. */
const DEFAULT_BUDGET = 8 * 2 ** 30;

/**
 * Plans the training of a recipe. Pure: needs no GPU.
 *
 * @param frozen A plan to follow exactly, from the manifest of a run that is resumed
 * @param sampleBytes Bytes that writing samples takes beside the program; they count towards the limit
 * @throws {DeviceError} with the numbers and the knobs if it does not fit
 */
export function planTraining(
  setup: TrainingSetup,
  adapter: AdapterDescription,
  frozen?: FrozenPlan,
  sampleBytes = 0,
): PlannedTraining {
  const { recipe } = setup;
  if (frozen && frozen.family !== adapter.family) {
    throw new DeviceError(
      `the run was planned for ${frozen.family} kernels, this adapter (${adapter.name}) wants ${adapter.family}`,
      { hint: "Resume on the adapter the run began on, or start a new run." },
    );
  }
  const build = (choice: FrozenPlan): PlannedTraining => ({
    frozen: choice,
    plan: plan(programFor(setup, choice), adapter),
  });
  if (frozen) return build(frozen);
  const { tokens, chunkRows } = headChunks(recipe.train, setup.student.config.vocabularySize, adapter);
  const allowed = recipe.limits.gpuBytes;
  const budget = (allowed ?? DEFAULT_BUDGET) - sampleBytes;
  const modes = { auto: [false, true], on: [true], off: [false] }[recipe.train.activationCheckpointing];
  let last: PlannedTraining | undefined;
  for (const recompute of modes) {
    last = build({ tokens, chunkRows, recompute, family: adapter.family });
    if (last.plan.totalBytes <= budget) return last;
  }
  if (allowed === undefined) return last!;
  const memory = runMemory(last!.plan, sampleBytes);
  throw memoryError(memory, { bytes: allowed, name: "limits.gpuBytes" }, recipe, last!.frozen.recompute);
}

/** Rows of the head at a time, and T rounded up to whole chunks; both multiples of 64. */
export function headChunks(
  { tokensPerMicroBatch, headChunk }: Pick<Recipe["train"], "tokensPerMicroBatch" | "headChunk">,
  vocabulary: number,
  adapter: AdapterDescription,
): { tokens: number; chunkRows: number } {
  const most = Math.min(HEAD_CHUNK_BYTES, adapter.maxBindingSize) / (vocabulary * 4);
  const wanted = headChunk === "auto" ? most : headChunk;
  const rows = Math.max(64, Math.floor(Math.min(wanted, tokensPerMicroBatch + 63) / 64) * 64);
  const chunks = Math.ceil(tokensPerMicroBatch / rows);
  // Spread evenly, so that the last chunk is not mostly filler.
  const chunkRows = Math.ceil(tokensPerMicroBatch / chunks / 64) * 64;
  return { tokens: chunks * chunkRows, chunkRows };
}

function programFor(setup: TrainingSetup, choice: FrozenPlan) {
  const { recipe, objective, features, trainables } = setup;
  const { beta1, beta2, epsilon, clip, weightDecay } = recipe.train;
  const traced = (model: Model, trained: Trained): TracedModel => {
    const attach = attachOf(trained);
    return {
      model,
      ...(attach ? { attach } : {}),
      adaptsHead: trained.adapter?.adaptsHead ?? false,
      headParameters: headParameters(trained),
    };
  };
  return trainingProgram({
    models: {
      teacher: traced(setup.teacher, setup.teacherAdapter ? { adapter: setup.teacherAdapter } : {}),
      student: traced(setup.student, setup),
    },
    tokens: choice.tokens,
    chunkRows: choice.chunkRows,
    positions: recipe.data.contextLength,
    objective,
    features,
    trainables,
    recompute: choice.recompute,
    optimiser: { beta1, beta2, epsilon, clip, weightDecay },
  });
}

/** Whatever sums losses up in a training step. */
function summed(
  { objective, features }: TrainingSetup,
): readonly { readonly sums: string; readonly terms: CountedLosses["terms"] }[] {
  return [...objective.passes, ...features];
}

/** Numbers of one optimiser step. */
export interface StepMetrics {
  /** Steps done, from 1. */
  readonly step: number;
  readonly loss: number;
  /**
   * Each over the tokens that it counts; a loss that counts none of them is not there. `penalty` is that of adapters which have one, and no
   * part of `loss`.
   */
  readonly losses: Readonly<Record<string, number>>;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly supervisedTokens: number;
  readonly tokens: number;
  /** A gradient was NaN or infinite: the optimiser wrote nothing. */
  readonly nonFinite: boolean;
  /** What controllers had set for it, such as `taid.t`. */
  readonly controlled: Readonly<Record<string, number>>;
}

interface StepTag {
  readonly step: number;
  readonly learningRate: number;
  readonly supervisedTokens: number;
  readonly tokens: number;
  /** Tokens in each mask. */
  readonly counts: readonly number[];
  readonly controlled: ControlledOptions;
}

/** Options of {@linkcode Trainer.create}. */
export interface TrainerOptions {
  /** Where the objective's target comes from, if not from the teacher itself. Stays the caller's to close. */
  readonly cache?: TargetSource;
  readonly profile?: boolean;
  readonly onProgress?: (message: string) => void;
  /** Called between slices of work that take a fraction of a second each. */
  readonly onSlice?: () => void;
}

/** Steps whose numbers may wait on the GPU. */
const RING = 32;

/** A compiled training program with its weights on the device. */
export class Trainer {
  readonly gpu: Gpu;
  readonly setup: TrainingSetup;
  readonly planned: PlannedTraining;
  readonly executable: Executable;
  /** Weights of both models by storage name, shared with other programs such as a generator. */
  readonly weights: ReadonlyMap<string, GpuBuffer>;
  /** What sets options of the losses from step to step. */
  readonly controllers: Controllers;
  readonly #options: TrainerOptions;
  readonly #ring: MetricsRing<StepTag>;
  readonly #cached: RowArrays | undefined;

  private constructor(
    gpu: Gpu,
    setup: TrainingSetup,
    planned: PlannedTraining,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
    options: TrainerOptions,
  ) {
    this.gpu = gpu;
    this.setup = setup;
    this.planned = planned;
    this.executable = executable;
    this.weights = weights;
    this.controllers = new Controllers(setup.objective.rows, setup.recipe.train.steps);
    this.#options = options;
    this.#cached = options.cache?.arrays(planned.frozen.tokens);
    this.#ring = new MetricsRing(gpu, executable, [
      ...summed(setup).map(({ sums, terms }) => ({ name: sums, words: terms.length })),
      { name: "norm", block: "update", words: 2 },
      ...(hasPenalty(planned) ? [{ name: "penalty", block: "update", words: 1 }] : []),
    ], RING);
  }

  /**
   * Uploads the weights and compiles the program.
   *
   * @throws {DeviceError} if memory does not suffice
   */
  static async create(
    gpu: Gpu,
    setup: TrainingSetup,
    planned: PlannedTraining,
    options: TrainerOptions = {},
  ): Promise<Trainer> {
    const models = [setup.teacher, setup.student];
    const weights = await uploadWeights(gpu, planned.plan, models, (done, total) => {
      options.onProgress?.(`weights ${Math.round(100 * done / total)} %`);
    });
    try {
      const executable = await compile(gpu, planned.plan, {
        weights,
        ...(options.profile ? { profile: true } : {}),
      });
      if (planned.plan.storages.has(FLAT.frozen)) {
        const { trainables, recipe } = setup;
        executable.write(FLAT.frozen, (await trainables.initialValues(recipe.train.seed)).fixed);
      }
      return new Trainer(gpu, setup, planned, executable, weights, options);
    } catch (error) {
      for (const buffer of weights.values()) buffer.destroy();
      throw error;
    }
  }

  /** Sets the trainable parameters; the optimiser and what else is kept from step to step begin anew, or are set too. */
  setState(parameters: Float32Array, rest?: Omit<FlatState, "parameters">): void {
    this.executable.write(FLAT.parameters, parameters);
    for (const name of ["m", "v"] as const) {
      if (rest) this.executable.write(FLAT[name], rest[name]);
      else this.executable.clear(FLAT[name]);
    }
    if (this.#keeps) {
      this.executable.write(FLAT.kept, rest?.kept ?? this.setup.trainables.initialStates());
    }
  }

  /** Reads back all that training changes. Waits for all queued work. */
  async readState(): Promise<FlatState> {
    const { layout, kept } = this.setup.trainables;
    const names = [FLAT.parameters, FLAT.m, FLAT.v, ...(this.#keeps ? [FLAT.kept] : [])];
    const back = await this.executable.read(names);
    const get = (name: string, { total }: ParameterLayout) =>
      (back.get(name)?.data as Float32Array | undefined)?.subarray(0, total) ?? new Float32Array(total);
    return {
      parameters: get(FLAT.parameters, layout),
      m: get(FLAT.m, layout),
      v: get(FLAT.v, layout),
      kept: get(FLAT.kept, kept),
    };
  }

  /** Whether anything is kept from step to step beside parameters and moments. */
  get #keeps(): boolean {
    return this.planned.plan.storages.has(FLAT.kept);
  }

  /**
   * Time by kernel since the last reset, longest first; undefined without `profile`. What is measured waits on the GPU until it is asked
   * for, so ask now and then.
   */
  async profile(options: { reset?: boolean } = {}): Promise<KernelTime[] | undefined> {
    const { profiler } = this.executable;
    const kernels = await profiler?.report();
    if (options.reset) profiler?.reset();
    return kernels;
  }

  /** Gradients of the last window, before clipping, by parameter name. */
  async readGradients(): Promise<Map<string, Float32Array>> {
    const back = await this.executable.read([FLAT.gradients]);
    return this.setup.trainables.layout.gather(back.get(FLAT.gradients)!.data as Float32Array);
  }

  /**
   * Queues one optimiser step over a window of micro-batches. Collect first where {@linkcode mustCollect} says so: controllers set its
   * options by the numbers of the steps collected so far.
   *
   * @param step Steps done before it, from 0
   */
  async step(step: number, window: readonly PackedBatch[]): Promise<void> {
    const { recipe, objective } = this.setup;
    const { seed } = recipe.train;
    const marked = window.map((batch) => objective.masks.mark(batch));
    const counts = objective.masks.none.map((_, bit) => marked.reduce((sum, m) => sum + m.counts[bit]!, 0));
    const supervisedTokens = counts[0]!;
    const learningRate = learningRateAt(step, recipe.train);
    const { executable } = this;
    const controlled = this.controllers.values();
    objective.setScalars(executable, step, counts, controlled);
    executable.setScalar("oneOverTokens", 1 / Math.max(1, supervisedTokens));
    executable.setScalar("learningRate", learningRate);
    executable.setScalars(Object.entries(biasCorrections(recipe.train, step + 1)));
    for (const { work } of this.setup.trainables.parts) {
      executable.setScalars(Object.entries(work?.scalars(step + 1) ?? {}));
    }
    for (const [i, batch] of window.entries()) {
      executable.setScalar("keep", i === 0 ? 0 : 1);
      if (executable.hasScalar(RANDOM_KEY)) {
        executable.setScalarWord(RANDOM_KEY, philox4x32([step, i, 0, RANDOM_SITE], splitSeed(seed))[0]);
      }
      await this.#write(batch, marked[i]!);
      await this.#run("microBatch");
    }
    await this.#run("update");
    const tokens = window.reduce((sum, b) => sum + b.segment.reduce((n, s) => n + Number(s >= 0), 0), 0);
    this.#ring.push({ step: step + 1, learningRate, supervisedTokens, tokens, counts, controlled });
  }

  /** Whether {@linkcode collect} must be called before the next step. */
  get mustCollect(): boolean {
    return this.#ring.full || (this.controllers.active && !this.#ring.empty);
  }

  /** Waits for the queued steps and returns their numbers, in order. */
  async collect(): Promise<StepMetrics[]> {
    const { objective } = this.setup;
    return (await this.#ring.collect()).map(({ tag: { counts, controlled, ...tag }, values }) => {
      const [norm, penalty] = values.slice(summed(this.setup).length) as [Float32Array, Float32Array?];
      const means = Object.assign(
        {},
        ...summed(this.setup).map(({ terms }, i) => tokenMeans(terms, values[i]!, counts)),
      ) as Record<string, number>;
      this.controllers.advance(tag.step - 1, means);
      const terms = objective.at(tag.step - 1, controlled).filter(({ name }) => name in means);
      const losses = Object.fromEntries(terms.map(({ name }) => [name, means[name]!]));
      const loss = terms.reduce((sum, { name, weight }) => sum + weight * losses[name]!, 0);
      if (penalty) losses.penalty = penalty[0]!;
      return {
        ...tag,
        loss,
        losses,
        gradientNorm: norm[0]!,
        nonFinite: norm[1] !== 0,
        controlled: flat(controlled),
      };
    });
  }

  /** Mean losses and monitors of the student with its adapter as it is, without dropout. */
  async evaluate(samples: readonly EncodedSample[]): Promise<Evaluation> {
    const { objective: { evaluation }, features } = this.setup;
    const terms = [...evaluation.terms, ...features.flatMap((f) => f.terms)];
    return withCalibrationError(await this.#measure("evaluate", LOSS_SUMS.evaluate, { terms }, samples));
  }

  /** Cross-entropy of the teacher. */
  async evaluateTeacher(samples: readonly EncodedSample[]): Promise<Evaluation> {
    const { crossEntropy } = this.setup.objective;
    return await this.#measure("evaluateTeacher", LOSS_SUMS.teacher, crossEntropy, samples);
  }

  async #measure(
    block: string,
    state: string,
    { terms }: Pick<CountedLosses, "terms">,
    samples: readonly EncodedSample[],
  ) {
    const { tokens } = this.planned.frozen;
    const { objective } = this.setup;
    objective.setEvaluationScalars(this.executable);
    const counted = { terms, masks: objective.masks };
    return await measureLosses(
      ...[this.executable, block, state, counted, samples, tokens] as const,
      () => this.#run(block),
      (batch, marked) => this.#write(batch, marked),
    );
  }

  /** Puts a batch, and what a cache has of its positions, into the program's inputs. */
  async #write(batch: PackedBatch, marked: MarkedBatch): Promise<void> {
    writeBatch(this.executable, batch, marked);
    const rows = this.#cached;
    if (!rows) return;
    await this.#options.cache!.fill(batch, marked, rows);
    for (const part of ["ids", "logits", "tails"] as const) {
      if (this.planned.plan.storages.has(CACHED_INPUTS[part])) {
        this.executable.write(CACHED_INPUTS[part], rows[part]);
      }
    }
  }

  async #run(block: string): Promise<void> {
    await runInSlices(this.executable, block, this.#options.onSlice);
  }

  /** Frees everything on the device that belongs to this trainer. */
  destroy(): void {
    this.#ring.destroy();
    this.executable.destroy();
    for (const buffer of this.weights.values()) buffer.destroy();
  }
}

/** Options under one name each: `LOSS.OPTION`. */
function flat(controlled: ControlledOptions): Record<string, number> {
  return Object.fromEntries(
    Object.entries(controlled).flatMap(([loss, options]) =>
      Object.entries(options).map(([option, value]) => [`${loss}.${option}`, value])
    ),
  );
}

function hasPenalty({ plan }: PlannedTraining): boolean {
  return plan.blocks.get("update")!.outputs.has("penalty");
}

/** Distinguishes dropout and noise from other users of a seed. */
const RANDOM_SITE = 0x64726f70;
