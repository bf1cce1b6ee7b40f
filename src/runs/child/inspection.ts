/**
 * Looks at a recipe in a process of its own: opening models, running their tokenizers and chat templates and planning a run is slow, and
 * what others wrote into a model folder may never end. The process may read what the recipe names, and nothing else.
 *
 * @module
 */
import type { Estimate, Validation } from "../../distill/run/inspect_recipe.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { LimbeckError } from "../../base/errors.ts";
import type { Preview } from "../../text/preview.ts";
import { prepareChild } from "./command.ts";
import { readLines } from "./training.ts";
import { errorOf, type ToldError } from "./told_error.ts";

/** What is to be told of a recipe. */
export type InspectionOrder =
  | { kind: "validate" | "estimate"; recipe: Recipe }
  | { kind: "preview"; recipe: Recipe; heldOut: boolean; samples: number };

/** What each kind of order is answered with. */
export interface InspectionValues {
  validate: Validation;
  estimate: Estimate;
  preview: Preview;
}

/** A line on the process's stdout. */
export interface InspectionAnswer {
  value?: unknown;
  error?: ToldError;
}

/** How to look. */
export interface InspectionOptions {
  /** Plugin modules: absolute paths, and packages with their version. */
  readonly plugins?: readonly string[];
  /** Longest time (default 60). */
  readonly timeoutSeconds?: number;
  /** Most memory of the process's JavaScript heap, MiB (default 2048). */
  readonly heapMegabytes?: number;
  readonly signal?: AbortSignal;
}

/** It took too long: a hostile tokenizer or template, or a machine that is too slow. */
export class InspectionTimeoutError extends LimbeckError {
  override readonly code = "inspection_timeout";
}

/** It needs more memory than the process may have: data or a vocabulary that are too large, or a hostile tokenizer. */
export class InspectionMemoryError extends LimbeckError {
  override readonly code = "inspection_memory";
}

/** As many processes look at recipes as may, and as many wait as may; or the inspector is closed. */
export class BusyError extends LimbeckError {
  override readonly code = "busy";
}

const MOST_AT_ONCE = 2;
const MOST_WAITING = 16;
const HEAP_MEGABYTES = 2048;

/** Looks at recipes, a few at a time. */
export class Inspector {
  readonly #atOnce: number;
  readonly #waiting = new Set<() => void>();
  readonly #closing = new AbortController();
  #working = 0;

  /** @param atOnce processes at once */
  constructor(atOnce: number = MOST_AT_ONCE) {
    this.#atOnce = atOnce;
  }

  /**
   * Looks at a recipe.
   *
   * @throws {RecipeError} the recipe breaks rules
   * @throws {InputError} something that it names cannot be used, or there is too much to say of it
   * @throws {DeviceError} it does not fit on the GPU
   * @throws {InspectionTimeoutError} it took too long
   * @throws {InspectionMemoryError} it needs too much memory
   * @throws {BusyError} too many wait already, or the inspector is closed
   */
  async inspect<K extends InspectionOrder["kind"]>(
    order: Extract<InspectionOrder, { kind: K }> | (InspectionOrder & { kind: K }),
    options: InspectionOptions = {},
  ): Promise<InspectionValues[K]> {
    const closing = this.#closing.signal;
    const signal = options.signal ? AbortSignal.any([options.signal, closing]) : closing;
    signal.throwIfAborted();
    await this.#begin(signal);
    try {
      return await inspectNow(order, { ...options, signal }) as InspectionValues[K];
    } finally {
      this.#working--;
      const [next] = this.#waiting;
      next?.();
    }
  }

