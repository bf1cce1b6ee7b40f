/**
 * Requests to the hub: who asks, how often something is tried again, and what its refusals mean.
 *
 * `@huggingface/hub` takes a `fetch` for its calls. Ours is handed in, because the library neither tries again nor waits when it is asked
 * to, has no time limits, refuses tokens that do not begin with `hf_` (mirrors have others), and leaves out of its errors the headers in
 * which the hub says what is wrong.
 *
 * @module
 */
import { plainText } from "../base/plain_text.ts";
import project from "../../deno.json" with { type: "json" };
import { InputError, LimbeckError } from "../base/errors.ts";
import type { HubSettings } from "./hub_settings.ts";

/** The hub cannot be reached, or does not do what it should. */
export class HubError extends LimbeckError {
  override readonly code: string = "hub";
}

/** The hub could not be reached at all. */
export class HubUnreachableError extends HubError {
  override readonly code = "hub_unreachable";
}

/** The hub refuses what was asked for: a model, revision or file that it does not have, or does not give to whoever asks. */
export class HubRefusal extends InputError {
  override readonly code = "hub_refusal";
  readonly status: number;

  constructor(message: string, status: number, options: { where: string; hint: string }) {
    super(message, options);
    this.status = status;
  }
}

/** How patient requests are; tests are less so. */
export interface Patience {
  /** Tries of a request, and of a download that brings nothing new. */
  readonly tries: number;
  /** Milliseconds before the second try; twice as long before each further one. */
  readonly pause: number;
  /** Longest pause that the hub may ask for, milliseconds. */
  readonly longestPause: number;
  /** Milliseconds within which an answer must begin, or go on. */
  readonly silence: number;
}

/** Patience for people. */
export const USUAL_PATIENCE: Patience = { tries: 5, pause: 1000, longestPause: 60_000, silence: 60_000 };

/** How a request is made. */
export interface HubRequestOptions {
  readonly settings: HubSettings;
  /** How errors call what is asked for: `hf:org/name`. */
  readonly name: string;
  readonly patience?: Patience;
  readonly signal?: AbortSignal;
}

/** Statuses after which the same request may be answered. */
const PASSING: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

/** Asks the hub. What it answers is a success, a redirect that is not followed, or 416. */
export type HubFetch = (input: URL | RequestInfo, init?: RequestInit) => Promise<Response>;

/**
 * A `fetch` for the hub. The token goes to the hub alone, also where it redirects to another server.
 *
 * The promises that it gives are rejected with {@linkcode HubRefusal} where the hub refuses, with {@linkcode HubUnreachableError} where
 * it cannot be reached, and with {@linkcode HubError} where it goes on failing.
 */
export function hubFetch(options: HubRequestOptions): HubFetch {
  const { settings, patience = USUAL_PATIENCE, name, signal } = options;
  return async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const token = url.origin === new URL(settings.endpoint).origin ? await settings.token() : undefined;
    const headers = new Headers(init.headers);
    headers.set("User-Agent", `limbeck/${project.version}`);
    // Files arrive as they are: their hashes are of that, and so are ranges of them.
    headers.set("Accept-Encoding", "identity");
    if (token !== undefined) headers.set("Authorization", `Bearer ${token}`);
    for (let tried = 1;; tried++) {
      signal?.throwIfAborted();
      let response: Response;
      try {
        response = await begun(url, { ...init, headers }, patience.silence, signal);
      } catch (cause) {
        signal?.throwIfAborted();
        if (tried >= patience.tries) throw unreachable(settings, name, cause);
        await pause(patience.pause * 2 ** (tried - 1), signal);
        continue;
      }
      if (response.ok || response.status === 416 || (response.status >= 300 && response.status < 400)) {
        return response;
      }
      if (!PASSING.has(response.status)) throw await refusal(response, options, token !== undefined);
      const said = await answerOf(response);
      const wait = retryAfter(response) ?? patience.pause * 2 ** (tried - 1);
      if (tried < patience.tries && wait <= patience.longestPause) {
        await pause(wait, signal);
        continue;
      }
      throw new HubError(`${name}: ${hostOf(settings)} answers ${response.status}${said && `: ${said}`}`, {
        hint: response.status === 429
          ? `It asks for patience${
            retryAfter(response) ? ` of ${Math.ceil(retryAfter(response)! / 1000)} s` : ""
          }; a token in HF_TOKEN is allowed more. What was fetched is kept.`
          : "Try again later; what was fetched is kept.",
      });
    }
  };
}

