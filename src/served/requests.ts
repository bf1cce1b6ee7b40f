/**
 * Requests to a server: one at a time of some, tried again where that may help, and counted.
 *
 * @module
 */
import project from "../../deno.json" with { type: "json" };
import { plainText } from "../base/plain_text.ts";
import type { Budget } from "./budget.ts";
import { type Clock, MACHINE_CLOCK, Pace } from "./pace.ts";
import { addressOf, ServedError, ServedRefusal, type ServerSettings } from "./server.ts";

/** How patient requests are; tests are less so. */
export interface Patience {
  /** Tries of a request. */
  readonly tries: number;
  /** Milliseconds before the second try; twice as long before each further one, and up to half of it less by chance. */
  readonly pause: number;
  /** Longest pause that the server may ask for, milliseconds. */
  readonly longestPause: number;
}

/** Patience for people. */
export const USUAL_PATIENCE: Patience = { tries: 7, pause: 1000, longestPause: 120_000 };

/** How requests are made. */
export interface RequestOptions {
  readonly settings: ServerSettings;
  readonly key: string | undefined;
  readonly budget: Budget;
  readonly patience?: Patience;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
  /** Told of what is tried again. */
  readonly onRetry?: (message: string) => void;
}

/** Statuses after which the same request may be answered. */
const PASSING: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
/** Longest answer, in bytes. */
const LONGEST = 256 << 20;

/** An answer that did not come, or not whole. */
class CutOff extends Error {}

/** Asks one server. */
export class ServerRequests {
  readonly #options: RequestOptions;
  readonly #patience: Patience;
  readonly #clock: Clock;
  readonly #pace: Pace;

  constructor(options: RequestOptions) {
    this.#options = options;
    this.#patience = options.patience ?? USUAL_PATIENCE;
    this.#clock = options.clock ?? MACHINE_CLOCK;
    this.#pace = new Pace(options.settings, this.#clock);
  }

  /**
   * Sends JSON and returns the JSON that is answered.
   *
   * @param path below the server's address
   * @param tokens what it may use at the most
   * @param used what an answer says was used; all of `tokens` where it says nothing
   * @throws {BudgetError} more than is left
   * @throws {ServedRefusal} the server refuses it, or what it answers is no JSON
   * @throws {ServedError} it cannot be reached, or goes on failing
   */
  async post(
    path: string,
    body: unknown,
    tokens: number,
    used?: (answer: unknown) => number,
  ): Promise<unknown> {
    const { signal, settings, onRetry } = this.#options;
    const text = JSON.stringify(body);
    for (let tried = 1;; tried++) {
      signal?.throwIfAborted();
      const one = await this.#pace.turn(tokens, () => this.#once(path, text, tokens, used), signal);
      if ("answer" in one) return one.answer;
      const { status, why, wait = 0 } = one;
      const backOff = this.#patience.pause * 2 ** (tried - 1) * (1 - Math.random() / 2);
      if (tried >= this.#patience.tries || wait > this.#patience.longestPause) {
        throw new ServedError(`${hostOf(settings)} ${why}, ${tried} times`, {
          hint: status === 429
            ? `It asks for patience${
              wait > 0 ? ` of ${Math.ceil(wait / 1000)} s` : ""
            }: lower requestsPerMinute or concurrency of teacher.server. What came so far is kept.`
            : "Try again later: what came so far is kept.",
        });
      }
      const pause = Math.max(wait, backOff);
      // What one is asked to wait for, the others are too.
      if (status === 429 || status === 503) this.#pace.holdBack(pause);
      onRetry?.(`${hostOf(settings)} ${why}; trying again in ${(pause / 1000).toFixed(1)} s`);
      await this.#clock.wait(pause, signal);
    }
  }

  /**
   * Reads what is answered to a request without a body, as it comes. It is not tried again once it has begun.
   *
   * @throws {ServedRefusal} the server refuses it
   * @throws {ServedError} it cannot be reached, or goes on failing
   */
  async stream(path: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const { settings, key, budget, signal, onRetry } = this.#options;
    for (let tried = 1;; tried++) {
      signal?.throwIfAborted();
      budget.spend(0);
      let response: Response | undefined;
      let why = "cannot be reached";
      try {
        response = await fetch(addressOf(settings, path), {
          redirect: "manual",
          headers: key === undefined ? {} : { Authorization: `Bearer ${key}` },
          ...(signal ? { signal } : {}),
        });
      } catch (error) {
        signal?.throwIfAborted();
        why += error instanceof Error ? ` (${this.#hide(plainText(error.message))})` : "";
      }
      if (response?.ok && response.body) return response.body;
      if (response) {
        const text = await readText(response);
        if (!PASSING.has(response.status)) throw this.#refusal(response.status, text, response);
        why = `answers ${response.status}${this.#said(text)}`;
      }
      if (tried >= this.#patience.tries) {
        throw new ServedError(`${hostOf(settings)} ${why}, ${tried} times`, { hint: "Try again later." });
      }
      const wait = this.#patience.pause * 2 ** (tried - 1) * (1 - Math.random() / 2);
      onRetry?.(`${hostOf(settings)} ${why}; trying again in ${(wait / 1000).toFixed(1)} s`);
      await this.#clock.wait(wait, signal);
    }
  }