  /** Ends all processes: one whose parent is gone might never end by itself. */
  close(): void {
    this.#closing.abort(
      new BusyError("no more recipes are looked at", { hint: "Try again in a few seconds." }),
    );
  }

  async #begin(signal: AbortSignal): Promise<void> {
    if (this.#working >= this.#atOnce) {
      if (this.#waiting.size >= MOST_WAITING) {
        throw new BusyError("too many recipes are being looked at", { hint: "Try again in a few seconds." });
      }
      const turn = Promise.withResolvers<void>();
      // Whoever leaves while it waits makes room for others.
      const leave = () => turn.reject(signal.reason);
      signal.addEventListener("abort", leave);
      this.#waiting.add(turn.resolve);
      try {
        await turn.promise;
      } finally {
        this.#waiting.delete(turn.resolve);
        signal.removeEventListener("abort", leave);
      }
    }
    this.#working++;
  }
}

async function inspectNow(
  order: InspectionOrder,
  options: InspectionOptions & { signal: AbortSignal },
): Promise<unknown> {
  const { plugins = [], timeoutSeconds = 60, heapMegabytes = HEAP_MEGABYTES, signal } = options;
  const folder = await Deno.makeTempDir({ prefix: "limbeck-inspection-" });
  try {
    const entry = new URL("./inspect_entry.ts", import.meta.url).href;
    const { recipe } = order;
    const command = await prepareChild({ folder, recipe, plugins, entry, heapMegabytes });
    signal.throwIfAborted();
    const child = new Deno.Command(Deno.execPath(), {
      ...command,
      cwd: folder,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    let late = false;
    const kill = () => {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has just ended by itself.
      }
    };
    const timer = setTimeout(() => {
      late = true;
      kill();
    }, timeoutSeconds * 1000);
    signal.addEventListener("abort", kill);
    try {
      const said = lastWords(child.stderr);
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(JSON.stringify(order) + "\n")).catch(() => {});
      await writer.close().catch(() => {});
      const answer = await readAnswer(child.stdout);
      const status = await child.status;
      if (answer?.error) throw errorOf(answer.error);
      if (answer) return answer.value;
      signal.throwIfAborted();
      throw whyEnded(status, await said, { late, timeoutSeconds, heapMegabytes });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", kill);
      kill();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Why a process ended without an answer; `late` where it was killed for it. */
function whyEnded(
  status: Deno.CommandStatus,
  { last, outOfMemory }: LastWords,
  limits: { late: boolean; timeoutSeconds: number; heapMegabytes: number },
): LimbeckError {
  const { late, timeoutSeconds, heapMegabytes } = limits;
  if (late) {
    return new InspectionTimeoutError(
      `looking at the recipe took longer than ${timeoutSeconds} s and was ended`,
      {
        hint:
          "The model's tokenizer or chat template may never end, or the data are very large: limit them with data.limit.",
      },
    );
  }
  if (outOfMemory) {
    return new InspectionMemoryError(
      `looking at the recipe needs more memory than the ${heapMegabytes} MiB that it may have`,
      { hint: "The data or the model's tokenizer may be too large: limit the data with data.limit." },
    );
  }
  const how = status.signal ?? `exit code ${status.code}`;
  return new LimbeckError(`the process that looked at the recipe ended with ${how}: ${last}`);
}

async function readAnswer(stdout: ReadableStream<Uint8Array>): Promise<InspectionAnswer | undefined> {
  let answer: InspectionAnswer | undefined;
  for await (const line of readLines(stdout)) {
    try {
      const value = JSON.parse(line);
      if (typeof value === "object" && value !== null && ("value" in value || "error" in value)) {
        answer = value;
      }
    } catch {
      // Written past the console.
    }
  }
  return answer;
}

/** What a process said on stderr that tells why it ended. */
interface LastWords {
  readonly last: string;
  /** Whether the JavaScript engine gave up for want of memory; a trace of its own code comes after it. */
  readonly outOfMemory: boolean;
}

async function lastWords(stderr: ReadableStream<Uint8Array>): Promise<LastWords> {
  let last = "";
  let outOfMemory = false;
  for await (const line of readLines(stderr)) {
    if (line.trim() !== "") last = line.trim();
    if (/^# Fatal (JavaScript|process) out of memory/.test(line)) outOfMemory = true;
  }
  return { last, outOfMemory };
}
