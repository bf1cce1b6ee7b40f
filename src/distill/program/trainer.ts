/**
 * Training on one device: a planned and compiled program, replayed. Knows nothing of files, runs or terminals.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../../base/random.ts";
import { LimbeckError } from "../../base/errors.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { KernelTime } from "../../gpu/profiler.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { biasCorrections } from "../../tensor/ops/adamw.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { PackedBatch } from "../../text/packing.ts";
import { uploadWeights } from "../inputs/models.ts";
import { fullShape, type StudentShape } from "../inputs/shape_space.ts";
import { type ControlledOptions, Controllers } from "../objective/controllers.ts";
import { DRAWN_LOG_PROBABILITIES } from "../objective/importance.ts";
import { LOSS_SUMS } from "../objective/loss_sets.ts";
import { type Evaluation, withCalibrationError } from "../objective/monitors.ts";
import { type MarkedBatch, TokenMasks } from "../objective/token_masks.ts";
import { shareScalars } from "../objective/several_targets.ts";
import { learningRateAt } from "../recipe/schedule.ts";
import { RANDOM_KEY } from "../trained/model_adapter.ts";
import { FLAT, type FlatState, type ParameterLayout } from "../trained/parameters.ts";
import { AlignedInputs } from "./aligned_groups.ts";
import { type CountedLosses, measureLosses, writeBatch } from "./metrics/measure.ts";
import { MetricsRing } from "./metrics/metrics_ring.ts";
import { ONE_FOR_ALL } from "./shapes/one_for_all.ts";
import {
  alignedProgram,
  otherTokens,
  type PlannedTraining,
  privilegedProgram,
  type TrainingSetup,
} from "./plan_training.ts";
import { type PrivilegedProgram, writePrivileged } from "./privileged.ts";
import { rolloutBlocks } from "./written/rollout_blocks.ts";
import { type SampleChoice, taughtTokens, unneededLayers, writeChoice } from "./sample_choice.ts";
import { sandwich } from "./shapes/sandwich.ts";
import { ShapeSwitch } from "./shapes/shape_switch.ts";
import { runInSlices } from "./slices.ts";
import {
  stepMeans,
  type StepMetrics,
  stepMetrics,
  stepSources,
  type StepTag,
} from "./metrics/step_metrics.ts";
import { TeacherStream } from "./streamed/teacher_stream.ts";
import { COPY_KEEPS } from "./update_block.ts";
import { copyKeeps } from "./own_teacher.ts";
import type { TargetFeed, TargetSource } from "./fed/teacher_rows.ts";
import { drawnLogProbabilities } from "./written/written_samples.ts";
import { cacheOf, keepsPart, teachersBySample, weightAt } from "../recipe/teachers.ts";

/** Options of {@linkcode Trainer.create}. */
export interface TrainerOptions {
  /** Where the objective's target comes from, if not from the teacher itself. Stays the caller's to close. */
  readonly target?: TargetSource;
  /** Which teacher each sample has, of training and held out, where each has one of several. */
  readonly choice?: SampleChoice;
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
  readonly #target: TargetFeed | undefined;
  readonly #shapes: ShapeSwitch | undefined;
  readonly #teacher: TeacherStream | undefined;
  /** Layers of teachers that the batch in the inputs has no need of. */
  #unneeded: ReadonlySet<string> = new Set();
  readonly #aligned: AlignedInputs | undefined;
  readonly #privileged: PrivilegedProgram | undefined;

  private constructor(
    gpu: Gpu,
    setup: TrainingSetup,
    planned: PlannedTraining,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
    options: TrainerOptions,
    fixed: Float32Array,
  ) {
    this.gpu = gpu;
    this.setup = setup;
    this.planned = planned;
    this.executable = executable;
    this.weights = weights;
    this.controllers = new Controllers(setup.objective.rows, setup.recipe.train.steps);
    this.#options = options;
    this.#target = options.target?.feed(planned.choices.tokens);
    this.#ring = new MetricsRing(gpu, executable, stepSources(setup, planned), RING);
    const aligned = alignedProgram(setup, planned.choices.aligned);
    if (aligned) {
      this.#aligned = new AlignedInputs(executable, planned.choices.tokens, aligned, setup.objective.groups);
    }
    this.#privileged = privilegedProgram(setup, planned.choices);
    if (planned.streamed) {
      const run = (block: string) => this.#run(block);
      this.#teacher = new TeacherStream(executable, planned.streamed, weights, run, options.onSlice);
    }
    if (!setup.oneForAll) return;
    this.#shapes = new ShapeSwitch(executable, setup, fixed);
    this.#shapes.set(fullShape(setup.oneForAll.space));
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
    const models = [...setup.teachers, setup.student];
    const weights = await uploadWeights(gpu, planned.plan, models, (done, total) => {
      options.onProgress?.(`weights ${Math.round(100 * done / total)} %`);
    });
    try {
      const executable = await compile(gpu, planned.plan, {
        weights,
        // Their row kernels are the largest, and not every trainer measures.
        later: [
          ...["evaluate", "evaluateTeacher"].filter((block) => planned.plan.blocks.has(block)),
          ...rolloutBlocks(planned.plan),
        ],
        ...(options.profile ? { profile: true } : {}),
      });
      const { trainables, recipe } = setup;
      const fixed = planned.plan.storages.has(FLAT.fixed)
        ? (await trainables.initialValues(recipe.train.seed)).fixed
        : new Float32Array();
      if (fixed.length > 0) executable.write(FLAT.fixed, fixed);
      return new Trainer(gpu, setup, planned, executable, weights, options, fixed);
    } catch (error) {
      for (const buffer of weights.values()) buffer.destroy();
      throw error;
    }
  }

