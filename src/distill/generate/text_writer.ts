/**
 * A model that writes text: opened and compiled once, asked many times.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { ChatTemplate } from "../../text/chat_template.ts";
import { encodeChat } from "../../text/conversation.ts";
import type { ChatMessage } from "../../text/dataset.ts";
import { TextStream } from "../../text/text_stream.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";
import { TunedDevices } from "../../tune/tuned_devices.ts";
import { type GeneratedText, generationPlan, Generator, type GeneratorOptions } from "./generator.ts";
import { streamedLayers } from "../program/written/generation_blocks.ts";
import type { ModelFamily } from "../../models/family.ts";
import { Model, uploadWeights } from "../inputs/models.ts";
import { type ModelText, openTokenizer, stopTokens } from "../inputs/prepare.ts";
import { type RunSource, RunStudent } from "../checkpoint/run_student.ts";
import { HiddenStates } from "./hidden_states.ts";
import { Scorer, type ScorerOptions, scoringPlan, type TextScores } from "./scorer.ts";
import type { SamplingOptions } from "./sampling.ts";

/** How some texts are written. */
export interface WriteOptions extends SamplingOptions {
  readonly maxTokens: number;
  /** Number of the first text in the numbering that random numbers depend on. */
  readonly firstSequence?: number;
  /** Piece by piece, as texts grow; false ends that text. */
  readonly onText?: (index: number, piece: string) => boolean | void;
  /** When a text is complete; they end in any order. */
  readonly onDone?: (index: number, text: WrittenText) => void;
}

/** The refusal of what is trained on a model whose layers come from disk. */
export function notStreamed(where: string): InputError {
  return new InputError("the layers of a run's student cannot come from disk beside its adapter", {
    where,
    hint: "leave --stream out",
  });
}

/** A text. */
export interface WrittenText {
  readonly text: string;
  /** How many tokens it has. */
  readonly tokens: number;
  /** These tokens, and the stop token that ended it, if one did. */
  readonly ids: Int32Array;
  /** Whether the model ended it, rather than the limit. */
  readonly finished: boolean;
}

/** How many likeliest tokens scorers are compiled for. */
const TOPS = [0, 20, 256];

/** A model with its tokenizer, and once it is compiled, on the GPU. */
export class TextWriter {
  readonly model: Model;
  readonly tokenizer: TextTokenizer;
  readonly template: ChatTemplate | undefined;
  readonly #run: RunStudent | undefined;
  readonly #endTokens: readonly number[];
  #devices = new TunedDevices();
  #gpu: Gpu | undefined;
  #generator: Generator | undefined;
  #weights: ReadonlyMap<string, GpuBuffer> = new Map();
  #length = 0;
  #scorer: Scorer | undefined;
  #hidden: HiddenStates | undefined;

  private constructor(
    model: Model,
    run: RunStudent | undefined,
    { tokenizer, template, endTokens }: ModelText,
  ) {
    this.model = model;
    this.#run = run;
    [this.tokenizer, this.template, this.#endTokens] = [tokenizer, template, endTokens];
  }

  /**
   * Opens a model: a folder or GGUF file; or a run, for its student with its adapter.
   *
   * @param families Of models, beside the built-in ones; those of a run are its plugins'
   * @throws {InputError} the model does not do
   */
  static async open(
    source: string | RunSource,
    families: readonly ModelFamily[] = [],
  ): Promise<TextWriter> {
    const run = typeof source === "string" ? undefined : await RunStudent.open(source);
    const model = run?.model ?? await Model.open(source as string, { category: "weights" }, families);
    try {
      return new TextWriter(model, run, await openTokenizer(model));
    } catch (error) {
      model.close();
      throw error;
    }
  }

  /** Longest text, prompt included, that it was prepared for. */
  get length(): number {
    return this.#length;
  }

  /** Tokens that end a text. */
  get stopTokens(): readonly number[] {
    return stopTokens(this.tokenizer, "auto", this.#endTokens);
  }

  /**
   * Tokens that somebody else has made.
   *
   * @param where How errors name them
   * @throws {InputError} an id that is no token of the model, or none at all
   */
  checkIds(ids: readonly number[], where: string): Int32Array {
    const { vocabularySize } = this.model.config;
    const wrong = ids.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < vocabularySize));
    if (wrong >= 0 || ids.length === 0) {
      throw new InputError(
        wrong >= 0
          ? `token ${wrong + 1} is ${ids[wrong]}; the model has ids from 0 to ${vocabularySize - 1}`
          : "there are no tokens",
        { where, hint: "Encode the text with this model's own tokenizer, or send the text." },
      );
    }
    return Int32Array.from(ids);
  }

  /** Tokens of a text that is to be continued; an empty one begins as the tokenizer begins texts. */
  encode(prompt: string): Int32Array {
    if (prompt !== "") return Int32Array.from(this.tokenizer.encode(prompt));
    const { bosToken } = this.tokenizer;
    return Int32Array.from(bosToken === undefined ? this.tokenizer.encode("\n") : [bosToken]);
  }

