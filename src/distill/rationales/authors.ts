/**
 * Who writes rationales: a model on disk, or one behind a server.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { ModelFamily } from "../../models/family.ts";
import { type OpenServed, openServed, type ServedOptions } from "../../served/open_served.ts";
import { hostOf } from "../../served/requests.ts";
import { ServedRefusal, type ServerSettings } from "../../served/server.ts";
import type { RunSource } from "../checkpoint/run_student.ts";
import type { SamplingOptions } from "../generate/sampling.ts";
import { StopText } from "../generate/stop_text.ts";
import { TextWriter } from "../generate/text_writer.ts";
import type { AuthorSettings } from "./rationale_journal.ts";
import type { RationaleText } from "./rationale_rows.ts";

/** A text that is wanted. */
export interface AskedText {
  /** Its place among all, done ones included: random numbers depend on it, so that it is the same after a resume. */
  readonly number: number;
  readonly prompt: string;
  /** The question's `FILE:LINE`. */
  readonly where: string;
}

/** What a writer is told. */
export interface AuthorWork {
  /** Takes a text as it comes, in any order. */
  readonly onText: (asked: AskedText, text: RationaleText) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Writes texts. */
export interface Author {
  /** What its texts depend on beside the prompts. */
  readonly settings: AuthorSettings;
  write(asked: readonly AskedText[], work: AuthorWork): Promise<void>;
}

/** How texts are written. */
export interface AuthorOptions extends Pick<SamplingOptions, "temperature" | "topP" | "seed"> {
  readonly maxTokens: number;
  /** Asks as a user does, instead of having a text continued. */
  readonly chat: boolean;
  /** What ends a text that is continued. */
  readonly stop: string;
  /** Texts that are under way at once. */
  readonly together: number;
}

/** Texts that a model is given in one go, as many times as it writes at once: fewer would leave it waiting for the longest of them. */
const ROUNDS = 16;

/** A model on disk. Several texts are written at once. */
export function localAuthor(
  model: string | RunSource,
  options: AuthorOptions & { readonly topK: number; readonly families?: readonly ModelFamily[] },
): Author {
  const { maxTokens, chat, stop, together, temperature, topK, topP, seed, families } = options;
  return {
    settings: {
      model: typeof model === "string" ? model : model.folder,
      ...{ chat, maxTokens, temperature, topK, topP, seed },
    },
    async write(asked, { onText, signal }) {
      const writer = await TextWriter.open(model, families);
      try {
        const prompts = asked.map(({ prompt }) =>
          chat ? writer.encodeChat([{ role: "user", content: prompt }]) : writer.encode(prompt)
        );
        checkLengths(asked, prompts, writer.model.config.contextLength);
        const longest = prompts.reduce((most, prompt) => Math.max(most, prompt.length), 1);
        await writer.prepare({
          sequences: Math.min(together, asked.length),
          length: Math.min(writer.model.config.contextLength, longest + maxTokens),
        });
        for (const [begin, end] of stretches(asked, together * ROUNDS)) {
          signal?.throwIfAborted();
          const stops = Array.from({ length: end - begin }, () => new StopText(chat ? [] : [stop]));
          await writer.write(prompts.slice(begin, end), {
            ...{ maxTokens, temperature, topK, topP, seed, firstSequence: asked[begin]!.number },
            onText(i, piece) {
              signal?.throwIfAborted();
              stops[i]!.push(piece);
              return !stops[i]!.stopped;
            },
            onDone(i, { text, finished }) {
              onText(asked[begin + i]!, ended({ text, finished }, chat ? "" : stop));
            },
          });
        }
      } finally {
        writer.close();
      }
    },
  };
}

/** A model behind a server that speaks the OpenAI API. */
export function servedAuthor(
  server: ServerSettings,
  options: AuthorOptions & { readonly served?: ServedOptions },
): Author {
  const { maxTokens, chat, stop, together, temperature, topP, seed, served = {} } = options;
  const ask = async ({ model }: OpenServed, { prompt, number }: AskedText): Promise<RationaleText> => {
    const { text, finishReason } = await model.complete(chat ? [{ role: "user", content: prompt }] : prompt, {
      ...{ maxTokens, temperature, seed: (seed + number) % 2 ** 31 },
      ...(topP < 1 ? { topP } : {}),
      ...(chat ? {} : { stop: [stop] }),
    });
    // Not every server heeds the stop.
    return ended({ text, finished: finishReason !== "length" }, chat ? "" : stop);
  };
  return {
    settings: { server: server.url, model: server.model, chat, maxTokens, temperature, topP, seed },
    async write(asked, { onText, signal }) {
      using open = openServed(server, { ...served, ...(signal ? { signal } : {}) });
      const left = asked.values();
      let failed = false;
      const work = async () => {
        for (const one of left) {
          try {
            onText(one, await ask(open, one));
          } catch (error) {
            failed = true;
            throw ofQuestion(error, one);
          }
          if (failed) return;
        }
      };
      // What is under way when one fails has been paid for, and is kept.
      const done = await Promise.allSettled(
        Array.from({ length: Math.min(together, asked.length) }, work),
      );
      const error = done.find((one) => one.status === "rejected");
      if (error) throw error.reason;
    },
  };
}

/** How a server's model is named where no other name is given. */
export function servedName(server: Pick<ServerSettings, "url" | "model">): string {
  return server.model.split("/").at(-1)!.replace(/\.gguf$/i, "") || hostOf(server);
}

/** An error that names the question, where a server takes others: it is too long, say, or against its rules. */
function ofQuestion(error: unknown, { where }: AskedText): unknown {
  if (!(error instanceof ServedRefusal) || !/ answers (400|413|422)\b/.test(error.message)) return error;
  const hint =
    "What has come is kept. Leave this question out, shorten what is asked around it, or check the server.";
  return new ServedRefusal(error.message, { where, hint, cause: error });
}

/** A text up to what ends it. */
function ended({ text, finished }: RationaleText, stop: string): RationaleText {
  const at = stop === "" ? -1 : text.indexOf(stop);
  return at < 0 ? { text, finished } : { text: text.slice(0, at), finished: true };
}

/** Ranges of texts whose numbers follow one another, none longer than `most`. */
export function stretches(asked: readonly AskedText[], most: number): [begin: number, end: number][] {
  const found: [number, number][] = [];
  asked.forEach(({ number }, i) => {
    const last = found.at(-1);
    if (last && asked[i - 1]!.number + 1 === number && i - last[0] < most) last[1] = i + 1;
    else found.push([i, i + 1]);
  });
  return found;
}

function checkLengths(asked: readonly AskedText[], prompts: readonly Int32Array[], context: number): void {
  const long = asked.flatMap(({ where }, i) =>
    prompts[i]!.length >= context ? [`${where}: ${prompts[i]!.length} tokens`] : []
  );
  if (long.length === 0) return;
  const told = [...new Set(long)];
  throw new InputError(
    [
      `${
        told.length === 1 ? "1 question leaves" : `${told.length} questions leave`
      } no room for a rationale ` +
      `in the model's context of ${context} tokens, with what is asked around ${
        told.length === 1 ? "it" : "them"
      }`,
      ...told.slice(0, 10),
    ].join("\n  "),
    { hint: "Give fewer --shots or a shorter --template, leave these questions out, or take another model." },
  );
}
