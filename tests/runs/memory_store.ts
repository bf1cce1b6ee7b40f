/** A store that forgets: what a store must do, in the fewest words. Those of one folder share what they keep, like processes. */
import { taskOf } from "../../src/runs/task/run_recipe.ts";
import type { RunEvent, RunEventBody, RunState, StateEvent } from "../../src/distill/run/events.ts";
import { afterAsking, afterEvent, afterLog, NO_PROGRESS } from "../../src/runs/store/run_progress.ts";
import type {
  EventQuery,
  GpuLease,
  IdempotencyKey,
  MetricsPoint,
  MetricsQuery,
  NewRun,
  Page,
  RunQuery,
  RunRequest,
  RunWorker,
  Store,
  StoredCheckpoint,
  StoredRun,
} from "../../src/runs/store/store.ts";
import { IdempotencyError, TakenIdError, UnknownRunError } from "../../src/runs/store/store_errors.ts";

/** What the stores of one folder share. */
class Kept {
  readonly runs = new Map<string, StoredRun>();
  readonly events = new Map<string, RunEvent[]>();
  readonly keys = new Map<string, { id: string; fingerprint: string }>();
  readonly leases = new Map<string, GpuLease>();
  readonly listeners = new Set<() => void>();
}

const kept = new Map<string, Kept>();

/** Keeps runs in memory. */
export class MemoryStore implements Store {
  readonly folder: string;
  readonly #kept: Kept;

