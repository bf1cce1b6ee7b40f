/**
 * Log-probabilities as servers write them: vLLM's `prompt_logprobs`, and `echo` with `logprobs` of the OpenAI API.
 *
 * What comes back is looked at before anything is made of it: the tokens are those that were sent, there are as many log-probabilities
 * as were asked for, and they can be those of one distribution.
 *
 * @module
 */
import { isObject } from "../base/json.ts";
import { ServedRefusal } from "./server.ts";

/** How a server tells log-probabilities of a prompt. */
export type Dialect = "prompt_logprobs" | "echo";

/** What a server says of a text of n tokens. Natural logarithms. */
export interface PlaceScores {
  /** log p of each token given those before it, [n]; NaN for the first. */
  readonly own: Float64Array;
  /** The K likeliest tokens of each place, likeliest first, [n + 1, K]: row i is what may follow i tokens; row 0 is left empty. */
  readonly ids: Uint32Array;
  /** Their log-probabilities. */
  readonly logProbabilities: Float64Array;
  /** Whether row n is there: what may follow the whole text. */
  readonly hasNext: boolean;
}

/** Finds the id of a token by how a server writes it. */
export interface TokenNames {
  /** The id; undefined where no token is written so, or several are. */
  idOf(name: string): number | undefined;
  /** Whether a token is written so, by itself or with others. */
  isNameOf(name: string, id: number): boolean;
}

/** What was asked. */
export interface Asked {
  readonly ids: readonly number[];
  /** The text that is sent in their place, where the server takes no ids: that its tokens are these, it has to say. */
  readonly text?: string | undefined;
  /** Likeliest tokens of each place, K. */
  readonly top: number;
  /** Whether what follows the whole text was asked for too. */
  readonly next: boolean;
  readonly names: TokenNames;
  /** How errors name the server. */
  readonly where: string;
}

/** The body of a request for log-probabilities. */
export function scoringRequest(
  dialect: Dialect,
  { ids, text, top, next }: Pick<Asked, "ids" | "text" | "top" | "next">,
  model: string,
  temperature = 1,
): Record<string, unknown> {
  return {
    model,
    prompt: text ?? ids,
    temperature,
    // Not every server takes 0.
    max_tokens: 1,
    ...(dialect === "echo"
      ? { echo: true, logprobs: top }
      : { prompt_logprobs: top, ...(next ? { logprobs: top } : {}) }),
    return_tokens_as_token_ids: true,
  };
}

/**
 * Reads an answer.
 *
 * @throws {ServedRefusal} it is not what was asked for
 */
export function readScores(dialect: Dialect, answer: unknown, asked: Asked): PlaceScores {
  const choice = choiceOf(answer, asked);
  return dialect === "echo" ? readEcho(choice, asked) : readPromptScores(choice, asked);
}

/** Tokens that an answer says were used, if it says so. */
export function usedTokens(answer: unknown): number | undefined {
  const usage = isObject(answer) && isObject(answer.usage) ? answer.usage : undefined;
  const total = usage?.total_tokens;
  return typeof total === "number" && Number.isSafeInteger(total) && total >= 0 ? total : undefined;
}

function choiceOf(answer: unknown, { where }: Asked): Record<string, unknown> {
  const choices = isObject(answer) ? answer.choices : undefined;
  const first = Array.isArray(choices) ? choices[0] : undefined;
  if (isObject(first)) return first;
  throw new ServedRefusal("answers without a choice, as if it were no server of the OpenAI API", {
    where,
    hint: "Check teacher.server.url: as a rule it ends in /v1.",
  });
}

/** A place filled with what a server says of it. */
class Places {
  readonly own: Float64Array;
  readonly ids: Uint32Array;
  readonly logProbabilities: Float64Array;
  readonly #asked: Asked;

  constructor(asked: Asked) {
    const { ids: { length }, top } = this.#asked = asked;
    this.own = new Float64Array(length).fill(NaN);
    this.ids = new Uint32Array((length + 1) * top);
    this.logProbabilities = new Float64Array((length + 1) * top);
  }

