/**
 * What every store must do. `testRunStore()` registers the tests for one; a store is opened by its folder, and two that are opened for one
 * folder are two processes.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { RunEvent, RunEventBody, RunState } from "../../src/distill/run/events.ts";
import { newManifest } from "../../src/runs/store/run_folder.ts";
import { afterAsking, afterEvent, NO_PROGRESS } from "../../src/runs/store/run_progress.ts";
import type { RunTask } from "../../src/runs/task/run_recipe.ts";
import { parseTask } from "../../src/runs/task/task.ts";
import { RUN_STATES } from "../../src/runs/store/run_states.ts";
import type { IdempotencyKey, NewRun, RunProgress, RunRequest, Store } from "../../src/runs/store/store.ts";
import {
  IdempotencyError,
  RunStateError,
  TakenIdError,
  UnknownRunError,
} from "../../src/runs/store/store_errors.ts";
import { fakeRecipe } from "./fake_run.ts";

/** Opens a store for a folder. */
export type OpenStore = (folder: string) => Store;

const state = (state: RunState): RunEventBody => ({ type: "state", state });
const warning = (message: string): RunEventBody => ({ type: "warning", code: "test", message });
const checkpoint = (step: number, best: boolean): RunEventBody => ({
  ...{ type: "checkpoint", step, path: `checkpoints/step-${step}`, best },
});
const evaluation = (step: number): RunEventBody => ({
  ...{ type: "evaluation", step, model: "student", loss: 1, losses: {}, tokens: 1 },
});

function row(step: number, loss: number = 1 / step): RunEventBody {
  const rates = {
    learningRate: 1,
    gradientNorm: 1,
    supervisedTokens: 1,
    tokensPerSecond: 1,
    secondsPerStep: 1,
  };
  return { type: "metrics", step, loss, losses: { "cross-entropy": loss }, ...rates };
}

let made = 0;

/** A run, a second younger than the one before it. */
function newRun(more: Partial<NewRun> = {}): NewRun {
  const recipe = fakeRecipe("/srv");
  const n = made++;
  // Ids do not sort by age here.
  const id = `20260101-000000-${String(n * 7919 % 10000).padStart(4, "0")}`;
  const createdAt = new Date(Date.now() - 3600_000 + n * 1000).toISOString();
  const manifest = { ...newManifest(recipe, []), id, createdAt };
  return { manifest, recipe, folder: `/srv/runs/${id}`, worker: "service", ...more };
}