  async #once(
    path: string,
    body: string,
    tokens: number,
    used: ((answer: unknown) => number) | undefined,
  ): Promise<{ answer: unknown } | { status?: number; why: string; wait?: number }> {
    const { settings, budget } = this.#options;
    const giveBack = budget.spend(tokens);
    let response: Response;
    let text: string;
    try {
      ({ response, text } = await this.#fetch(addressOf(settings, path), body));
    } catch (error) {
      if (!(error instanceof CutOff)) throw error;
      // The server may have done the work: it counts.
      return { why: error.message };
    }
    const { status } = response;
    if (PASSING.has(status)) {
      giveBack(0);
      const wait = retryAfter(response);
      return { status, why: `answers ${status}${this.#said(text)}`, ...(wait === undefined ? {} : { wait }) };
    }
    if (!response.ok) {
      giveBack(0);
      throw this.#refusal(status, text, response);
    }
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch {
      const isNaN = /[[:,]\s*-?(NaN|Infinity)\b/.test(text);
      throw new ServedRefusal(
        isNaN ? "answers with NaN or Infinity in place of numbers" : "answers with something that is no JSON",
        {
          where: hostOf(settings),
          hint: isNaN
            ? "The model behind it computes no finite numbers: check it there."
            : "Check teacher.server.url: as a rule it ends in /v1.",
        },
      );
    }
    if (used) giveBack(Math.min(tokens, used(answer)));
    return { answer };
  }

  /** @throws {CutOff} no whole answer came in time */
  async #fetch(address: string, body: string): Promise<{ response: Response; text: string }> {
    const { settings, key, signal } = this.#options;
    const late = AbortSignal.timeout(settings.timeoutSeconds * 1000);
    try {
      const response = await fetch(address, {
        method: "POST",
        body,
        // Whoever is redirected to must not get the key.
        redirect: "manual",
        headers: {
          "Content-Type": "application/json",
          "User-Agent": `limbeck/${project.version}`,
          ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }),
        },
        signal: signal ? AbortSignal.any([signal, late]) : late,
      });
      return { response, text: await readText(response) };
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof ServedRefusal) throw error;
      if (late.aborted) throw new CutOff(`gave no answer within ${settings.timeoutSeconds} s`);
      const why = error instanceof Error ? this.#hide(plainText(error.message)) : "";
      throw new CutOff(`cannot be reached, or cut the connection${why && ` (${why})`}`);
    }
  }

  #refusal(status: number, text: string, response: Response): ServedRefusal {
    const { settings } = this.#options;
    const where = hostOf(settings);
    const to = response.headers.get("Location");
    if (status >= 300 && status < 400) {
      return new ServedRefusal(`redirects to ${plainText(to ?? "nowhere")}, which is not followed`, {
        where,
        hint: "Write the address that it redirects to into teacher.server.url.",
      });
    }
    return new ServedRefusal(`answers ${status}${this.#said(text)}`, {
      ...{ where, status },
      hint: hintFor(status, settings),
    });
  }

  /** What an answer says is wrong, as the end of a sentence. */
  #said(text: string): string {
    let said = text;
    try {
      const { error, message, detail } = JSON.parse(text);
      const told = error?.message ?? error ?? message ?? detail ?? "";
      said = typeof told === "string" ? told : JSON.stringify(told);
    } catch {
      if (/^\s*</.test(text)) said = "";
    }
    const line = this.#hide(plainText(said));
    return line && `: ${line}`;
  }

  /** Servers may say the key that they refuse. */
  #hide(text: string): string {
    const { key } = this.#options;
    return key ? text.replaceAll(key, "[key]") : text;
  }
}

function hintFor(status: number, { keyVariable }: ServerSettings): string {
  if (status === 401 || status === 403) {
    return keyVariable === undefined
      ? "It wants a key: name the environment variable that holds it in teacher.server.keyVariable."
      : `Check the key in ${keyVariable}.`;
  }
  if (status === 404) {
    return "Check teacher.server.model, and teacher.server.url, which ends in /v1 as a rule.";
  }
  return "Check teacher.server: the server does not take what is asked of it.";
}

/** The text of an answer, if it is not too long. */
async function readText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    if ((bytes += chunk.length) > LONGEST) {
      throw new ServedRefusal(`answers with more than ${LONGEST >> 20} MiB`, {
        where: new URL(response.url).host,
      });
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** Milliseconds that a server asks to wait. */
function retryAfter(response: Response): number | undefined {
  const text = response.headers.get("Retry-After") ?? "";
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

/** How errors name a server. */
export function hostOf({ url }: Pick<ServerSettings, "url">): string {
  return new URL(url).host;
}
