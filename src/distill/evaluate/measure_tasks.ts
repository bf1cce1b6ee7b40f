/**
 * Models measured on tasks, one after another.
 *
 * @module
 */
import { DEFAULT_DEVICE, type DeviceDescription } from "../../gpu/description.ts";
import type { Gpu } from "../../gpu/device.ts";
import { type Measurement, writtenMeasurement } from "../../evaluation/results/measurement.ts";
import type { WrittenItem } from "../../evaluation/tasks/items.ts";
import { type EvaluationTask, isWritten, needsTeacher } from "../../evaluation/tasks/task.ts";
import { InputError } from "../../base/errors.ts";
import { familiesOf } from "../../registry/families.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Plan } from "../../tensor/plan.ts";
import { TunedDevices } from "../../tune/tuned_devices.ts";
import type { RunSource } from "../checkpoint/run_student.ts";
import { type EncodedTask, encodeTask, type OpenedTask } from "./encoded_tasks.ts";
import { OpenedModel } from "./measured_model.ts";
import type { ScoredModels, ScoringWork } from "./scoring_program.ts";
import { TokenScorer, workOf } from "./token_scorer.ts";
import { type Answer, writeAnswers } from "./written_answers.ts";

/** A model by where its weights come from. */
export interface EvaluatedModel {
  /** What writes texts: a folder, a GGUF file, or a run. */
  readonly source: string | RunSource;
  /** Opens it for scoring, where that is not the source itself. */
  readonly open?: () => Promise<OpenedModel>;
}

/** How {@linkcode TaskEvaluator} measures. */
export interface EvaluateOptions {
  readonly registry: Registry;
  /** A folder or a GGUF file. */
  readonly teacher?: string | undefined;
  /** Longest text in tokens; what a model was trained for when absent, up to 1024. */
  readonly contextLength?: number | undefined;
  /** Stays the caller's; one is opened and closed where it is absent. */
  readonly gpu?: Gpu;
  /** Where devices are opened that are not handed in. */
  readonly devices?: TunedDevices;
  /** Told what is worked on, for people. */
  readonly onStage?: (message: string) => void;
  /** Told how far the work on a model's tasks is. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Told again and again while something is computed or written. */
  readonly onBreath?: () => void;
  /** Ends the work with its reason. */
  readonly signal?: AbortSignal;
}

/** Measures models on tasks; the device and what the teacher wrote are kept between them. */
export class TaskEvaluator {
  readonly #tasks: readonly OpenedTask[];
  readonly #options: EvaluateOptions;
  readonly #devices: TunedDevices;
  readonly #teacherTexts = new Map<EvaluationTask, readonly Answer[]>();
  #gpu: Gpu | undefined;

  /** @throws {InputError} a task that needs a teacher, where there is none */
  constructor(tasks: readonly OpenedTask[], options: EvaluateOptions) {
    [this.#tasks, this.#options] = [tasks, options];
    this.#devices = options.devices ?? new TunedDevices();
    const lacking = tasks.find(({ task }) => needsTeacher(task));
    if (!lacking || options.teacher !== undefined) return;
    throw new InputError(`the task "${lacking.task.name}" compares with a teacher, and none is named`, {
      hint: "Name one: --teacher MODEL.",
    });
  }

  /**
   * Measures a model on each task, in their order.
   *
   * @throws {InputError} the model does not do, or has another vocabulary than the teacher it is compared with
   * @throws {DeviceError} without a device, or where memory does not suffice
   */
  async measure(model: EvaluatedModel, name: string): Promise<Measurement[]> {
    const found = new Map<EvaluationTask, Measurement>();
    const all = this.#tasks.length;
    let done = 0;
    const take = (task: EvaluationTask, measurement: Measurement) => {
      found.set(task, measurement);
      this.#options.onProgress?.(++done, all);
    };
    for (const beside of [false, true]) {
      const some = this.#scored(beside);
      if (some.length > 0) await this.#score(model, name, some, beside, take);
    }
    for (const { task, items } of this.#tasks) {
      if (items.kind !== "written" || !isWritten(task)) continue;
      const texts = await this.#write(model.source, name, task, items.items);
      const teacher = needsTeacher(task) ? await this.#ofTeacher(task, items.items) : undefined;
      const answers = items.items.map(({ prompt, reference }, i) => ({
        ...{ prompt, ...texts[i]! },
        reference: reference(teacher?.[i]?.text),
      }));
      take(task, writtenMeasurement(answers, task));
    }
    return this.#tasks.map(({ task }) => found.get(task)!);
  }

  async #write(
    model: string | RunSource,
    name: string,
    task: EvaluationTask,
    items: readonly WrittenItem[],
  ): Promise<Answer[]> {
    const { registry, onStage } = this.#options;
    if (!isWritten(task)) return [];
    const { chat, maxTokens, stop } = task;
    onStage?.(`${name} writes ${items.length} answers of ${task.name}`);
    return await writeAnswers(model, items.map(({ prompt }) => prompt), {
      ...{ chat, maxTokens, stop, families: familiesOf(registry), devices: this.#devices },
      onBreath: () => this.#breathe(),
    });
  }

  async #ofTeacher(task: EvaluationTask, items: readonly WrittenItem[]): Promise<readonly Answer[]> {
    const known = this.#teacherTexts.get(task);
    if (known) return known;
    const texts = await this.#write(this.#options.teacher!, "the teacher", task, items);
    this.#teacherTexts.set(task, texts);
    return texts;
  }