/** Registers the tests of a store. */
export function testRunStore(name: string, open: OpenStore): void {
  const test = (what: string, fn: (store: Store, other: Store, folder: string) => Promise<void>) =>
    Deno.test(`${name}: ${what}`, async () => {
      const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
      try {
        using store = open(folder);
        using other = open(folder);
        await fn(store, other, folder);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    });

  test("create() keeps a run as it was given, queued", async (store, other, folder) => {
    assertEquals(store.folder, folder);
    const run = newRun({ owner: "ada", metadata: { "a.b'\"]": "x" }, named: { teacher: { model: "m" } } });
    const { id, createdAt } = run.manifest;
    const kept = { ...run, id, ...NO_PROGRESS, seq: 1 };
    assertEquals(await store.create(run), kept as typeof kept & { owner: string });
    assertEquals(await other.get(id), await store.get(id));
    const first = { seq: 1, time: createdAt, attempt: 0, type: "state", state: "queued" } as const;
    assertEquals(await other.events(id), [first]);
    const plain = await store.create(newRun({ worker: "command" }));
    assertEquals([plain.owner, plain.metadata, plain.named, plain.worker], ["", {}, null, "command"]);
    assertEquals((await other.findByFolder(run.folder))?.id, id);
    assertEquals(await other.findByFolder("/srv/runs"), undefined);
    assertEquals(await other.get("none"), undefined);
  });

  test("create() refuses an id that is taken, and leaves the run that has it", async (store, other) => {
    const run = newRun();
    await store.create(run);
    await assertRejects(() => other.create({ ...run, folder: "/srv/b", owner: "bob" }), TakenIdError);
    assertEquals((await store.list()).data.map(({ owner }) => owner), [""]);
  });

  test("a key makes one run of a request that is sent again", async (store, other) => {
    const key: IdempotencyKey = { owner: "ada", key: "k", fingerprint: "a" };
    assertEquals(await store.findByKey(key), undefined);
    const both = await Promise.all([store.create(newRun(), key), other.create(newRun(), key)]);
    assertEquals(both[0].id, both[1].id);
    assertEquals((await other.findByKey(key))?.id, both[0].id);
    assertEquals((await store.list()).data.length, 1);
    const reused = { ...key, fingerprint: "b" };
    await assertRejects(() => other.create(newRun(), reused), IdempotencyError);
    await assertRejects(() => other.findByKey(reused), IdempotencyError);
    const bob = await store.create(newRun(), { ...reused, owner: "bob" });
    assert(bob.id !== both[0].id, "keys of different people do not meet");
    await store.remove(bob.id);
    assertEquals(await store.findByKey({ ...key, owner: "bob" }), undefined, "it goes with its run");
  });

  test("a run that does a task is kept like any other, and found by it", async (store, other) => {
    const task = parseTask({
      task: "merge",
      method: "linear",
      models: [{ model: "/srv/a", weight: [0, 1] }],
    });
    const merge = await store.create(newRun({ recipe: task, manifest: newRun().manifest }));
    const plain = await other.create(newRun());
    assertEquals((await other.get(merge.id))!.recipe, task);
    const found = async (task: RunTask) => (await other.list({ task })).data.map(({ id }) => id);
    assertEquals([await found("merge"), await found("distill"), await found("shrink")], [
      [merge.id],
      [plain.id],
      [],
    ]);
    await store.append(merge.id, 1, [state("running"), { type: "progress", step: 40, message: "2 of 5" }]);
    assertEquals((await other.get(merge.id))!.step, 40);
    await store.append(merge.id, 2, [{ type: "rewind", step: -1 }]);
    assertEquals((await other.get(merge.id))!.step, 0);
  });

  test("list(), ids() and queued() are in the order in which runs were made", async (store, other) => {
    const ids: string[] = [];
    for (let i = 0; i < 7; i++) {
      const run = newRun({ metadata: { odd: String(i % 2 === 1) }, worker: i < 5 ? "service" : "command" });
      ids.push((await (i % 2 ? store : other).create(run)).id);
    }
    const seen: string[] = [];
    for (let more = true; more;) {
      const after = seen.at(-1);
      const page = await store.list({ limit: 3, ...(after ? { after } : {}) });
      seen.push(...page.data.map(({ id }) => id));
      more = page.hasMore;
    }
    assertEquals(seen, ids.toReversed());
    assertEquals((await store.list({ limit: 7 })).hasMore, false);
    assertEquals(await store.ids(), ids);
    assertEquals(await store.ids(ids[3]), [ids[3]]);
    assertEquals((await store.queued()).map(({ id }) => id), ids);
    assertEquals((await store.queued(2)).map(({ id }) => id), ids.slice(0, 2));
    const found = async (query: Parameters<Store["list"]>[0]) =>
      (await other.list(query)).data.map(({ id }) => ids.indexOf(id));
    assertEquals(await found({ metadata: { odd: "true" } }), [5, 3, 1]);
    assertEquals(await found({ metadata: { odd: "true" }, worker: "command" }), [5]);
    assertEquals(await found({ metadata: { odd: "true", none: "" } }), []);
    await store.append(ids[2]!, 0, [state("cancelled")]);
    await store.append(ids[4]!, 1, [state("running")]);
    assertEquals(await found({ states: ["cancelled", "running"] }), [4, 2]);
    assertEquals(await found({ states: ["cancelled", "running"], after: ids[4]! }), [2]);
    assertEquals(await store.countByState(), { queued: 5, cancelled: 1, running: 1 });
    assertEquals([await store.countQueued(), (await store.queued()).length], [5, 5]);
  });

  test("what is asked of a run that is not there is refused", async (store) => {
    const missing: (() => Promise<unknown>)[] = [
      () => store.append("none", 1, [warning("")]),
      () => store.ask("none", "cancel"),
      () => store.requeue("none", "service"),
      () => store.remove("none"),
      () => store.move("none", "/srv/x"),
      () => store.list({ after: "none" }),
    ];
    for (const ask of missing) await assertRejects(ask, UnknownRunError, "none");
    assertEquals(await store.events("none"), []);
    assertEquals(await store.checkpoints("none"), []);
  });

  test("remove() forgets all of a run, and move() its old folder", async (store, other) => {
    const run = newRun();
    const { id } = await store.create(run, { owner: "", key: "k", fingerprint: "f" });
    await store.append(id, 1, [row(1), checkpoint(1, true)]);
    assertEquals((await other.move(id, "/srv/elsewhere")).folder, "/srv/elsewhere");
    assertEquals(await store.findByFolder(run.folder), undefined);
    await other.remove(id);
    assertEquals([await store.get(id), await store.events(id)], [undefined, []]);
    assertEquals([await store.checkpoints(id), await store.ids()], [[], []]);
    assertEquals((await store.create(run)).seq, 1, "the id is free again");
  });

  test("append() numbers events without gaps, whoever says them", async (store, other) => {
    const { id } = await store.create(newRun());
    const batches = await Promise.all(
      Array.from(
        { length: 40 },
        (_, i) => (i % 2 ? store : other).append(id, 1, [warning(`${i}a`), warning(`${i}b`)]),
      ),
    );
    for (const [a, b] of batches) assertEquals(b!.seq, a!.seq + 1, "a batch stays together");
    const events = await store.events(id);
    assertEquals(events.map(({ seq }) => seq), Array.from({ length: 81 }, (_, i) => i + 1));
    assertEquals(batches.flat().toSorted((a, b) => a.seq - b.seq), events.slice(1));
    assertEquals((await other.get(id))?.seq, 81);
    for (const { time } of events) assertEquals(new Date(time).toISOString(), time);
  });

  test("append() keeps all of a batch or nothing", async (store) => {
    const { id } = await store.create(newRun());
    const before = await store.get(id);
    const batch = [state("running"), row(1), checkpoint(1, true), state("queued")];
    await assertRejects(
      () => store.append(id, 1, batch),
      RunStateError,
      "is running and cannot be resumed",
    );
    assertEquals([await store.get(id), (await store.events(id)).length], [before, 1]);
    assertEquals(await store.checkpoints(id), []);
    assertEquals(await store.metrics(id, { from: 0, to: 9, points: 9 }), []);
  });

  test("values that are not finite are kept as null", async (store) => {
    const { id } = await store.create(newRun());
    await store.append(id, 1, [row(1, NaN), row(2, Infinity)]);
    const [, first] = await store.events(id);
    assert(first?.type === "metrics");
    assertEquals([first.loss, first.losses["cross-entropy"], (await store.get(id))?.loss], [
      null,
      null,
      null,
    ]);
    const [point] = await store.metrics(id, { from: 0, to: 9, points: 1 });
    assertEquals([point?.steps, point?.loss], [2, { mean: null, least: null, most: null }]);
  });

  test("events() by number, kind, attempt and end", async (store) => {
    const { id } = await store.create(newRun());
    await store.append(id, 1, [state("running"), row(1), warning("a"), row(2)]);
    await store.append(id, 2, [warning("b"), row(3)]);
    const seqs = async (query: Parameters<Store["events"]>[1]) =>
      (await store.events(id, query)).map(({ seq }) => seq);
    assertEquals(await seqs({}), [1, 2, 3, 4, 5, 6, 7]);
    assertEquals(await seqs({ after: 3, limit: 2 }), [4, 5]);
    assertEquals(await seqs({ after: 7 }), []);
    assertEquals(await seqs({ types: ["metrics", "state"] }), [1, 2, 3, 5, 7]);
    assertEquals(await seqs({ types: ["metrics"], attempt: 2 }), [7]);
    assertEquals(await seqs({ newestFirst: true, limit: 3 }), [7, 6, 5]);
    assertEquals(await seqs({ newestFirst: true, after: 5, limit: 3 }), [4, 3, 2]);
    assertEquals(await seqs({ newestFirst: true, types: ["warning"], limit: 1 }), [6]);
  });

  test("a rewind takes back metrics, evaluations and checkpoints after its step", async (store) => {
    const { id } = await store.create(newRun());
    const saved = async () => (await store.checkpoints(id)).map(({ step, best }) => best ? -step : step);
    const steps = async () =>
      (await store.events(id, { types: ["metrics", "evaluation"], holding: true }))
        .map((event) => "step" in event && event.step);
    await store.append(id, 1, [evaluation(0), row(1), row(2), checkpoint(2, true), row(3), evaluation(3)]);
    await store.append(id, 1, [row(4), checkpoint(4, true), row(5)]);
    assertEquals([await saved(), await steps()], [[2, -4], [0, 1, 2, 3, 3, 4, 5]]);
    await store.append(id, 2, [{ type: "rewind", step: 2 }, row(3)]);
    assertEquals([await saved(), await steps()], [[2], [0, 1, 2, 3]]);
    await store.append(id, 2, [checkpoint(3, false), checkpoint(3, true)]);
    const [, third] = await store.checkpoints(id);
    assertEquals([third?.path, third?.best], ["checkpoints/step-3", true], "saved again, it is one");
    assertEquals((await store.events(id)).length, 14, "what was said stays in the log");
    await store.append(id, 3, [{ type: "rewind", step: -1 }]);
    assertEquals([await saved(), await steps()], [[], []]);
  });

  test("metrics() puts equally many steps in one point", async (store) => {
    const { id } = await store.create(newRun());
    assertEquals(await store.metrics(id, { from: 0, to: 99, points: 4 }), []);
    await store.append(id, 1, Array.from({ length: 13 }, (_, i) => row(i + 1, i + 1)));
    await store.append(id, 2, [{ type: "rewind", step: 10 }, row(11, 111), row(12, 112)]);
    const points = await store.metrics(id, { from: 2, to: 99, points: 4 });
    assertEquals(points.map(({ metrics, steps }) => [metrics.step, steps]), [[4, 3], [7, 3], [10, 3], [
      12,
      2,
    ]]);
    assertEquals(points[0]!.loss, { mean: 3, least: 2, most: 4 });
    assertEquals(points[3]!.loss, { mean: 111.5, least: 111, most: 112 });
    assertEquals(points[3]!.metrics, row(12, 112) as typeof points[3]["metrics"]);
    const all = await store.metrics(id, { from: 0, to: 99, points: 12 });
    assertEquals(all.map(({ metrics }) => metrics.step), Array.from({ length: 12 }, (_, i) => i + 1));
    assertEquals((await store.metrics(id, { from: 5, to: 5, points: 1 })).length, 1);
  });

  test("adopt() believes a log of elsewhere, and keeps its numbers and times", async (store, other) => {
    const time = (second: number) => new Date(Date.UTC(2026, 0, 1) + second * 1000).toISOString();
    const bodies = [state("queued"), state("running"), row(1), checkpoint(1, true), state("succeeded")];
    const log = [...bodies, state("running"), warning("odd")].map((body, i): RunEvent => ({
      ...{ seq: i + 1, time: time(i), attempt: i === 0 ? 0 : 1 },
      ...body,
    }));
    const run = await store.adopt(newRun(), log);
    assertEquals(await other.events(run.id), log);
    assertEquals([run.state, run.seq, run.attempt, run.step], ["running", 7, 1, 1]);
    assertEquals([run.startedAt, run.finishedAt], [time(1), null]);
    assertEquals((await other.checkpoints(run.id)).map(({ time }) => time), [time(3)]);
    const silent = await store.adopt(newRun(), []);
    assertEquals([silent.state, silent.seq, (await other.events(silent.id)).length], ["queued", 1, 1]);
  });

  test("whatever happens to a run, it stands where the reducer says", async (store, other) => {
    // A linear congruential generator, so that a failure can be had again.
    let seed = 1;
    const draw = (count: number) => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % count;
    const pick = <T>(values: readonly T[]) => values[draw(values.length)]!;
    const outcomes = new Set<string>();
    for (let round = 0; round < 12; round++) {
      const { id } = await store.create(newRun());
      let expected: RunProgress & { id: string } = { id, ...NO_PROGRESS, seq: 1 };
      for (let move = 0; move < 60; move++) {
        const where = pick([store, other]);
        const attempt = 1 + Math.floor(move / 20);
        const change = draw(10);
        let after: typeof expected | undefined;
        let done: Promise<unknown>;
        if (change === 0) {
          const request = pick<RunRequest | null>(["checkpoint", "pause", "cancel", null]);
          after = attempted(() => afterAsking(expected, request));
          done = where.ask(id, request);
        } else if (change === 1) {
          const by = pick(["request", "service-end"] as const);
          done = where.requeue(id, "service", by);
          await done.catch(() => {});
          const { time } = (await where.events(id)).at(-1)!;
          const stamp = { seq: expected.seq + 1, time, attempt: expected.attempt };
          after = attempted(() => afterEvent(expected, { ...stamp, type: "state", state: "queued", by }));
        } else {
          const bodies = [
            pick([row(1 + draw(9)), checkpoint(draw(9), draw(2) === 0), warning("w")]),
            // The ends are rarer, so that something comes before them.
            pick([
              state(pick(RUN_STATES)),
              state(pick(["running", "interrupted", "queued"])),
              row(2),
              row(3),
            ]),
          ];
          done = where.append(id, attempt, bodies);
          const events = await done.catch(() => undefined) as RunEvent[] | undefined;
          const stamps = events ?? bodies.map((_, i) => ({ seq: expected.seq + i + 1, time: "", attempt }));
          after = attempted(() =>
            bodies.reduce((run, body, i) => {
              const { seq, time } = stamps[i]!;
              return afterEvent(run, { seq, time, attempt, ...body });
            }, expected)
          );
        }
        if (after) await done;
        else await assertRejects(() => done, RunStateError);
        outcomes.add(after ? "done" : "refused");
        expected = after ?? expected;
        const run = (await pick([store, other]).get(id))!;
        assertEquals({ ...run, ...expected }, run);
      }
    }
    assertEquals([...outcomes].toSorted(), ["done", "refused"]);
  });

  test("requeue() says who works on it next and why", async (store, other) => {
    const { id } = await store.create(newRun());
    await store.append(id, 1, [state("running")]);
    await store.ask(id, "pause");
    assertEquals((await other.get(id))?.asked, "pause");
    await store.append(id, 1, [
      state("interrupted"),
      state("queued"),
      state("running"),
      state("interrupted"),
    ]);
    const handed = await store.requeue(id, "service", "service-end");
    assertEquals([handed.state, handed.restarts, handed.asked, handed.seq], ["queued", 1, "pause", 7]);
    await store.append(id, 2, [state("running"), state("paused")]);
    const asked = await other.requeue(id, "command");
    assertEquals([asked.worker, asked.restarts, asked.asked, asked.finishedAt], ["command", 0, null, null]);
    assertEquals((await store.events(id)).at(-1), {
      ...{ seq: 10, time: (await store.events(id)).at(-1)!.time, attempt: 2 },
      ...{ type: "state", state: "queued", by: "request" },
    });
    await assertRejects(() => store.requeue(id, "service"), RunStateError, "cannot be resumed");
  });

  test("a lease counts as long as its holder lives", async (store, other) => {
    const alive = new Set(["a.lock", "b.lock"]);
    const lives = ({ lock }: { lock: string }) => alive.has(lock);
    const [a, b] = [{ holder: "a", lock: "a.lock" }, { holder: "b", lock: "b.lock" }];
    assertEquals(await store.lease("gpu", a, lives), undefined);
    assertEquals(await store.lease("gpu", a, lives), undefined, "who has it may ask again");
    assertEquals(await other.lease("gpu", b, lives), a);
    assertEquals(await other.lease("another", b, lives), undefined, "each GPU has its own");
    await other.release("gpu", "b");
    assertEquals(await other.lease("gpu", b, lives), a, "nobody gives back what another has");
    alive.delete("a.lock");
    assertEquals(await other.lease("gpu", b, lives), undefined, "it was killed");
    assertEquals(await store.lease("gpu", a, lives), b);
    await other.release("gpu", "b");
    assertEquals(await store.lease("gpu", a, lives), undefined);
    const racing = await Promise.all(
      [store, other].map((each, i) => each.lease("third", [a, b][i]!, () => true)),
    );
    assertEquals(racing.filter((holder) => holder === undefined).length, 1, "one of two has it");
  });

  test("onChange() tells of changes here and elsewhere, until it is disposed of", async (store, other) => {
    let [heard, wake] = [0, Promise.withResolvers<void>()];
    const listening = store.onChange(() => {
      heard++;
      wake.resolve();
    });
    const { id } = await store.create(newRun());
    await wake.promise;
    // What is heard of the first change may come late.
    await new Promise((resolve) => setTimeout(resolve, 300));
    wake = Promise.withResolvers();
    await other.append(id, 1, [warning("elsewhere")]);
    await wake.promise;
    listening[Symbol.dispose]();
    const before = heard;
    await store.append(id, 1, [warning("here")]);
    await new Promise((resolve) => setTimeout(resolve, 10));
    assertEquals(heard, before);
    assertEquals(await store.isWritable(), true);
    store.close();
    store.close();
  });
}

/** What comes out, or undefined where it is refused. */
function attempted<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof RunStateError) return undefined;
    throw error;
  }
}
