/**
 * A model behind a server: what it says of given tokens, and what it writes.
 *
 * @module
 */
import {
  type Dialect,
  type PlaceScores,
  readScores,
  scoringRequest,
  type TokenNames,
  usedTokens,
} from "./answers.ts";
import { isObject } from "../base/json.ts";
import { hostOf, type ServerRequests } from "./requests.ts";
import { ServedRefusal, type ServerSettings } from "./server.ts";

/** What a probe is made with: a text, and what the student's tokenizer makes of it. */
export interface ProbeText {
  readonly text: string;
  /** As samples are encoded: with a BOS where they have one. */
  readonly ids: readonly number[];
  /** Without a BOS. */
  readonly plainIds: readonly number[];
  /** How the BOS is written, where there is one. */
  readonly bos?: string | undefined;
}

/** What a probe finds. */
export interface Probe {
  readonly dialect: Dialect;
  /** Likeliest tokens of each place that were asked for and came. */
  readonly top: number;
  /** Whether the log-probabilities change with the temperature of the request, which is 1 in all others. */
  readonly followsTemperature: boolean;
  /** Whether the server puts a token before a prompt that is a text. Token ids it takes as they are. */
  readonly addsBos: boolean | null;
  /** log p of each token of the probe, by which the model is known again. */
  readonly fingerprint: readonly number[];
  /** What is sent where it takes no token ids: texts, and whether their BOS is written before them. */
  readonly texts?: { readonly writesBos: boolean };
}

/** A text to be scored where a server takes no ids. */
export function sentText(
  text: string | undefined,
  { texts }: Pick<Probe, "texts">,
  { bos = "" }: Pick<ProbeText, "bos">,
): string | undefined {
  return texts && text !== undefined ? (texts.writesBos ? bos : "") + text : undefined;
}

/** How something is written. */
export interface CompleteOptions {
  readonly maxTokens: number;
  /** 0 takes the likeliest token. */
  readonly temperature?: number;
  readonly topP?: number;
  readonly stop?: readonly string[];
  readonly seed?: number;
}

/** What was written. */
export interface Completion {
  readonly text: string;
  /** `stop` where the model ended it, `length` where the limit did, or what else the server says. */
  readonly finishReason: string;
  readonly usage: { readonly promptTokens: number; readonly completionTokens: number } | undefined;
}

/** A message of a conversation. */
export interface ServedMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** A model behind a server. */
export class ServedModel {
  readonly #settings: ServerSettings;
  readonly #requests: ServerRequests;

