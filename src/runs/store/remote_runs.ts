/**
 * Runs behind a service of Limbeck.
 *
 * @module
 */
import type { ErrorEvent, RunEvent, RunState } from "../../distill/run/events.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import { InputError, LimbeckError } from "../../base/errors.ts";
import { readLines } from "../child/lines.ts";
import type { ReadEventsOptions, RunAccess } from "./run_access.ts";
import { isEnd } from "./run_states.ts";
import type { RunSummary } from "./run_summary.ts";
import type { RunRequest } from "./store.ts";

/** The service cannot be reached, or refuses. */
export class RemoteError extends LimbeckError {
  override readonly code: string;

  constructor(message: string, code: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}

/** A run as the service shows it. */
interface RemoteRun {
  id: string;
  state: RunState;
  createdAt: string;
  step: number;
  steps: number;
  loss: number | null;
  lastEvent: number;
  result: RunResult | null;
  error: ErrorEvent | null;
}

/** What passes by itself: the service or a proxy before it is being started again, or has no room. */
const PASSES: ReadonlySet<string> = new Set(["unreachable", "unavailable", "not_ready", "too_many_streams"]);
/** How long to wait before reading on after the connection broke, milliseconds. */
const AGAIN_MS = 1000;

/** Runs behind a service. */
export class RemoteRuns implements RunAccess {
  readonly #base: string;
  readonly #token: string | undefined;

  /** @throws {InputError} no URL of a service */
  constructor(url: string, token?: string) {
    const parsed = URL.canParse(url) ? new URL(url) : undefined;
    if (!parsed || !/^https?:$/.test(parsed.protocol)) {
      throw new InputError(`"${url}" is no URL of a service`, { hint: "Such as http://127.0.0.1:8787" });
    }
    this.#base = parsed.href.replace(/\/$/, "");
    this.#token = token;
  }

  /** Uploads a dataset; returns its id. */
  async upload(name: string, content: Blob): Promise<string> {
    const form = new FormData();
    form.set("purpose", "fine-tune");
    form.set("file", content, name);
    const { id } = await this.#json<{ id: string }>("/v1/files", { method: "POST", body: form });
    return id;
  }

  /**
   * Submits a recipe with names.
   *
   * @throws {InputError} what is wrong with it
   */
  async submit(recipe: unknown, metadata: Readonly<Record<string, string>> = {}): Promise<RunSummary> {
    const run = await this.#json<RemoteRun>("/v1/runs", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() },
      body: JSON.stringify({ recipe, metadata }),
    });
    return this.#summary(run);
  }

  async list(limit: number): Promise<RunSummary[]> {
    return (await this.#newest(limit)).map((run) => this.#summary(run)).reverse();
  }

  async find(name: string): Promise<RunSummary> {
    if (name === "last") {
      const [last] = await this.#newest(1);
      if (last) return this.#summary(last);
    } else {
      const matches = (await this.#newest(1000)).filter(({ id }) => id.startsWith(name));
      if (matches.length === 1) return this.#summary(matches[0]!);
      if (matches.length > 1) {
        const ids = matches.slice(0, 8).map(({ id }) => id);
        throw new InputError(`"${name}" is the beginning of ${matches.length} runs: ${ids.join(", ")}`);
      }
    }
    throw new InputError(`there is no run "${name}" at ${this.#base}`, {
      hint: "`limbeck runs --remote URL` lists them.",
    });
  }

  /** Reads on where it was when the connection breaks, until the run ends. */
  async *events(
    id: string,
    { after, follow, signal }: ReadEventsOptions,
  ): AsyncIterable<readonly RunEvent[]> {
    let cursor = after;
    while (!follow) {
      const page = await this.#json<{ data: RunEvent[]; hasMore: boolean }>(
        `/v1/runs/${id}/events?limit=1000&after=${cursor}`,
      );
      yield page.data;
      cursor = page.data.at(-1)?.seq ?? cursor;
      if (!page.hasMore) return;
    }
    while (!signal?.aborted) {
      try {
        const response = await this.#fetch(`/v1/runs/${id}/events?after=${cursor}`, {
          headers: { Accept: "text/event-stream" },
          ...(signal ? { signal } : {}),
        });
        if (response.status === 204) return;
        for await (const line of readLines(response.body!)) {
          if (!line.startsWith("data: ")) continue;
          const event: RunEvent = JSON.parse(line.slice(6));
          cursor = event.seq;
          yield [event];
          if (event.type === "state" && (isEnd(event.state) || event.state === "paused")) {
            // Another reader may have asked it to go on already.
            const { lastEvent } = await this.#json<RemoteRun>(`/v1/runs/${id}`);
            if (lastEvent === cursor) return;
          }
        }
      } catch (error) {
        if (signal?.aborted) return;
        // The service is being started again, or the line is bad: what was missed is read then.
        const passes = error instanceof RemoteError && PASSES.has(error.code);
        if (!passes && !(error instanceof TypeError)) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  async ask(id: string, request: RunRequest): Promise<void> {
    await this.#json(`/v1/runs/${id}/${request}`, { method: "POST" });
  }

  /** Queues a run at rest once more. */
  async resume(id: string): Promise<void> {
    await this.#json(`/v1/runs/${id}/resume`, { method: "POST" });
  }

  async #newest(limit: number): Promise<RemoteRun[]> {
    const runs: RemoteRun[] = [];
    while (runs.length < limit) {
      const after = runs.at(-1)?.id;
      const page = await this.#json<{ data: RemoteRun[]; hasMore: boolean }>(
        `/v1/runs?limit=${Math.min(100, limit - runs.length)}${after ? `&after=${after}` : ""}`,
      );
      runs.push(...page.data);
      if (!page.hasMore) break;
    }
    return runs;
  }

  #summary({ id, state, createdAt, step, steps, loss, result, error }: RemoteRun): RunSummary {
    return {
      ...{ id, state, createdAt, step, steps, loss },
      folder: `${this.#base}/v1/runs/${id}`,
      ...(result ? { result } : {}),
      ...(error ? { error: { ...error, type: "error" } } : {}),
    };
  }

  async #json<T>(path: string, init: RequestInit = {}): Promise<T> {
    return await (await this.#fetch(path, init)).json();
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.#token !== undefined) headers.set("Authorization", `Bearer ${this.#token}`);
    let response: Response;
    try {
      response = await fetch(this.#base + path, { ...init, headers });
    } catch (cause) {
      if (init.signal?.aborted) throw cause;
      throw new RemoteError(`${this.#base} cannot be reached`, "unreachable", {
        hint: "Is the service running there, and is the URL right? `limbeck serve` starts one.",
        cause,
      });
    }
    if (response.ok) return response;
    const body = await response.json().catch(() => undefined);
    const { message, code } = body?.error ?? {
      message: `${this.#base} answers ${response.status}`,
      code: "unavailable",
    };
    if (response.status === 401) {
      throw new RemoteError(message, "unauthorized", { hint: "Put the service's token into LIMBECK_TOKEN." });
    }
    if (response.status < 500) throw new InputError(message);
    throw new RemoteError(message, code === null ? "refused" : code);
  }
}
