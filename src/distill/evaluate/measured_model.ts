/**
 * A model on the device with the program that measures its cross-entropy: over all tokens, or sequence by sequence.
 *
 * @module
 */
import { familiesOf } from "../../registry/families.ts";
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { plan, Program } from "../../tensor/plan.ts";
import { TunedDevices } from "../../tune/tuned_devices.ts";
import type { ChatTemplate } from "../../text/chat_template.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, packSequential } from "../../text/packing.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";
import { type RunSource, RunStudent } from "../checkpoint/run_student.ts";
import { Model, uploadWeights } from "../inputs/models.ts";
import { openTokenizer } from "../inputs/prepare.ts";
import type { Evaluation } from "../objective/monitors.ts";
import { Objective } from "../objective/objective.ts";
import { notStreamed } from "../generate/text_writer.ts";
import { measureLosses, traceLearnerLosses, writeBatch } from "../program/metrics/measure.ts";
import { StreamedLayers } from "../program/streamed/streamed_layers.ts";
import {
  streamedSide,
  type StreamedTeacher,
  traceStreamedTeacher,
  waitingCounts,
} from "../program/streamed/streamed_teacher.ts";
import { TeacherStream } from "../program/streamed/teacher_stream.ts";
import { headInput, traceModel } from "../program/traced_model.ts";
import { headChunks } from "../program/plan_training.ts";
import { checkPrompts } from "../program/fed/prompt_features.ts";

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
   * @param stream Whether its layers come from disk, for as many batches at once as wait for them
   * @param samples All that will be measured
   * @param on A device, which stays the caller's, or where one is opened, and closed again
   */
  async measure<T>(
    { contextLength, stream = false }: { readonly contextLength: number; readonly stream?: boolean },
    samples: readonly EncodedSample[],
    use: (program: MeasuringProgram) => Promise<T>,
    on: Gpu | TunedDevices = new TunedDevices(),
  ): Promise<T> {
    const { run } = this;
    if (run && stream) throw notStreamed(this.model.path);
    checkPrompts([...samples], run?.adapter);
    const isOwn = on instanceof TunedDevices;
    const planFor = (device: DeviceDescription) => this.#plan(device, contextLength, stream);
    const device = isOwn ? await on.open((device) => [planFor(device).planned]) : on;
    const opened: { destroy(): void }[] = isOwn ? [device] : [];
    try {
      const { planned, objective, tokens, streamed } = planFor(device.description);
      const weights = await uploadWeights(device, planned, [this.model]);
      if (!isOwn) opened.push(...weights.values());
      await run?.upload(device, weights);
      const executable = await compile(device, planned, { weights });
      opened.unshift(executable);
      const start = (block: string) => Promise.resolve(executable.run(block));
      const layers = streamed && new TeacherStream(executable, streamed, weights, start);
      if (layers) opened.unshift({ destroy: () => layers.close() });
      return await use(new MeasuringProgram(executable, objective, tokens, layers));
    } finally {
      for (const one of opened) one.destroy();
    }
  }

  /** The program that measures, planned. */
  #plan(device: DeviceDescription, contextLength: number, stream: boolean) {
    const { run } = this;
    const { vocabularySize } = this.model.config;
    const objective = Objective.of(this.#registry, [], vocabularySize);
    const tokensPerMicroBatch = Math.max(TOKENS, contextLength);
    const { tokens, chunkRows } = headChunks(
      { tokensPerMicroBatch, headChunk: "auto" },
      vocabularySize,
      device,
    );
    const program = new Program();
    const graph = program.block(BLOCK);
    const losses = objective.rowLosses(objective.crossEntropy, graph);
    const sizes = { tokens, chunkRows, positions: contextLength };
    const streamed = stream ? streamModel(this.model, sizes, device) : undefined;
    if (streamed) traceStreamedTeacher(program, streamed, sizes);
    const attach = run && { attach: (prompt: () => Tensor) => run.attach(graph, prompt) };
    const learner = streamed
      ? streamedSide(graph, streamed, sizes)
      : headInput(traceModel(graph, "model", this.model, tokens, { length: contextLength }, attach), !!run);
    const values = traceLearnerLosses(graph, learner, losses, sizes, STATE);
    graph.output(ROWS, values);
    return { planned: plan(program, device), objective, tokens, streamed };
  }

  close(): void {
    this.model.close();
  }
}

/** A model whose layers come from disk, as many batches as there may be waiting for each. */
function streamModel(
  model: Model,
  sizes: { readonly tokens: number; readonly positions: number },
  device: DeviceDescription,
): StreamedTeacher {
  const taps = new Set<string>();
  const layers = new StreamedLayers(model, sizes, device, taps);
  return { layers, waiting: waitingCounts(model, sizes.tokens, 1, device)[0]!, taps };
}

/** A program that measures the cross-entropy of one model. */
export class MeasuringProgram {
  readonly #executable: Executable;
  readonly #objective: Objective;
  /** T */
  readonly #tokens: number;
  /** What brings batches through the model, where its layers come from disk. */
  readonly #layers: TeacherStream | undefined;

  constructor(executable: Executable, objective: Objective, tokens: number, layers?: TeacherStream) {
    [this.#executable, this.#objective, this.#tokens] = [executable, objective, tokens];
    this.#layers = layers;
    objective.setEvaluationScalars(executable);
  }

  /** The mean over all supervised tokens. */
  async mean(samples: readonly EncodedSample[]): Promise<Evaluation> {
    const { crossEntropy: { terms }, masks } = this.#objective;
    const [executable, layers] = [this.#executable, this.#layers];
    return await measureLosses(executable, samples, {
      ...{ block: BLOCK, state: STATE, terms, masks, tokensPerBatch: this.#tokens },
      ...(layers
        ? {
          ahead: { most: layers.most, run: (batches) => layers.pass(batches) },
          write: (batch, marked, i) => {
            writeBatch(executable, batch, marked);
            layers.select(i);
            return Promise.resolve();
          },
        }
        : {}),
    });
  }

  /** Each sample by itself, in their order. What positions come to is f32 on the GPU, their sums f64. */
  async sequences(samples: readonly EncodedSample[]): Promise<SequenceLoss[]> {
    const found: SequenceLoss[] = [];
    this.#executable.setScalar("accumulate", 0);
    const batches = packSequential(samples, this.#tokens);
    const layers = this.#layers;
    for (const [n, batch] of batches.entries()) {
      const i = n % (layers?.most ?? 1);
      if (i === 0) await layers?.pass(batches.slice(n, n + layers.most));
      writeBatch(this.#executable, batch, this.#objective.masks.mark(batch));
      layers?.select(i);
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
