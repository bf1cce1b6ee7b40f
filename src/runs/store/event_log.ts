/**
 * The log of one run: every event is stored before anyone sees it, and copied into the run's folder, where people and other programs
 * read it: `events.jsonl` has all of them, `metrics.jsonl` the rows that hold after all rewinds.
 *
 * The store decides. The copies are written anew from it when the log is opened; a folder whose run the store does not know brings its
 * events along.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { RunEvent, RunEventBody } from "../../distill/run/events.ts";
import { InputError } from "../../base/errors.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import { secondsWorked } from "./run_progress.ts";
import type { RunStore } from "./store.ts";
import { StoreError } from "./store_errors.ts";

/** All events of a run, one as JSON a line. */
export const EVENTS_FILE = "events.jsonl";
/** The metrics and evaluations of a run that hold. */
const METRICS_FILE = "metrics.jsonl";

const encoder = new TextEncoder();

/** A file to which whole lines are appended or nothing. */
class LineFile {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  #size: number;

  constructor(path: string, size: number) {
    this.#path = path;
    this.#size = size;
    this.#file = Deno.openSync(path, { write: true, create: true });
    this.#file.truncateSync(size);
    this.#file.seekSync(size, Deno.SeekMode.Start);
  }

  /** Begins a file with some lines. */
  static async write(path: string, values: readonly unknown[]): Promise<LineFile> {
    const text = values.map((value) => JSON.stringify(value) + "\n").join("");
    await writeTextAtomically(path, text);
    return new LineFile(path, encoder.encode(text).length);
  }

  append(value: unknown): void {
    const bytes = encoder.encode(JSON.stringify(value) + "\n");
    try {
      for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
      this.#size += bytes.length;
    } catch (cause) {
      this.#cutBack();
      throw new StoreError(this.#path, cause);
    }
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
      // The next opening writes it anew.
    }
  }
}

/** A row of `metrics.jsonl`. Rows of an interrupted and resumed run equal an uninterrupted run's but for times and rates. */
export type MetricsRow = Extract<RunEventBody, { type: "metrics" | "evaluation" }> & { time: string };

/**
 * The log of one run, opened by the only process that works on it.
 *
 * @example
 * ```ts ignore
 * const log = await RunLog.open(store, run);
 * const [event] = await log.append([{ type: "state", state: "running" }], log.attempt + 1);
 * ```
 */
export class RunLog {
  readonly store: RunStore;
  readonly id: string;
  /** Seconds that the run had been worked on when its log was opened, since someone asked for it. */
  readonly secondsWorked: number;
  readonly #folder: string;
  readonly #events: LineFile;
  #metrics: LineFile;
  #seq: number;
  #attempt: number;

  private constructor(
    store: RunStore,
    run: { id: string; folder: string },
    [events, metrics]: [LineFile, LineFile],
    stored: readonly RunEvent[],
  ) {
    this.store = store;
    this.id = run.id;
    this.secondsWorked = secondsWorked(stored);
    this.#folder = run.folder;
    this.#events = events;
    this.#metrics = metrics;
    this.#seq = stored.length;
    this.#attempt = stored.at(-1)?.attempt ?? 0;
  }

  /**
   * Opens the log of a run that the store knows, and writes the copies in its folder anew.
   *
   * @throws {StoreError} the disk is full
   */
  static async open(store: RunStore, run: { id: string; folder: string }): Promise<RunLog> {
    const events = await store.events(run.id);
    const copies: [LineFile, LineFile] = [
      await LineFile.write(join(run.folder, EVENTS_FILE), events),
      await LineFile.write(join(run.folder, METRICS_FILE), metricsRows(events)),
    ];
    return new RunLog(store, run, copies, events);
  }

  /** Number of the last event that this log saw; 0 in an empty log. */
  get seq(): number {
    return this.#seq;
  }

  /** Number of the last attempt; 0 before the first. */
  get attempt(): number {
    return this.#attempt;
  }

  /**
   * Stores events, and returns them with their numbers.
   *
   * @throws {StoreError} they could not be stored; the log is as before
   */
  async append(bodies: readonly RunEventBody[], attempt: number): Promise<RunEvent[]> {
    const stored = await this.store.append(this.id, attempt, bodies);
    this.#attempt = Math.max(this.#attempt, attempt);
    // What others said of the run meanwhile, such as that it is queued again.
    const missed = this.#seq + 1 < stored[0]!.seq
      ? (await this.store.events(this.id, { after: this.#seq })).filter(({ seq }) => seq < stored[0]!.seq)
      : [];
    for (const event of [...missed, ...stored]) {
      this.#events.append(event);
      this.#seq = event.seq;
      if (event.type === "metrics" || event.type === "evaluation") this.#metrics.append(metricsRow(event));
      if (event.type === "rewind") await this.#rewind();
    }
    return stored;
  }

  /** Takes rows that no longer hold out of `metrics.jsonl`. */
  async #rewind(): Promise<void> {
    this.#metrics.close();
    const rows = metricsRows(await this.store.events(this.id));
    this.#metrics = await LineFile.write(join(this.#folder, METRICS_FILE), rows);
  }

  /** Closes the copies. */
  close(): void {
    this.#events.close();
    this.#metrics.close();
  }
}

/**
 * Reads the events in a run's folder. They may lag behind the store's where a process was killed.
 *
 * @throws {InputError} no such log, or it is damaged before its end
 */
export async function readEvents(folder: string): Promise<RunEvent[]> {
  const path = join(folder, EVENTS_FILE);
  const text = await Deno.readTextFile(path).catch((cause) => {
    throw new InputError("the run has no readable event log", { where: path, cause });
  });
  return parseEvents(text.slice(0, text.lastIndexOf("\n") + 1), path);
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