  /** Sets the trainable parameters; moments and states begin anew, or are set too. */
  setState(parameters: Float32Array, rest?: Omit<FlatState, "parameters">): void {
    this.executable.write(FLAT.parameters, parameters);
    for (const name of ["m", "v"] as const) {
      if (rest) this.executable.write(FLAT[name], rest[name]);
      else this.executable.clear(FLAT[name]);
    }
    const { trainables } = this.setup;
    if (this.#hasStates) this.executable.write(FLAT.states, rest?.states ?? trainables.initialStates());
    const { total } = trainables.copy;
    if (total > 0) this.executable.write(FLAT.copy, rest?.copy ?? parameters.subarray(0, total));
  }

  /** Reads back all that training changes. Waits for all queued work. */
  async readState(): Promise<FlatState> {
    const { layout, states, copy } = this.setup.trainables;
    const names = [
      ...[FLAT.parameters, FLAT.m, FLAT.v],
      ...(this.#hasStates ? [FLAT.states] : []),
      ...(copy.total > 0 ? [FLAT.copy] : []),
    ];
    const back = await this.executable.read(names);
    const get = (name: string, { total }: ParameterLayout) =>
      (back.get(name)?.data as Float32Array | undefined)?.subarray(0, total) ?? new Float32Array(total);
    return {
      parameters: get(FLAT.parameters, layout),
      m: get(FLAT.m, layout),
      v: get(FLAT.v, layout),
      states: get(FLAT.states, states),
      ...(copy.total > 0 ? { copy: get(FLAT.copy, copy) } : {}),
    };
  }

  /** Whether anything is carried from step to step beside parameters and moments. */
  get #hasStates(): boolean {
    return this.planned.plan.storages.has(FLAT.states);
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
   * @param shapes Shapes of the student, the whole one first, where several are trained at once; those that the seed chooses when absent
   */
  async step(
    step: number,
    window: readonly PackedBatch[],
    shapes: readonly StudentShape[] = this.#chosenShapes(step),
  ): Promise<void> {
    const { recipe, objective: { masks } } = this.setup;
    const marked = window.map((batch) => masks.mark(batch));
    const counts = masks.none.map((_, bit) => marked.reduce((sum, m) => sum + m.counts[bit]!, 0));
    const learningRate = learningRateAt(step, recipe.train);
    const controlled = this.controllers.values();
    this.#setScalars(step, learningRate, counts, controlled);
    await this.#runWindow("microBatch", step, window, marked);
    for (const [i, shape] of shapes.entries()) {
      if (i > 0) await this.#runShape(i, shape, step, window, marked);
    }
    await this.#run("update");
    const tokens = window.reduce((sum, b) => sum + b.segment.reduce((n, s) => n + Number(s >= 0), 0), 0);
    const supervisedTokens = counts[0]!;
    const taught = window.map((batch) => this.#taughtTokens(batch)).reduce((sum, own) =>
      sum.map((count, i) => count + own[i]!)
    );
    this.#ring.push({
      ...{ step: step + 1, learningRate, supervisedTokens, tokens, counts, controlled, shapes, taught },
    });
  }

  #taughtTokens(batch: PackedBatch): number[] {
    const teachers = teachersBySample(this.setup.recipe.teacher);
    return teachers === 0 ? [] : taughtTokens(batch, this.#choice, teachers);
  }

