/**
 * Texts written by a model on disk: from prompts, or from nothing.
 *
 * @module
 */
import type { ModelFamily } from "../../models/family.ts";
import type { TunedDevices } from "../../tune/tuned_devices.ts";
import type { RunSource } from "../checkpoint/run_student.ts";
import type { SamplingOptions } from "./sampling.ts";
import { TextWriter, type WrittenText } from "./text_writer.ts";

/** What {@linkcode generateTexts} does. */
export interface GenerateTextsOptions extends SamplingOptions {
  /** Folder or GGUF file; or a run, for its student with its adapter. */
  readonly model: string | RunSource;
  /** Families of models beside the built-in ones. */
  readonly families?: readonly ModelFamily[] | undefined;
  /** Texts to continue; an empty one starts at the beginning-of-text token. */
  readonly prompts: readonly string[];
  /** Puts each prompt into the model's chat template as the user's turn. */
  readonly chat?: boolean;
  readonly maxTokens: number;
  /** Sequences decoded at once. */
  readonly batch?: number;
  /** Reads the layers from disk, all of them for every token, so that the model need not fit on the GPU. */
  readonly stream?: boolean;
  /** Where the device is opened. */
  readonly devices?: TunedDevices | undefined;
  /** Piece by piece, as texts grow. */
  readonly onText?: (index: number, piece: string) => void;
  /** When a text is complete; they end in any order. */
  readonly onDone?: (result: TextResult) => void;
}

/** One text. */
export interface TextResult {
  readonly index: number;
  readonly prompt: string;
  readonly text: string;
  readonly tokens: number;
  /** Whether the model ended it, rather than the limit. */
  readonly finished: boolean;
}

/**
 * Opens a model, writes and closes it again.
 *
 * @throws {InputError} if the model does not do or a prompt is too long
 */
export async function generateTexts(options: GenerateTextsOptions): Promise<TextResult[]> {
  const writer = await TextWriter.open(options.model, options.families);
  try {
    const prompts = options.prompts.map((prompt) =>
      options.chat ? writer.encodeChat([{ role: "user", content: prompt }]) : writer.encode(prompt)
    );
    const longest = prompts.reduce((most, p) => Math.max(most, p.length), 1);
    const sequences = Math.min(options.batch ?? 8, prompts.length);
    const length = Math.min(writer.model.config.contextLength, longest + options.maxTokens);
    await writer.prepare({ sequences, length, stream: options.stream ?? false }, options.devices);
    const result = (index: number, { ids: _, ...text }: WrittenText) => ({
      index,
      prompt: options.prompts[index]!,
      ...text,
    });
    const { onDone, ...settings } = options;
    const texts = await writer.write(prompts, {
      ...settings,
      onDone: (index, text) => onDone?.(result(index, text)),
    });
    return texts.map((text, index) => result(index, text));
  } finally {
    writer.close();
  }
}
