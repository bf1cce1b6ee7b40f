/**
 * The events of a run on the disk: an append-only log with a gapless number for each, and `metrics.jsonl` derived from it.
 *
 * What is durable when: an event is handed to the system before anyone sees it, so a killed process loses none. It is flushed to the
 * disk at once, except metrics, samples and evaluations, which are flushed at most {@linkcode FLUSH_INTERVAL_MS} later; a power cut can
 * lose those. A line torn by a power cut or a full disk is cut off when the log is next opened.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import type { RunEvent, RunEventBody } from "../distill/events.ts";
import { InputError, LimbeckError } from "../errors.ts";
import { isDiskFull, writeTextAtomically } from "../formats/files.ts";

/** Longest time that metrics stay unflushed, milliseconds. */
export const FLUSH_INTERVAL_MS = 1000;

const encoder = new TextEncoder();

/** The log cannot take another event; what it holds stays whole. */
export class EventLogError extends LimbeckError {
  override readonly code: string;

  constructor(path: string, cause: unknown) {
    const full = isDiskFull(cause);
    super(
      `${path}: ${
        full ? "disk full" : `cannot be written: ${cause instanceof Error ? cause.message : cause}`
      }`,
      {
        hint: "Free space there, then `limbeck resume` the run: its last checkpoint is whole.",
        cause,
      },
    );
    this.code = full ? "disk_full" : "event_log";
  }
}

/** A file to which whole lines are appended or nothing. */
class LineFile {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  #size: number;
  #flushed = performance.now();
  #dirty = false;

  constructor(path: string, size: number) {
    this.#path = path;
    this.#size = size;
    this.#file = Deno.openSync(path, { write: true, create: true });
    this.#file.truncateSync(size);
    this.#file.seekSync(size, Deno.SeekMode.Start);
  }

