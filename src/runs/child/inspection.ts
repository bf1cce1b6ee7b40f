/**
 * Looks at a recipe in a process of its own: opening models, running their tokenizers and chat templates and planning a run is slow, and
 * what others wrote into a model folder may never end. The process may read what the recipe names, and nothing else.
 *
 * @module
 */
import type { Estimate, Validation } from "../../distill/run/inspect_recipe.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import type { TaskEstimate, TaskValidation } from "../task/inspect_task.ts";
import { taskReads } from "../task/export_task.ts";
import { isTask } from "../task/run_recipe.ts";
import type { Task } from "../task/task.ts";
import type { TunedDevice } from "../../tune/tuned.ts";
import { LimbeckError } from "../../base/errors.ts";
import type { Preview } from "../../text/preview.ts";
import { type ChildEnd, howItEnded, withChild } from "./host.ts";
import { machineProvider } from "./provider/choice.ts";

/** What is to be told of a recipe, or of a task. */
export type InspectionOrder =
  | { kind: "validate"; recipe: Recipe }
  | { kind: "estimate"; recipe: Recipe; kept?: readonly TunedDevice[] }
  | { kind: "validate-task" | "estimate-task"; recipe: Task }
  | { kind: "preview"; recipe: Recipe; heldOut: boolean; samples: number };

/** What each kind of order is answered with. */
export interface InspectionValues {
  validate: Validation;
  estimate: Estimate;
  "validate-task": TaskValidation;
  "estimate-task": TaskEstimate;
  preview: Preview;
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
  readonly #mostWaiting: number;
  readonly #waiting = new Set<() => void>();
  readonly #closing = new AbortController();
  #working = 0;

  /**
   * @param atOnce processes at once
   * @param mostWaiting recipes that may wait for one
   */
  constructor(atOnce: number = MOST_AT_ONCE, mostWaiting: number = MOST_WAITING) {
    this.#atOnce = atOnce;
    this.#mostWaiting = mostWaiting;
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
      if (this.#waiting.size >= this.#mostWaiting) {
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
  const entry = new URL("./inside/inspect_entry.ts", import.meta.url).href;
  const { recipe } = order;
  const reads = isTask(recipe) ? { read: await taskReads(recipe) } : { recipe };
  // An estimate is made for the device at hand.
  const provider = order.kind.startsWith("estimate") ? machineProvider() : "native";
  return await withChild({ entry, plugins, order, ...reads, heapMegabytes, signal, provider }, (child) => {
    // It says nothing before its answer.
    child.expect(timeoutSeconds);
    return child.answer((end) => whyEnded(end, timeoutSeconds, heapMegabytes));
  });
}

/** Why a process ended without an answer. */
function whyEnded(end: ChildEnd, timeoutSeconds: number, heapMegabytes: number): LimbeckError {
  if (end.silentSeconds !== undefined) {
    return new InspectionTimeoutError(
      `looking at the recipe took longer than ${timeoutSeconds} s and was ended`,
      {
        hint:
          "The model's tokenizer or chat template may never end, or the data are very large: limit them with data.limit.",
      },
    );
  }
  if (end.outOfMemory) {
    return new InspectionMemoryError(
      `looking at the recipe needs more memory than the ${heapMegabytes} MiB that it may have`,
      { hint: "The data or the model's tokenizer may be too large: limit the data with data.limit." },
    );
  }
  return new LimbeckError(`the process that looked at the recipe ${howItEnded(end)}`);
}
