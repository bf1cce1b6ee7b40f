/**
 * Answers that a model writes: the one place where tasks ask for texts.
 *
 * @module
 */
import type { ModelFamily } from "../../models/family.ts";
import type { RunSource } from "../checkpoint/run_student.ts";
import type { TunedDevices } from "../../tune/tuned_devices.ts";
import { generateTexts } from "../generate/generate_texts.ts";

/** How answers are written. */
export interface AnswerOptions {
  /** Whether prompts are a user's turn in the model's chat template. */
  readonly chat: boolean;
  /** Most tokens of an answer. */
  readonly maxTokens: number;
  /** Texts that end an answer. */
  readonly stop: readonly string[];
  /** Answers that are written at once. */
  readonly batch?: number;
  readonly families?: readonly ModelFamily[];
  /** Where the device is opened. */
  readonly devices?: TunedDevices;
  /** Told with every piece of a text. */
  readonly onBreath?: () => void;
}

/** An answer. */
export interface Answer {
  readonly text: string;
  readonly tokens: number;
  /** Whether the model ended it, by a token or one of the texts, rather than the limit. */
  readonly finished: boolean;
}

/**
 * Lets a model answer prompts, always with the likeliest token, so that answers are the same each time.
 *
 * @throws {InputError} the model does not do, has no chat template where one is asked for, or a prompt is too long
 */
export async function writeAnswers(
  model: string | RunSource,
  prompts: readonly string[],
  { chat, maxTokens, stop, batch = 8, families, devices, onBreath }: AnswerOptions,
): Promise<Answer[]> {
  const answers: Answer[] = [];
  const grown = prompts.map(() => "");
  await generateTexts({
    ...{ model, prompts, chat, maxTokens, batch, families, devices },
    ...{ temperature: 0, topK: 0, topP: 1, seed: 0 },
    // What it answers with ends the text.
    onText(index, piece) {
      onBreath?.();
      return cutAt(grown[index] += piece, stop) === undefined;
    },
    onDone({ index, text, tokens, finished }) {
      const cut = cutAt(text, stop);
      answers[index] = { text: cut ?? text, tokens, finished: finished || cut !== undefined };
    },
  });
  return answers;
}

/** The text before the first of some texts; undefined where none of them is in it. */
function cutAt(text: string, stop: readonly string[]): string | undefined {
  const places = stop.map((end) => text.indexOf(end)).filter((place) => place >= 0);
  return places.length === 0 ? undefined : text.slice(0, Math.min(...places));
}