  append(line: string, flushNow: boolean): void {
    const bytes = encoder.encode(line + "\n");
    try {
      for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
      this.#size += bytes.length;
      this.#dirty = true;
      if (flushNow || performance.now() - this.#flushed > FLUSH_INTERVAL_MS) this.flush();
    } catch (cause) {
      this.#cutBack();
      throw new EventLogError(this.#path, cause);
    }
  }

  flush(): void {
    if (!this.#dirty) return;
    this.#file.syncDataSync();
    this.#dirty = false;
    this.#flushed = performance.now();
  }

  close(): void {
    this.#file.close();
  }

  /** Half a line must not stay: the next one would be glued to it. */
  #cutBack(): void {
    try {
      this.#file.truncateSync(this.#size);
      this.#file.seekSync(this.#size, Deno.SeekMode.Start);
    } catch {
      // The next opening cuts it off.
    }
  }
}

/** Events that may be lost to a power cut without harm: the next attempt says them again. */
const FLUSHED_LATER: ReadonlySet<string> = new Set(["metrics", "sample", "evaluation", "stage"]);

/** A row of `metrics.jsonl`. Rows of an interrupted and resumed run equal an uninterrupted run's but for times and rates. */
export type MetricsRow = Extract<RunEventBody, { type: "metrics" | "evaluation" }> & { time: string };

/**
 * The log of one run, opened for writing by its only writer.
 *
 * @example
 * ```ts ignore
 * const log = await RunLog.open("runs/20260724-153012-k7wq");
 * const event = log.append({ type: "state", state: "running" }, log.attempt + 1);
 * ```
 */
export class RunLog {
  readonly #folder: string;
  readonly #events: LineFile;
  #metrics: LineFile;
  #seq: number;
  #attempt: number;

  private constructor(folder: string, events: LineFile, metrics: LineFile, last: RunEvent | undefined) {
    this.#folder = folder;
    this.#events = events;
    this.#metrics = metrics;
    this.#seq = last?.seq ?? 0;
    this.#attempt = last?.attempt ?? 0;
  }

  /**
   * Opens or begins a log, cuts off a torn line and writes `metrics.jsonl` anew from the events.
   *
   * @throws {InputError} a log that is damaged before its end
   */
  static async open(folder: string): Promise<RunLog> {
    const path = join(folder, "events.jsonl");
    const bytes = await Deno.readFile(path).catch((error) => {
      if (error instanceof Deno.errors.NotFound) return new Uint8Array();
      throw error;
    });
    const size = bytes.lastIndexOf(0x0a) + 1;
    const events = parseEvents(new TextDecoder().decode(bytes.subarray(0, size)), path);
    const metrics = await writeMetrics(folder, events);
    return new RunLog(folder, new LineFile(path, size), metrics, events.at(-1));
  }

  /** Number of the last event; 0 in an empty log. */
  get seq(): number {
    return this.#seq;
  }

  /** Number of the last attempt; 0 before the first. */
  get attempt(): number {
    return this.#attempt;
  }

  /**
   * Stores an event and returns it with its number.
   *
   * @throws {EventLogError} it could not be stored; the log is as before
   */
  append(body: RunEventBody, attempt: number): RunEvent {
    const event: RunEvent = { seq: this.#seq + 1, time: new Date().toISOString(), attempt, ...body };
    this.#events.append(JSON.stringify(event), !FLUSHED_LATER.has(body.type));
    this.#seq = event.seq;
    this.#attempt = attempt;
    if (event.type === "metrics" || event.type === "evaluation") {
      this.#metrics.append(JSON.stringify(metricsRow(event)), false);
    }
    return event;
  }

  /** Takes rows that no longer hold out of `metrics.jsonl`, once a rewind event is stored. Nothing may be appended meanwhile. */
  async applyRewind(): Promise<void> {
    this.#metrics.close();
    this.#metrics = await writeMetrics(this.#folder, await readEvents(this.#folder));
  }

  /** Flushes and closes the files. */
  close(): void {
    try {
      this.#events.flush();
      this.#metrics.flush();
    } finally {
      this.#events.close();
      this.#metrics.close();
    }
  }
}

async function writeMetrics(folder: string, events: readonly RunEvent[]): Promise<LineFile> {
  const path = join(folder, "metrics.jsonl");
  const text = metricsRows(events).map((row) => JSON.stringify(row) + "\n").join("");
  await writeTextAtomically(path, text);
  return new LineFile(path, encoder.encode(text).length);
}

/**
 * Reads a run's events.
 *
 * @param after only events with a greater number
 * @throws {InputError} no such log, or it is damaged before its end
 */
export async function readEvents(folder: string, after = 0): Promise<RunEvent[]> {
  const path = join(folder, "events.jsonl");
  const text = await Deno.readTextFile(path).catch((cause) => {
    throw new InputError("the run has no readable event log", { where: path, cause });
  });
  return parseEvents(text.slice(0, text.lastIndexOf("\n") + 1), path).filter((event) => event.seq > after);
}

/** The metrics and evaluations that hold after all rewinds, in order. */
export function metricsRows(events: readonly RunEvent[]): MetricsRow[] {
  let rows: MetricsRow[] = [];
  for (const event of events) {
    if (event.type === "rewind") rows = rows.filter((row) => row.step <= event.step);
    if (event.type === "metrics" || event.type === "evaluation") rows.push(metricsRow(event));
  }
  return rows;
}

/** Step of the newest checkpoint before which nothing is missing in the log; -1 for none. */
export function lastCheckpoint(events: readonly RunEvent[]): number {
  let steps: number[] = [];
  for (const event of events) {
    if (event.type === "rewind") steps = steps.filter((step) => step <= event.step);
    if (event.type === "checkpoint") steps.push(event.step);
  }
  return Math.max(-1, ...steps.slice(-1));
}

function metricsRow(event: Extract<RunEvent, { type: "metrics" | "evaluation" }>): MetricsRow {
  const { seq: _seq, attempt: _attempt, time, ...body } = event;
  return { ...body, time };
}

const DAMAGED_HINT =
  "Delete that line and all after it; `limbeck resume` then continues from the newest checkpoint that is told of before it.";

function parseEvents(text: string, path: string): RunEvent[] {
  if (text === "") return [];
  return text.slice(0, -1).split("\n").map((line, i) => {
    let event: RunEvent;
    try {
      event = JSON.parse(line);
    } catch (cause) {
      throw new InputError(`line ${i + 1} is not JSON; the log was changed or the disk is damaged`, {
        where: path,
        hint: DAMAGED_HINT,
        cause,
      });
    }
    if (event?.seq !== i + 1) {
      throw new InputError(`line ${i + 1} has number ${event?.seq}; the log was changed`, {
        where: path,
        hint: DAMAGED_HINT,
      });
    }
    return event;
  });
}