  constructor(settings: ServerSettings, requests: ServerRequests) {
    [this.#settings, this.#requests] = [settings, requests];
  }

  /**
   * Finds out how the server tells log-probabilities, and whether it can stand for a teacher of this tokenizer.
   *
   * @param top likeliest tokens that will be asked of each place
   * @throws {ServedRefusal} it tells none, fewer than `top`, or its tokens are others
   */
  async probe(probe: ProbeText, top: number, names: TokenNames): Promise<Probe> {
    let found: { dialect: Dialect; first: PlaceScores };
    let texts: Probe["texts"];
    try {
      found = await this.#inEitherDialect(probe.ids, top, names);
    } catch (error) {
      // A server that takes no list of numbers says so with one of these.
      if (!(error instanceof ServedRefusal) || error.status !== 400 && error.status !== 422) throw error;
      ({ texts, ...found } = await this.#byText(probe, top, names, error));
    }
    const { dialect, first } = found;
    const text = sentText(probe.text, { ...(texts ? { texts } : {}) }, probe);
    const warm = await this.score(probe.ids, { dialect, top, names, text, temperature: 0.5 });
    const followsTemperature = first.own.some((p, i) => i > 0 && Math.abs(p - warm.own[i]!) > 1e-2 * (1 - p));
    const addsBos = texts
      ? !texts.writesBos && probe.ids.length > probe.plainIds.length
      : await this.#addsBos(probe, dialect, names);
    return {
      ...{ dialect, top, followsTemperature, addsBos, fingerprint: Array.from(first.own.subarray(1)) },
      ...(texts ? { texts } : {}),
    };
  }

  /** Scores tokens in the dialect that the server speaks. */
  async #inEitherDialect(
    ids: readonly number[],
    top: number,
    names: TokenNames,
  ): Promise<{ dialect: Dialect; first: PlaceScores }> {
    const score = async (dialect: Dialect) => ({
      dialect,
      first: await this.score(ids, { dialect, top, names }),
    });
    try {
      return await score("prompt_logprobs");
    } catch (error) {
      if (!(error instanceof ServedRefusal)) throw error;
      try {
        return await score("echo");
      } catch (other) {
        if (!(other instanceof ServedRefusal)) throw other;
        // The dialect that it speaks says what is wrong; the other one, that it does not speak it.
        throw /prompt_logprobs that were asked/.test(error.message) ? other : error;
      }
    }
  }

  /**
   * Sends a text to a server that takes no ids, first without a BOS, as most put one before it, then with one. An echo names each token that
   * was made of it; the other dialect does not.
   *
   * @param refusal of ids
   * @throws {ServedRefusal} it makes other tokens of it either way, or takes no text either
   */
  async #byText(
    probe: ProbeText,
    top: number,
    names: TokenNames,
    refusal: ServedRefusal,
  ): Promise<{ dialect: Dialect; first: PlaceScores; texts: { writesBos: boolean } }> {
    const dialect = "echo";
    let why: ServedRefusal | undefined;
    const hasBos = probe.bos !== undefined && probe.ids.length > probe.plainIds.length;
    for (const writesBos of hasBos ? [false, true] : [false]) {
      const texts = { writesBos };
      try {
        const text = sentText(probe.text, { texts }, probe);
        return { dialect, first: await this.score(probe.ids, { dialect, top, names, text }), texts };
      } catch (error) {
        if (!(error instanceof ServedRefusal)) throw error;
        why ??= error;
      }
    }
    throw why?.status === undefined ? why : refusal;
  }