  /** @throws {LimbeckError} nobody has said which teacher each sample has */
  get #choice(): SampleChoice {
    const { choice } = this.#options;
    if (!choice) throw new LimbeckError("no sample has a teacher; this is a bug");
    return choice;
  }

  /** The shapes of a step; none where the student has one. */
  #chosenShapes(step: number): StudentShape[] {
    const { oneForAll, recipe: { train } } = this.setup;
    return oneForAll ? sandwich(oneForAll.space, train.oneForAll!.random, train.seed, step) : [];
  }

  /** Runs the micro-batches of a window, for the i-th shape where there are several. */
  async #runWindow(
    block: string,
    step: number,
    window: readonly PackedBatch[],
    marked: readonly MarkedBatch[],
    i = 0,
    without?: ReadonlySet<string>,
  ): Promise<void> {
    const { executable } = this;
    const seed = splitSeed(this.setup.recipe.train.seed);
    const teacher = this.#teacherOf(block);
    for (const [batchIndex, batch] of window.entries()) {
      const place = batchIndex % (teacher?.most ?? 1);
      if (place === 0) await teacher?.pass(window.slice(batchIndex, batchIndex + teacher.most));
      executable.setScalar("accumulate", batchIndex === 0 ? 0 : 1);
      if (executable.hasScalar(RANDOM_KEY)) {
        executable.setScalarWord(RANDOM_KEY, philox4x32([step, batchIndex, i, RANDOM_SITE], seed)[0]);
      }
      await this.#write(batch, marked[batchIndex]!);
      teacher?.select(place);
      if (this.#shapes) {
        const { tokens } = this.planned.choices;
        const rows = Int32Array.from({ length: tokens }, (_, t) => batchIndex * tokens + t);
        executable.write(ONE_FOR_ALL.rows, rows);
      }
      await this.#run(block, without);
    }
  }

  /** The layers of a streamed teacher; undefined where the teacher is there. */
  get streamed(): TeacherStream | undefined {
    return this.#teacher;
  }

  /** What batches have to be brought through before a block sees them. */
  #teacherOf(block: string): TeacherStream | undefined {
    return this.#teacher?.serves(block) ? this.#teacher : undefined;
  }

  /** Adds the gradients of the i-th shape of a step to those of the shapes before it. */
  async #runShape(
    i: number,
    shape: StudentShape,
    step: number,
    window: readonly PackedBatch[],
    marked: readonly MarkedBatch[],
  ): Promise<void> {
    const { space, objective } = this.setup.oneForAll!;
    const without = this.#shapes!.set(shape);
    objective.setScalars(this.executable, step, objective.masks.none.map(() => 1));
    this.executable.clear(FLAT.shapeGradients);
    await this.#runWindow(ONE_FOR_ALL.shape, step, window, marked, i, without);
    await this.#run(ONE_FOR_ALL.balance(i));
    this.#shapes!.set(fullShape(space));
  }

  /** Writes what changes from step to step. @param counts Tokens of the window in each mask */
  #setScalars(
    step: number,
    learningRate: number,
    counts: readonly number[],
    controlled: ControlledOptions,
  ): void {
    const { recipe, objective, trainables } = this.setup;
    const { executable } = this;
    objective.setScalars(executable, step, counts, controlled);
    this.#setShares(step);
    executable.setScalar("oneOverTokens", 1 / Math.max(1, counts[0]!));
    executable.setScalar("learningRate", learningRate);
    executable.setScalars(Object.entries(biasCorrections(recipe.train, step + 1)));
    if (trainables.copy.total > 0) executable.setScalar(COPY_KEEPS, copyKeeps(step, recipe.teacher));
    for (const { work } of trainables.parts) {
      executable.setScalars(Object.entries(work?.scalars(step + 1) ?? {}));
    }
  }

  /** Writes what each of several teachers weighs. @param step Infinity for the end of its course */
  #setShares(step: number): void {
    const { teachers, combine } = this.setup.recipe.teacher;
    if (combine !== "mixture" && combine !== "product") return;
    this.executable.setScalars(shareScalars(teachers!.map((teacher) => weightAt(teacher, step))));
  }

  /** Whether {@linkcode collect} must be called before the next step. */
  get mustCollect(): boolean {
    return this.#ring.full || (this.controllers.active && !this.#ring.empty);
  }

  /** Waits for the queued steps and returns their numbers, in order. */
  async collect(): Promise<StepMetrics[]> {
    return (await this.#ring.collect()).map(({ tag, values }) => {
      const means = stepMeans(this.setup, tag, values);
      this.controllers.advance(tag.step - 1, means);
      return stepMetrics(this.setup, tag, means, values);
    });
  }

  /**
   * Mean losses and monitors of the student with its adapter as it is, without dropout.
   *
   * @param shape Where several are trained at once; the whole model when absent
   */
  async evaluate(samples: readonly EncodedSample[], shape?: StudentShape): Promise<Evaluation> {
    const { objective: { evaluation, pairs, groups }, features, oneForAll } = this.setup;
    // Of pairs, the loss and how often the chosen text is the likelier one.
    const ofPairs = pairs.flatMap(({ terms: [term] }) =>
      ["", " accuracy"].map((what) => ({ ...term!, name: term!.name + what }))
    );
    const terms = [
      ...evaluation.terms,
      ...features.flatMap((f) => f.terms),
      ...ofPairs,
      ...groups.flatMap((g) => g.terms),
    ];
    const without = shape && this.#shapes?.set(shape);
    const measured = await this.#measure("evaluate", LOSS_SUMS.evaluate, terms, samples, without);
    if (oneForAll) this.#shapes!.set(fullShape(oneForAll.space));
    return withCalibrationError(measured);
  }

  /** Cross-entropy of the teacher. */
  async evaluateTeacher(samples: readonly EncodedSample[]): Promise<Evaluation> {
    const { terms } = this.setup.objective.crossEntropy;
    const { choices } = this.planned;
    if (this.#aligned && choices.aligned) {
      return await this.#measureAligned(terms, samples, choices.aligned.tokens);
    }
    return await this.#measure("evaluateTeacher", LOSS_SUMS.teacher, terms, samples);
  }

  /** Cross-entropy of a teacher with a tokenizer of its own, over its own tokens. */
  async #measureAligned(
    terms: CountedLosses["terms"],
    samples: readonly EncodedSample[],
    tokensPerBatch: number,
  ): Promise<Evaluation> {
    const block = "evaluateTeacher";
    const own = samples.flatMap(({ source, other }) =>
      other && other.ids.length > 0 ? [{ ...other, source }] : []
    );
    await this.executable.ready(block);
    this.setup.objective.setEvaluationScalars(this.executable);
    return await measureLosses(this.executable, own, {
      ...{ block, state: LOSS_SUMS.teacher, terms, masks: new TokenMasks([]), tokensPerBatch },
      run: () => this.#run(block),
      write: (batch) => Promise.resolve(this.#aligned!.writeTeacher(batch)),
    });
  }

  async #measure(
    block: string,
    state: string,
    terms: CountedLosses["terms"],
    samples: readonly EncodedSample[],
    without?: ReadonlySet<string>,
  ): Promise<Evaluation> {
    const { objective } = this.setup;
    await this.executable.ready(block);
    const teacher = this.#teacherOf(block);
    objective.setEvaluationScalars(this.executable);
    this.#setShares(Infinity);
    return await measureLosses(this.executable, samples, {
      ...{ block, state, terms, masks: objective.masks },
      tokensPerBatch: this.planned.choices.tokens,
      otherTokens: otherTokens(this.planned.choices),
      run: () => this.#run(block, without),
      ahead: teacher && { most: teacher.most, run: (batches) => teacher.pass(batches) },
      write: async (batch, marked, i) => {
        await this.#write(batch, marked);
        teacher?.select(i);
      },
    });
  }

  /** Puts a batch, and what is stored of its target, into the program's inputs. */
  async #write(batch: PackedBatch, marked: MarkedBatch): Promise<void> {
    writeBatch(this.executable, batch, marked);
    if (teachersBySample(this.setup.recipe.teacher) > 0) {
      const { teachers, recipe } = this.setup;
      const named = recipe.teacher.teachers!.map(({ name }, i) => ({ name: name!, model: teachers[i]! }));
      const isPart = (i: number) => keepsPart(cacheOf(recipe.teacher, i));
      writeChoice(this.executable, batch, this.#choice, marked, isPart);
      this.#unneeded = unneededLayers(batch, this.#choice, named);
    }
    this.#aligned?.write(batch);
    if (this.#privileged) writePrivileged(this.executable, batch, this.#privileged);
    if (this.planned.plan.storages.has(DRAWN_LOG_PROBABILITIES)) {
      this.executable.write(DRAWN_LOG_PROBABILITIES, drawnLogProbabilities(batch));
    }
    if (!this.#target) return;
    await this.#target.fill(batch, marked);
    for (const [name, data] of this.#target.inputs) {
      if (this.planned.plan.storages.has(name)) this.executable.write(name, data);
    }
  }

  async #run(block: string, without: ReadonlySet<string> = this.#unneeded): Promise<void> {
    await runInSlices(this.executable, block, this.#options.onSlice, without);
  }

  /** Frees everything on the device that belongs to this trainer. */
  destroy(): void {
    this.#teacher?.close();
    this.#ring.destroy();
    this.executable.destroy();
    for (const buffer of this.weights.values()) buffer.destroy();
  }
}

/** Distinguishes dropout and noise from other users of a seed. */
const RANDOM_SITE = 0x64726f70;