/** The time limit is for the beginning of the answer; its body has one of its own. */
async function begun(
  url: URL,
  init: RequestInit,
  silence: number,
  signal: AbortSignal | undefined,
): Promise<Response> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`no answer within ${silence / 1000} s`)), silence);
  try {
    return await fetch(url, {
      ...init,
      signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
    });
  } finally {
    clearTimeout(timer);
  }
}

/** Waits, unless it is aborted. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** The outcome of some work, unless that takes too long or is aborted. */
export async function within<T>(work: Promise<T>, milliseconds: number, signal?: AbortSignal): Promise<T> {
  const ended = Promise.withResolvers<never>();
  const stop = () => ended.reject(signal!.reason);
  const timer = setTimeout(
    () => ended.reject(new Error(`nothing came for ${milliseconds / 1000} s`)),
    milliseconds,
  );
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([work, ended.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function retryAfter(response: Response): number | undefined {
  const text = response.headers.get("Retry-After") ?? "";
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

function unreachable(settings: HubSettings, name: string, cause: unknown): HubUnreachableError {
  const why = cause instanceof Error ? plainText(cause.message) : "";
  return new HubUnreachableError(`${name}: ${hostOf(settings)} cannot be reached${why && `: ${why}`}`, {
    hint: "Check the connection, or name another server in HF_ENDPOINT. --offline uses what is in the cache.",
    cause,
  });
}

/** What a refusal means, in the hub's own words. */
async function refusal(
  response: Response,
  { name, settings }: HubRequestOptions,
  withToken: boolean,
): Promise<HubRefusal> {
  const code = response.headers.get("X-Error-Code") ?? "";
  const said = await answerOf(response);
  return new HubRefusal(
    `${hostOf(settings)} answers ${response.status}: ${said || response.statusText || "no reason given"}`,
    response.status,
    { where: name, hint: hintFor(code, response.status, said, withToken) },
  );
}

function hintFor(code: string, status: number, said: string, withToken: boolean): string {
  if (withToken && status === 401 && /invalid (credentials|user ?token)|expired/i.test(said)) {
    return "The token is not valid, or no longer: put another into HF_TOKEN, or none for a public model.";
  }
  if (code === "GatedRepo") {
    return withToken
      ? "Ask for access on the model's page, with the account that the token is of."
      : "Ask for access on the model's page, then put a token into HF_TOKEN, or into the file `token` in HF_HOME.";
  }
  if (code === "RevisionNotFound") {
    return "There is no such branch, tag or commit; without @REVISION it is main.";
  }
  if (code === "EntryNotFound") return "The repository has no such file.";
  // The hub says 401 of what is not there too, so that nobody learns what is private.
  if (code === "RepoNotFound" || status === 401 || status === 404) {
    return withToken
      ? "Check the name. Of a private model the token must be allowed to read it."
      : "Check the name. A private model needs a token: put one into HF_TOKEN.";
  }
  if (status === 403) return "The token is not allowed to read this model.";
  return "Check the name, and what HF_ENDPOINT says if it is set.";
}

async function answerOf(response: Response): Promise<string> {
  const header = response.headers.get("X-Error-Message");
  const text = await response.text().catch(() => "");
  if (header) return plainText(header);
  try {
    const { error, message } = JSON.parse(text) as { error?: unknown; message?: unknown };
    return plainText(String(error ?? message ?? ""));
  } catch {
    return /^\s*</.test(text) ? "" : plainText(text);
  }
}

function hostOf({ endpoint }: HubSettings): string {
  return new URL(endpoint).host;
}