  /**
   * Log-probabilities of tokens.
   *
   * @param options.text is sent in their place, where the server takes no ids; that it makes these tokens of it is checked
   * @param options.next whether those of what follows the whole text are wanted
   * @throws {ServedRefusal} the server answers with something else than was asked for
   * @throws {ServedError} it cannot be reached
   * @throws {BudgetError} the budget is used up
   */
  async score(
    ids: readonly number[],
    { dialect, top, names, text, next = false, temperature = 1 }: {
      dialect: Dialect;
      top: number;
      names: TokenNames;
      text?: string | undefined;
      next?: boolean;
      temperature?: number;
    },
  ): Promise<PlaceScores> {
    const asked = { ids, text, top, next, names, where: hostOf(this.#settings) };
    const body = scoringRequest(dialect, asked, this.#settings.model, temperature);
    const most = ids.length + 1;
    const answer = await this.#requests.post("completions", body, most, (a) => usedTokens(a) ?? most);
    return readScores(dialect, answer, asked);
  }

  /**
   * What the model's head reads at each token, f32 [n, width]; only another Limbeck gives it.
   *
   * @throws as {@linkcode score}
   */
  async hiddenStates(ids: readonly number[], width: number): Promise<Float32Array<ArrayBuffer>> {
    const where = hostOf(this.#settings);
    const body = { model: this.#settings.model, prompt: ids };
    const answer = await this.#requests.post(
      "hidden_states",
      body,
      ids.length,
      (a) => usedTokens(a) ?? ids.length,
    );
    const data = isObject(answer) && Array.isArray(answer.data) ? answer.data[0] : undefined;
    const refuse = (what: string): never => {
      throw new ServedRefusal(`answers with ${what} where hidden states were asked for`, {
        where,
        hint:
          "Only `limbeck serve` gives them; the model behind it may be another than the one whose head was fetched.",
      });
    };
    if (!isObject(data) || typeof data.states !== "string") return refuse("something else");
    const bytes = Uint8Array.fromBase64(data.states);
    if (bytes.length !== 4 * ids.length * width) {
      refuse(`${bytes.length} bytes, not ${ids.length} states of ${width} values,`);
    }
    const states = new Float32Array(bytes.buffer);
    return states.every(Number.isFinite) ? states : refuse("numbers that are not finite");
  }

  /**
   * Lets the model write: continue a text, or answer a conversation.
   *
   * @throws as {@linkcode score}
   */
  async complete(
    prompt: string | readonly ServedMessage[],
    { maxTokens, temperature = 1, topP, stop, seed }: CompleteOptions,
  ): Promise<Completion> {
    const isText = typeof prompt === "string";
    const body = {
      model: this.#settings.model,
      ...(isText ? { prompt } : { messages: prompt }),
      ...{ max_tokens: maxTokens, temperature },
      ...(topP === undefined ? {} : { top_p: topP }),
      ...(stop === undefined || stop.length === 0 ? {} : { stop }),
      ...(seed === undefined ? {} : { seed }),
    };
    // No token is less than a byte; of a conversation, a template adds some to each turn.
    const bytes = new TextEncoder().encode(JSON.stringify(prompt)).length + (isText ? 2 : 32 * prompt.length);
    const most = bytes + maxTokens;
    const path = isText ? "completions" : "chat/completions";
    const answer = await this.#requests.post(path, body, most, (a) => usedTokens(a) ?? most);
    const choice = isObject(answer) && Array.isArray(answer.choices) ? answer.choices[0] : undefined;
    // Null is what a model says that refused, or that only thought until the limit.
    const content = choice?.message?.content === null ? "" : choice?.message?.content;
    const text = isText ? choice?.text : content;
    if (typeof text !== "string") {
      throw new ServedRefusal("answers without a text", {
        where: hostOf(this.#settings),
        hint: "Check the server's url, which as a rule ends in /v1, and that the model writes text.",
      });
    }
    const usage = (answer as { usage?: { prompt_tokens?: number; completion_tokens?: number } }).usage;
    return {
      text,
      finishReason: typeof choice.finish_reason === "string" ? choice.finish_reason : "unknown",
      usage: usage
        ? { promptTokens: usage.prompt_tokens ?? 0, completionTokens: usage.completion_tokens ?? 0 }
        : undefined,
    };
  }

  /**
   * Whether a text gets a token before it.
   *
   * @returns null where the server takes no text
   * @throws {ServedRefusal} it makes other tokens of a text than the tokenizer here
   */
  async #addsBos(
    { text, plainIds }: ProbeText,
    dialect: Dialect,
    names: TokenNames,
  ): Promise<boolean | null> {
    const where = hostOf(this.#settings);
    const asked = { ids: plainIds, top: 1, next: false, names, where };
    const body = { ...scoringRequest(dialect, asked, this.#settings.model), prompt: text };
    const most = plainIds.length + 2;
    let answer: unknown;
    try {
      answer = await this.#requests.post("completions", body, most, (a) => usedTokens(a) ?? most);
    } catch (error) {
      if (error instanceof ServedRefusal) return null;
      throw error;
    }
    try {
      readScores(dialect, answer, asked);
      return false;
    } catch (error) {
      if (!(error instanceof ServedRefusal)) throw error;
      const begun = withoutFirst(answer, dialect);
      try {
        readScores(dialect, begun, asked);
        return true;
      } catch (other) {
        if (!(other instanceof ServedRefusal)) throw other;
        throw new ServedRefusal(
          `makes other tokens of a text than the student's tokenizer: ${error.message}`,
          {
            where,
            hint: "Its model has another tokenizer: teacher and student must have the same one.",
          },
        );
      }
    }
  }
}

/** The same answer without its first token. */
function withoutFirst(answer: unknown, dialect: Dialect): unknown {
  const choice = (answer as { choices: Record<string, unknown>[] }).choices[0]!;
  const rest = (list: unknown) => Array.isArray(list) ? [null, ...list.slice(2)] : undefined;
  if (dialect === "prompt_logprobs") {
    return { choices: [{ ...choice, prompt_logprobs: rest(choice.prompt_logprobs) }] };
  }
  const { tokens, token_logprobs, top_logprobs } = choice.logprobs as Record<string, unknown>;
  return {
    choices: [{
      logprobs: {
        tokens: Array.isArray(tokens) ? tokens.slice(1) : undefined,
        token_logprobs: rest(token_logprobs),
        top_logprobs: rest(top_logprobs),
      },
    }],
  };
}
