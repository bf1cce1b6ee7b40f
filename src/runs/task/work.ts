/**
 * The work of a task as its run tells of it: how far it is, how fast, how long it will take, and whether it is to stop.
 *
 * @module
 */
import type { ProgressEvent, RunHost } from "../../distill/run/events.ts";
import { TASK_STEPS } from "./run_recipe.ts";

/** How far a part of the work is. */
export interface PartProgress {
  readonly done: number;
  /** In the same unit, which takes about the same time each; the most that there may be. */
  readonly total: number;
  /** What is worked on, for people. */
  readonly message: string;
  /** Of `done` what was remembered, and took no time. */
  readonly remembered?: number;
  /** Bytes of values that were gone through since the part began. */
  readonly bytes?: number;
  /** Tokens that went through a model since the part began. */
  readonly tokens?: number;
}

/** The only part of work that has one. */
export const WHOLE = "whole";

/** How often it looks whether it is to stop where nothing is told of how far it is, milliseconds. */
const LISTEN_MS = 250;

/** Tells how far a task is, and hears whether it is to stop. */
export class Work {
  readonly #host: RunHost;
  readonly #now: () => number;
  readonly #stop = new AbortController();
  readonly #listening: ReturnType<typeof setInterval>;
  /** Hundredths at which each part begins and ends, by name. */
  #parts: ReadonlyMap<string, readonly [from: number, to: number]> = new Map([[WHOLE, [0, TASK_STEPS]]]);
  #part: string | undefined;
  /** The first word of the part that is worked on: when that was, and what had been done. */
  #first = { at: 0, worked: 0, bytes: 0, tokens: 0 };
  #told = -1;
  #lastBeat = 0;

  /** @param now clock in milliseconds */
  constructor(host: RunHost, now: () => number = () => performance.now()) {
    [this.#host, this.#now] = [host, now];
    // No sign of life is given here: what hangs must be noticed.
    this.#listening = setInterval(() => this.#listen(), LISTEN_MS);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#listening);
  }

  /** Aborted when the run is to stop. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Divides the work into parts that come one after another; a number is about how long one takes beside the others. */
  divide(parts: Readonly<Record<string, number>>): void {
    const all = Object.values(parts).reduce((sum, size) => sum + size, 0);
    let done = 0;
    this.#parts = new Map(
      Object.entries(parts).map(([name, size]) => {
        const from = TASK_STEPS * done / all;
        return [name, [from, TASK_STEPS * (done += size) / all]];
      }),
    );
  }

  /**
   * Tells how far a part is, which begins with the first word of it. Each hundredth of the work is told once, so that the log of a run
   * stays short.
   *
   * @throws what {@linkcode signal} was aborted with
   */
  progress(
    { done, total, message, remembered = 0, bytes = 0, tokens = 0 }: PartProgress,
    part = WHOLE,
  ): void {
    this.#hear();
    const now = this.#now();
    const worked = done - remembered;
    if (part !== this.#part) [this.#part, this.#first] = [part, { at: now, worked, bytes, tokens }];
    const [from, to] = this.#parts.get(part)!;
    const step = Math.min(TASK_STEPS, Math.floor(from + (to - from) * done / Math.max(1, total)));
    if (step <= this.#told) return this.#beat();
    this.#told = step;
    const { at, ...first } = this.#first;
    const rate = (count: number) => (count > 0 && now > at ? count / (now - at) * 1000 : undefined);
    const pace = rate(worked - first.worked);
    // Later parts are taken to be as fast as this one, by their hundredths.
    const left = (total - done) + total * (TASK_STEPS - to) / (to - from);
    this.#host.emit({
      ...{ type: "progress", step, message },
      ...given("bytesPerSecond", rate(bytes - first.bytes)),
      ...given("tokensPerSecond", rate(tokens - first.tokens)),
      ...given("secondsLeft", pace && left / pace),
    });
  }

  stage(stage: string, message: string): void {
    this.#hear();
    this.#host.emit({ type: "stage", stage, message });
  }

  note(notes: readonly string[]): void {
    for (const message of notes) this.#host.emit({ type: "warning", code: "note", message });
  }

  /** A sign of life a second. */
  #beat(): void {
    const now = this.#now();
    if (now - this.#lastBeat < 1000) return;
    this.#lastBeat = now;
    this.#host.emit({ type: "heartbeat" });
  }

  #listen(): void {
    if (this.#host.control() === "stop") this.#stop.abort();
  }

  #hear(): void {
    this.#listen();
    this.signal.throwIfAborted();
  }
}

function given<K extends keyof ProgressEvent>(name: K, value: number | undefined): Partial<ProgressEvent> {
  return value === undefined ? {} : { [name]: value };
}