  /**
   * Tokens of a conversation that the assistant is to continue.
   *
   * @throws {InputError} the model has no chat template, or it refuses the conversation
   */
  encodeChat(messages: readonly ChatMessage[]): Int32Array {
    if (!this.template) {
      throw new InputError("the model has no chat template", {
        where: this.model.path,
        hint: "It was not made for conversations: let it continue a text instead.",
      });
    }
    return encodeChat(this.template, this.tokenizer, messages, { addGenerationPrompt: true });
  }

  /**
   * Puts the model on the GPU, for so many texts at once of at most so many tokens, prompts included.
   *
   * @param settings `stream`: but its layers, which come from disk again for every token
   * @param devices Where the device is opened
   * @throws {InputError} layers of a run's student with its adapter would come from disk
   */
  async prepare(
    { stream, ...settings }: Pick<GeneratorOptions, "sequences" | "length"> & { readonly stream?: boolean },
    devices: TunedDevices = new TunedDevices(),
  ): Promise<void> {
    const run = this.#run;
    if (run && stream) throw notStreamed(this.model.path);
    this.#devices = devices;
    const optionsOn = (device: DeviceDescription): GeneratorOptions => ({
      ...settings,
      ...(run ? { attach: (graph, prompt) => run.attach(graph, prompt) } : {}),
      ...(stream ? { streamed: { layers: streamedLayers(device, this.model, settings) } } : {}),
    });
    const gpu = this.#gpu = await devices.open((
      device,
    ) => [generationPlan(device, this.model, optionsOn(device))]);
    const options = optionsOn(gpu.description);
    const weights = await uploadWeights(gpu, generationPlan(gpu.description, this.model, options), [
      this.model,
    ]);
    await run?.upload(gpu, weights);
    [this.#weights, this.#length] = [weights, settings.length];
    this.#generator = await Generator.create(gpu, this.model, weights, options);
  }

  /**
   * Continues prompts, as many at once as it was prepared for.
   *
   * @throws {InputError} a prompt is empty, or leaves no room for a token
   */
  async write(prompts: readonly Int32Array[], options: WriteOptions): Promise<WrittenText[]> {
    const streams = prompts.map((after) => new TextStream(this.tokenizer, { after }));
    const stopped = new Set<number>();
    const written = await this.#generator!.generate(prompts, {
      ...options,
      stopTokens: this.stopTokens,
      onToken: (i, token) => {
        if (options.onText?.(i, streams[i]!.push(token)) === false) stopped.add(i);
      },
      onDone: (i, text) => options.onDone?.(i, this.#decode(text, prompts[i]!)),
      goesOn: (i) => !stopped.has(i),
    });
    return written.map((text, i) => this.#decode(text, prompts[i]!));
  }

  #decode({ tokens, finished, stopToken }: GeneratedText, after: Int32Array): WrittenText {
    const stream = new TextStream(this.tokenizer, { after });
    const text = Array.from(tokens, (token) => stream.push(token)).join("") + stream.end();
    const ids = Int32Array.from([...tokens, ...(stopToken === undefined ? [] : [stopToken])]);
    return { text, tokens: tokens.length, ids, finished };
  }

  /**
   * What the model says of each token of texts, each of at most as many tokens as it was prepared for.
   *
   * @param top The likeliest tokens that are told of each place
   * @param onPass Called now and then
   * @throws {InputError} a text is empty or too long; an adapter looks at prompts, and nobody says where these end
   */
  async score(texts: readonly Int32Array[], top: number, onPass?: () => void): Promise<TextScores[]> {
    const run = this.#run;
    if (run?.adapter?.plugin.readsPrompt) {
      throw new InputError(
        `the adapter "${run.adapter.plugin.id}" chooses by the prompt, and a text that is scored has none`,
        { hint: "Measure such a student with `limbeck eval`, whose rows say where their prompts end." },
      );
    }
    if (!this.#scorer || this.#scorer.top < top) {
      this.#scorer?.destroy();
      this.#scorer = undefined;
      const options: ScorerOptions = {
        length: this.#length,
        top: Math.min(TOPS.find((most) => most >= top) ?? top, this.model.config.vocabularySize),
        ...(run
          ? {
            attach: (graph) =>
              run.attach(graph, () => {
                throw new Error("it reads no prompts");
              }),
          }
          : {}),
      };
      await this.#devices.settle(this.#gpu!, (device) => [scoringPlan(device, this.model, options)]);
      this.#scorer = await Scorer.create(this.#gpu!, this.model, this.#weights, options);
    }
    return await this.#scorer.score(texts, onPass);
  }

  /**
   * What the model's head reads at each token of texts, each f32 [n, H].
   *
   * @throws {InputError} a text is empty or too long; the model is a run's student, whose head may have more than its weight
   */
  async hiddenStates(
    texts: readonly Int32Array[],
    onPass?: () => void,
  ): Promise<Float32Array<ArrayBuffer>[]> {
    if (this.#run) {
      throw new InputError("hidden states are given of models, not of a run's student with its adapter", {
        hint: "Export the run's merged model, and serve that.",
      });
    }
    this.#hidden ??= await HiddenStates.create(this.#gpu!, this.model, this.#weights, this.#length);
    return await this.#hidden.of(texts, onPass);
  }

  close(): void {
    this.#hidden?.destroy();
    this.#scorer?.destroy();
    this.#generator?.destroy();
    this.#gpu?.destroy();
    this.model.close();
  }
}