  async #score(
    model: EvaluatedModel,
    name: string,
    tasks: readonly OpenedTask[],
    beside: boolean,
    take: (task: EvaluationTask, measurement: Measurement) => void,
  ): Promise<void> {
    const { registry, onStage } = this.#options;
    await this.#opened(model, tasks, beside, async ({ models, encoded, work }) => {
      const plans = (device: DeviceDescription) => [TokenScorer.plan(device, registry, models, work)];
      if (this.#gpu) await this.#settle(this.#gpu, plans);
      else this.#gpu = this.#options.gpu ?? await this.#devices.open(plans);
      const scorer = await TokenScorer.create(this.#gpu, registry, models, work);
      try {
        for (const { task, stretches, measurement } of encoded) {
          onStage?.(`measuring ${name} on ${task.name}`);
          take(task, measurement(await scorer.score(stretches, () => this.#breathe())));
        }
      } finally {
        scorer.destroy();
      }
    });
  }

  /**
   * What measuring a model would put on a device, once without and once with its teacher. Pure: needs no GPU.
   *
   * @throws {InputError} as {@linkcode measure}
   */
  async plans(model: EvaluatedModel, device: DeviceDescription = DEFAULT_DEVICE): Promise<Plan[]> {
    const plans: Plan[] = [];
    for (const beside of [false, true]) {
      const some = this.#scored(beside);
      if (some.length === 0) continue;
      await this.#opened(model, some, beside, ({ models, work }) => {
        plans.push(TokenScorer.plan(device, this.#options.registry, models, work));
      });
    }
    return plans;
  }

  /** Tasks that are scored, those that need the teacher beside the model or the others. */
  #scored(beside: boolean): OpenedTask[] {
    return this.#tasks.filter(({ task }) => !isWritten(task) && needsTeacher(task) === beside);
  }

  /** Opens a model, and its teacher where that is wanted, with the tasks as their tokens. */
  async #opened(
    model: EvaluatedModel,
    tasks: readonly OpenedTask[],
    beside: boolean,
    use: (opened: {
      models: ScoredModels;
      encoded: readonly EncodedTask[];
      work: ScoringWork;
    }) => void | Promise<void>,
  ): Promise<void> {
    const { registry, teacher: teacherPath, contextLength: wanted } = this.#options;
    const open = model.open ?? (() => OpenedModel.open(model.source, registry));
    const learner = await open();
    let teacher: OpenedModel | undefined;
    try {
      if (beside) teacher = await OpenedModel.open(teacherPath!, registry);
      const contextLength = Math.min(
        learner.contextLength(wanted),
        teacher?.contextLength(wanted) ?? Infinity,
      );
      const encoded = tasks.map((task) => encodeTask(task, learner, contextLength));
      const topK = tasks.flatMap(({ task }) => (task.kind === "agreement" ? [task.topK] : []));
      const work = workOf(encoded.flatMap(({ stretches }) => stretches));
      await use({ models: { learner, teacher, topK: [...new Set(topK)] }, encoded, work });
    } finally {
      teacher?.close();
      learner.close();
    }
  }

  /** A device that was handed in has the kernels that its owner wants. */
  async #settle(gpu: Gpu, plans: (device: DeviceDescription) => Plan[]): Promise<void> {
    if (!this.#options.gpu) await this.#devices.settle(gpu, plans);
  }

  /** Lets others have a word. @throws what the signal was aborted with */
  #breathe(): void {
    this.#options.onBreath?.();
    this.#options.signal?.throwIfAborted();
  }

  /** Frees the device, where it is its own. */
  close(): void {
    if (!this.#options.gpu) this.#gpu?.destroy();
    this.#gpu = undefined;
  }
}
