/**
 * A model on the device with the program that measures its cross-entropy: over all tokens, or sequence by sequence.
 *
 * @module
 */
import { familiesOf } from "../../registry/families.ts";
import { InputError } from "../../base/errors.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { plan, Program } from "../../tensor/plan.ts";
import type { ChatTemplate } from "../../text/chat_template.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packSequential } from "../../text/packing.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";
import { type RunSource, RunStudent } from "../checkpoint/run_student.ts";
import { Model, uploadWeights } from "../inputs/models.ts";
import { openTokenizer } from "../inputs/prepare.ts";
import type { Evaluation } from "../objective/monitors.ts";
import { Objective } from "../objective/objective.ts";
import { measureLosses, traceLearnerLosses, writeBatch } from "../program/measure.ts";
import { headChunks } from "../program/plan_training.ts";
import { checkPrompts } from "../program/prompt_features.ts";

/** What one sequence came to. */
export interface SequenceLoss {
  /** Sum of the cross-entropy over its supervised tokens, in nats. */
  readonly loss: number;
  /** Supervised tokens. */
  readonly tokens: number;
}

/** Tokens in one pass, or the longest sample where that is more. */
const TOKENS = 1024;
const [BLOCK, STATE, ROWS] = ["evaluate", "losses", "row losses"];

/** A model whose files are open; nothing is on the device before it is measured. */
export class OpenedModel {
  readonly model: Model;
  readonly tokenizer: TextTokenizer;
  readonly template: ChatTemplate | undefined;
  /** Its run, where something is trained on it. */
  readonly run: RunStudent | undefined;
  readonly #registry: Registry;

  private constructor(
    model: Model,
    tokenizer: TextTokenizer,
    template: ChatTemplate | undefined,
    run: RunStudent | undefined,
    registry: Registry,
  ) {
    [this.model, this.tokenizer, this.template] = [model, tokenizer, template];
    [this.run, this.#registry] = [run, registry];
  }

  /**
   * Opens the files of a model, or of a run's student with what was trained on it.
   *
   * @throws {InputError} if the model does not do
   */
  static async open(source: string | RunSource, registry: Registry): Promise<OpenedModel> {
    const run = typeof source === "string" ? undefined : await RunStudent.open(source);
    const model = run?.model ??
      await Model.open(source as string, { category: "weights" }, familiesOf(registry));
    return await OpenedModel.of(model, registry, run);
  }

  /**
   * The same of a model whose weights are open already; it is closed where this fails.
   *
   * @throws {InputError} its tokenizer does not do
   */
  static async of(model: Model, registry: Registry, run?: RunStudent): Promise<OpenedModel> {
    try {
      const { tokenizer, template } = await openTokenizer(model);
      return new OpenedModel(model, tokenizer, template, run, registry);
    } catch (error) {
      model.close();
      throw error;
    }
  }

  /**
   * The longest sample that is measured.
   *
   * @throws {InputError} if the model was trained for less than is wanted
   */
  contextLength(wanted: number | undefined): number {
    const { contextLength } = this.model.config;
    if (wanted === undefined || wanted <= contextLength) return wanted ?? Math.min(TOKENS, contextLength);
    throw new InputError(`the model was trained for ${contextLength} positions, not ${wanted}`, {
      where: this.model.path,
      hint: "Give a smaller context length.",
    });
  }

  /**
   * Puts the model on the device, hands the program to `use`, and frees it.
   *
   * @param contextLength Longest sample
   * @param samples All that will be measured
   * @param gpu Stays the caller's; one is opened and closed where it is absent
   */
  async measure<T>(
    contextLength: number,
    samples: readonly EncodedSample[],
    use: (program: MeasuringProgram) => Promise<T>,
    gpu?: Gpu,
  ): Promise<T> {
    const { run } = this;
    checkPrompts([...samples], run?.adapter);
    const device = gpu ?? await openGpu();
    const opened: { destroy(): void }[] = gpu ? [] : [device];
    try {
      const { vocabularySize } = this.model.config;
      const objective = Objective.of(this.#registry, [], vocabularySize);
      const tokensPerMicroBatch = Math.max(TOKENS, contextLength);
      const { tokens, chunkRows } = headChunks(
        { tokensPerMicroBatch, headChunk: "auto" },
        vocabularySize,
        device.description,
      );
      const program = new Program();
      const graph = program.block(BLOCK);
      const losses = objective.rowLosses(objective.crossEntropy, graph);
      const values = traceLearnerLosses(
        graph,
        "model",
        this.model,
        losses,
        { tokens, chunkRows, positions: contextLength },
        STATE,
        run && ((graph, prompt) => run.attach(graph, prompt)),
      );
      graph.output(ROWS, values);
      const planned = plan(program, device.description);
      const weights = await uploadWeights(device, planned, [this.model]);
      if (gpu) opened.push(...weights.values());
      await run?.upload(device, weights);
      const executable = await compile(device, planned, { weights });
      opened.unshift(executable);
      return await use(new MeasuringProgram(executable, objective, tokens));
    } finally {
      for (const one of opened) one.destroy();
    }
  }

  close(): void {
    this.model.close();
  }
}

/** A program that measures the cross-entropy of one model. */
export class MeasuringProgram {
  readonly #executable: Executable;
  readonly #objective: Objective;
  /** T */
  readonly #tokens: number;

  constructor(executable: Executable, objective: Objective, tokens: number) {
    [this.#executable, this.#objective, this.#tokens] = [executable, objective, tokens];
    objective.setEvaluationScalars(executable);
  }

  /** The mean over all supervised tokens. */
  async mean(samples: readonly EncodedSample[]): Promise<Evaluation> {
    const { crossEntropy: { terms }, masks } = this.#objective;
    const measuring = { block: BLOCK, state: STATE, terms, masks, tokensPerBatch: this.#tokens };
    return await measureLosses(this.#executable, samples, measuring);
  }

  /** Each sample by itself, in their order. What positions come to is f32 on the GPU, their sums f64. */
  async sequences(samples: readonly EncodedSample[]): Promise<SequenceLoss[]> {
    const found: SequenceLoss[] = [];
    this.#executable.setScalar("accumulate", 0);
    for (const batch of packSequential(samples, this.#tokens)) {
      writeBatch(this.#executable, batch, this.#objective.masks.mark(batch));
      this.#executable.run(BLOCK);
      const back = await this.#executable.read([ROWS], BLOCK);
      // One loss: the rows of one chunk follow those of the one before.
      const losses = back.get(ROWS)!.data as Float32Array;
      const sums = batch.members.map(() => ({ loss: 0, tokens: 0 }));
      batch.label.forEach((label, t) => {
        if (label === IGNORED_LABEL) return;
        const sum = sums[batch.segment[t]!]!;
        sum.loss += losses[t]!;
        sum.tokens++;
      });
      found.push(...sums);
    }
    return found;
  }
}