  /**
   * Takes the tokens of a place, of which the K likeliest are kept.
   *
   * @throws {ServedRefusal} fewer than K, or numbers that are no log-probabilities of one distribution
   */
  take(place: number, entries: readonly (readonly [id: number, logProbability: number])[]): void {
    const { top, where } = this.#asked;
    const refuse = (what: string, hint: string): never => {
      throw new ServedRefusal(`${what} at token ${place + 1}`, { where, hint });
    };
    for (const [id, value] of entries) {
      // Rounding may lift a certainty a little above 0.
      if (Number.isFinite(value) && value < 1e-3) continue;
      refuse(
        `gives ${value} as the log-probability of token ${id}, which is none,`,
        "The model behind it computes no finite numbers, or it sends something else: check it there.",
      );
    }
    const sorted = entries.toSorted((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, top);
    if (new Set(sorted.map(([id]) => id)).size < sorted.length) {
      refuse("names one token twice", "Such an answer cannot be used: ask another server.");
    }
    if (sorted.length < top) {
      refuse(
        `gives ${sorted.length} log-probabilities where ${top} were asked for,`,
        `Lower teacher.cache.topK to ${sorted.length}, or let the server give more (vLLM: --max-logprobs).`,
      );
    }
    const sum = sorted.reduce((total, [, value]) => total + Math.exp(value), 0);
    if (sum > 1 + MOST_OVER) {
      refuse(
        `gives log-probabilities whose probabilities sum to ${sum.toFixed(4)}`,
        "They are not those of one distribution: the server may scale them, or cut it to its top.",
      );
    }
    sorted.forEach(([id, value], k) => {
      this.ids[place * top + k] = id;
      this.logProbabilities[place * top + k] = value;
    });
  }
}

/** How far a sum of probabilities may lie above 1: servers compute in 16 bits. */
const MOST_OVER = 0.02;

function otherTokens({ where, text }: Asked, place: number, found: string, sent: number): ServedRefusal {
  if (text !== undefined) {
    return new ServedRefusal(
      `makes other tokens of a text than the tokenizer here: token ${place + 1} is ${found}, not ${sent}`,
      {
        where,
        hint:
          "It takes no token ids, so the texts of samples are sent, and its tokenizer has to be the student's. If it is: a server that takes " +
          "ids can be used (vLLM, Limbeck).",
      },
    );
  }
  return new ServedRefusal(
    `answers of other tokens than were sent: token ${place + 1} is ${found}, not ${sent}`,
    {
      where,
      hint:
        "Its model has another tokenizer, or it changes prompts: teacher and student must have the same one.",
    },
  );
}

function otherLength({ where, ids, text }: Asked, found: number): ServedRefusal {
  if (text !== undefined) {
    return new ServedRefusal(
      `makes ${found} tokens of a text of which the tokenizer here makes ${ids.length}`,
      {
        where,
        hint:
          "It takes no token ids, so the texts of samples are sent, and its tokenizer has to be the student's.",
      },
    );
  }
  return new ServedRefusal(
    `answers of ${found} tokens where ${ids.length} were sent`,
    {
      where,
      hint: found === ids.length + 1
        ? "It puts a token before each prompt, a BOS as a rule: tell it not to, since the prompts have their own."
        : "It cuts or changes prompts: look at its longest context, and at its tokenizer.",
    },
  );
}

function readPromptScores(choice: Record<string, unknown>, asked: Asked): PlaceScores {
  const { ids, top, next, where } = asked;
  const list = choice.prompt_logprobs;
  if (!Array.isArray(list)) {
    throw new ServedRefusal("answers without the prompt_logprobs that were asked for", {
      where,
      hint: "It does not give log-probabilities of prompts; vLLM and Limbeck do.",
    });
  }
  if (list.length !== ids.length) throw otherLength(asked, list.length);
  const places = new Places(asked);
  for (let i = 1; i < ids.length; i++) {
    const entries = isObject(list[i])
      ? Object.entries(list[i]).map(([id, told]) =>
        [Number(id), isObject(told) ? numberOf(told.logprob) : NaN] as const
      )
      : [];
    const own = entries.find(([id]) => id === ids[i]);
    if (own && !Number.isFinite(own[1])) places.take(i, entries);
    if (!own) {
      throw otherTokens(
        asked,
        i,
        `one of ${entries.slice(0, 3).map(([id]) => id).join(", ") || "none"}`,
        ids[i]!,
      );
    }
    places.own[i] = own[1];
    // The token that stands there is told too, where it is none of the likeliest.
    const likeliest = isObject(list[i]) ? entries.filter(([id]) => rankOf(list[i], id) <= top) : entries;
    places.take(i, likeliest);
  }
  const after = next ? nextOf(choice, asked) : undefined;
  if (after) places.take(ids.length, after);
  return { ...placesOf(places), hasNext: after !== undefined || top === 0 };
}

/** What may follow the whole prompt, from the log-probabilities of the token that was written after it. */
function nextOf(choice: Record<string, unknown>, asked: Asked): [number, number][] | undefined {
  const told = isObject(choice.logprobs) ? choice.logprobs.top_logprobs : undefined;
  const first = Array.isArray(told) ? told.at(-1) : undefined;
  if (!isObject(first)) return undefined;
  return Object.entries(first).map(([name, value]) => [idOf(name, asked), numberOf(value)]);
}

function readEcho(choice: Record<string, unknown>, asked: Asked): PlaceScores {
  const { ids, next, where } = asked;
  const told = isObject(choice.logprobs) ? choice.logprobs : {};
  const { tokens, token_logprobs: own, top_logprobs: top } = told;
  const isTold = Array.isArray(tokens) && Array.isArray(own) && Array.isArray(top);
  // A server that does not echo tells what it wrote: one token.
  if (!isTold || tokens.length <= 1 && ids.length > 1) {
    throw new ServedRefusal("answers without the log-probabilities of the prompt that were asked for", {
      where,
      hint: "It does not echo prompts with logprobs; vLLM and Limbeck do.",
    });
  }
  // The prompt, and the token that was written after it, unless the model ended there.
  if (tokens.length < ids.length || tokens.length > ids.length + 1) {
    throw otherLength(asked, tokens.length - 1);
  }
  const places = new Places(asked);
  for (let i = 0; i < tokens.length; i++) {
    const sent = ids[i];
    if (sent !== undefined) {
      const found = asked.text === undefined
        ? idOf(String(tokens[i]), asked, sent)
        : spelledId(String(tokens[i]), asked, sent);
      if (found !== sent) throw otherTokens(asked, i, `${found} (${JSON.stringify(tokens[i])})`, sent);
    }
    if (i === 0) continue;
    if (sent !== undefined) places.own[i] = numberOf(own[i]);
    else if (!next) continue;
    places.take(
      i,
      isObject(top[i])
        ? Object.entries(top[i]).map(([name, value]) => [idOf(name, asked), numberOf(value)])
        : [],
    );
    if (sent !== undefined && !Number.isFinite(places.own[i]!)) {
      throw new ServedRefusal(`gives ${own[i]} as the log-probability of token ${i + 1}`, {
        where,
        hint: "The model behind it computes no finite numbers: check it there.",
      });
    }
  }
  return { ...placesOf(places), hasNext: tokens.length > ids.length };
}

function placesOf({ own, ids, logProbabilities }: Places): Omit<PlaceScores, "hasNext"> {
  return { own, ids, logProbabilities };
}

/** The place of a token among all, where it is told. */
function rankOf(told: Record<string, unknown>, id: number): number {
  const one = told[id];
  return isObject(one) && typeof one.rank === "number" ? one.rank : 0;
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : NaN;
}

/** The id of a token of a text that was sent: only by its name is it known to be the one that is meant. -1 where it is another. */
function spelledId(name: string, { names }: Asked, expected: number): number {
  const byId = /^token_id:(\d+)$/.exec(name);
  if (byId) return Number(byId[1]);
  return names.isNameOf(name, expected) ? expected : names.idOf(name) ?? -1;
}

/**
 * The id of a token that a server names.
 *
 * @param expected the one that was sent, where one was: a name that several tokens share can be it
 */
function idOf(name: string, { names, where }: Asked, expected?: number): number {
  const byId = /^token_id:(\d+)$/.exec(name);
  if (byId) return Number(byId[1]);
  const found = names.idOf(name) ?? expected;
  if (found !== undefined) return found;
  throw new ServedRefusal(
    `names the token ${JSON.stringify(name)}, which is none of the tokenizer's, or several of its`,
    {
      where,
      hint:
        "Its model may have another tokenizer. If it has not: only servers that tell ids can be used (vLLM, Limbeck).",
    },
  );
}