  constructor(folder: string) {
    this.folder = folder;
    this.#kept = kept.get(folder) ?? new Kept();
    kept.set(folder, this.#kept);
  }

  create(run: NewRun, key?: IdempotencyKey): Promise<StoredRun> {
    return at(() => {
      const earlier = key && this.#ofKey(key);
      if (earlier) return earlier;
      const { id } = run.manifest;
      if (this.#kept.runs.has(id)) throw new TakenIdError(id);
      if (key) this.#kept.keys.set(nameOf(key), { id, fingerprint: key.fingerprint });
      return this.#keep(afterEvent(begun(run), firstOf(run)), [firstOf(run)]);
    });
  }

  adopt(run: NewRun, events: readonly RunEvent[]): Promise<StoredRun> {
    const log = events.length > 0 ? events : [firstOf(run)];
    return at(() => this.#keep(afterLog(begun(run), log), log));
  }

  move(id: string, folder: string): Promise<StoredRun> {
    return at(() => this.#keep({ ...this.#run(id), folder }));
  }

  get(id: string): Promise<StoredRun | undefined> {
    return at(() => this.#kept.runs.get(id));
  }

  findByKey(key: IdempotencyKey): Promise<StoredRun | undefined> {
    return at(() => this.#ofKey(key));
  }

  findByFolder(folder: string): Promise<StoredRun | undefined> {
    return at(() => this.#oldest().find((run) => run.folder === folder));
  }

  list({ after, limit = 20, states, metadata = {}, worker, task }: RunQuery = {}): Promise<Page<StoredRun>> {
    return at(() => {
      const all = this.#oldest().reverse();
      const first = after === undefined ? 0 : all.indexOf(this.#run(after)) + 1;
      const found = all.slice(first).filter((run) =>
        (!states || states.includes(run.state)) && (!worker || run.worker === worker) &&
        (!task || taskOf(run.recipe) === task) &&
        Object.entries(metadata).every(([name, value]) => run.metadata[name] === value)
      );
      return { data: found.slice(0, limit), hasMore: found.length > limit };
    });
  }

  ids(beginning = ""): Promise<string[]> {
    return at(() => this.#oldest().map(({ id }) => id).filter((id) => id.startsWith(beginning)));
  }

  remove(id: string): Promise<void> {
    return at(() => {
      const { runs, events, keys } = this.#kept;
      runs.delete(this.#run(id).id);
      events.delete(id);
      for (const [name, key] of keys) if (key.id === id) keys.delete(name);
      this.#tell();
    });
  }

  append(id: string, attempt: number, bodies: readonly RunEventBody[]): Promise<RunEvent[]> {
    return at(() => this.#append(id, attempt, bodies));
  }

  events(id: string, query: EventQuery = {}): Promise<RunEvent[]> {
    return at(() => this.#events(id, query));
  }

  metrics(id: string, { from, to, points }: MetricsQuery): Promise<MetricsPoint[]> {
    return at(() => {
      const rows = this.#events(id, { types: ["metrics"], holding: true })
        .filter((event) => event.type === "metrics").filter(({ step }) => step >= from && step <= to);
      if (rows.length === 0) return [];
      const width = Math.max(1, Math.ceil((rows.at(-1)!.step - rows[0]!.step + 1) / points));
      return [...Map.groupBy(rows, ({ step }) => Math.floor((step - rows[0]!.step) / width)).values()]
        .map((part) => {
          const { seq: _seq, time: _time, attempt: _attempt, ...metrics } = part.at(-1)!;
          return { metrics, steps: part.length, loss: spread(part.flatMap(({ loss }) => loss ?? [])) };
        });
    });
  }

  checkpoints(id: string): Promise<StoredCheckpoint[]> {
    return at(() => {
      let found: StoredCheckpoint[] = [];
      for (const event of this.#events(id, { types: ["checkpoint", "rewind"] })) {
        if (event.type === "rewind") found = found.filter(({ step }) => step <= event.step);
        if (event.type !== "checkpoint") continue;
        const { step, path, best, time } = event;
        found = found.filter((other) => other.step !== step);
        if (best) found = found.map((other) => ({ ...other, best: false }));
        found.push({ step, path, best, time });
      }
      return found.sort((a, b) => a.step - b.step);
    });
  }

  ask(id: string, request: RunRequest | null): Promise<void> {
    return at(() => void this.#keep(afterAsking(this.#run(id), request)));
  }

  requeue(id: string, worker: RunWorker, by: StateEvent["by"] = "request"): Promise<StoredRun> {
    return at(() => {
      const run = this.#run(id);
      this.#append(id, run.attempt, [{ type: "state", state: "queued", by }]);
      return this.#keep({ ...this.#run(id), worker });
    });
  }

  queued(limit = 100): Promise<StoredRun[]> {
    return at(() => this.#oldest().filter(({ state }) => state === "queued").slice(0, limit));
  }

  countByState(): Promise<Partial<Record<RunState, number>>> {
    return at(() => {
      const groups = Map.groupBy(this.#oldest(), ({ state }) => state);
      return Object.fromEntries([...groups].map(([state, runs]) => [state, runs.length]));
    });
  }

  async countQueued(): Promise<number> {
    return (await this.countByState()).queued ?? 0;
  }

  lease(
    gpu: string,
    wanted: GpuLease,
    lives: (holder: GpuLease) => boolean,
  ): Promise<GpuLease | undefined> {
    return at(() => {
      const held = this.#kept.leases.get(gpu);
      if (held && held.holder !== wanted.holder && lives(held)) return held;
      this.#kept.leases.set(gpu, wanted);
      return undefined;
    });
  }

  release(gpu: string, holder: string): Promise<void> {
    return at(() => {
      const { leases } = this.#kept;
      if (leases.get(gpu)?.holder === holder) leases.delete(gpu);
    });
  }

  onChange(listener: () => void): Disposable {
    this.#kept.listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#kept.listeners.delete(listener) };
  }

  isWritable(): Promise<boolean> {
    return Promise.resolve(true);
  }

  close(): void {}

  [Symbol.dispose](): void {}

  #append(id: string, attempt: number, bodies: readonly RunEventBody[]): RunEvent[] {
    let run = this.#run(id);
    const time = new Date().toISOString();
    const events = bodies.map((body): RunEvent => {
      const event = { seq: run.seq + 1, time, attempt, ...body };
      run = afterEvent(run, event);
      return event;
    });
    this.#keep(run, events);
    return events;
  }

  #events(id: string, query: EventQuery): RunEvent[] {
    const { after = 0, limit, types, attempt, holding, newestFirst } = query;
    const all = this.#kept.events.get(id) ?? [];
    const found = all.filter((event) =>
      (newestFirst && after > 0 ? event.seq < after : event.seq > after) &&
      (!types || types.includes(event.type)) && (attempt === undefined || event.attempt === attempt) &&
      (!holding || holds(event, all))
    );
    return (newestFirst ? found.toReversed() : found).slice(0, limit);
  }

  #keep(run: StoredRun, events: readonly RunEvent[] = []): StoredRun {
    this.#kept.runs.set(run.id, asJson(run));
    this.#kept.events.set(run.id, [...this.#kept.events.get(run.id) ?? [], ...asJson(events)]);
    this.#tell();
    return this.#run(run.id);
  }

  #tell(): void {
    for (const listener of this.#kept.listeners) queueMicrotask(listener);
  }

  #run(id: string): StoredRun {
    const run = this.#kept.runs.get(id);
    if (!run) throw new UnknownRunError(id);
    return run;
  }

  #ofKey(key: IdempotencyKey): StoredRun | undefined {
    const known = this.#kept.keys.get(nameOf(key));
    if (known && known.fingerprint !== key.fingerprint) throw new IdempotencyError(key.key);
    return known && this.#run(known.id);
  }

  #oldest(): StoredRun[] {
    const order = ({ manifest, id }: StoredRun) => `${manifest.createdAt} ${id}`;
    return [...this.#kept.runs.values()].sort((a, b) => order(a) < order(b) ? -1 : 1);
  }
}

/** Does something whole before anything else happens. */
function at<T>(work: () => T): Promise<T> {
  return new Promise((resolve) => resolve(work()));
}

function firstOf({ manifest }: NewRun): RunEvent {
  return { seq: 1, time: manifest.createdAt, attempt: 0, type: "state", state: "queued" };
}

function begun(run: NewRun): StoredRun {
  return { owner: "", metadata: {}, ...run, named: run.named ?? null, id: run.manifest.id, ...NO_PROGRESS };
}

function nameOf({ owner, key }: IdempotencyKey): string {
  return JSON.stringify([owner, key]);
}

function spread(losses: readonly number[]): MetricsPoint["loss"] {
  if (losses.length === 0) return { mean: null, least: null, most: null };
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  return { mean, least: Math.min(...losses), most: Math.max(...losses) };
}

/** What is kept is what can be written down. */
function asJson<T>(value: T): T {
  return JSON.parse(JSON.stringify(value));
}

/** Whether no later rewind takes a row back. */
function holds(event: RunEvent, all: readonly RunEvent[]): boolean {
  if (event.type !== "metrics" && event.type !== "evaluation") return true;
  return !all.some((other) => other.type === "rewind" && other.seq > event.seq && other.step < event.step);
}
