// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { RunEventBody, RunState } from "../../src/distill/run/events.ts";
import { openStore } from "../../src/runs/store/data_folder.ts";
import { followRun } from "../../src/runs/store/follow.ts";
import { createRun, newManifest } from "../../src/runs/store/run_folder.ts";
import { mayBecome, RUN_STATES } from "../../src/runs/store/run_states.ts";
import type { NewRun } from "../../src/runs/store/store.ts";
import {
  IdempotencyError,
  RunStateError,
  TakenIdError,
  UnknownRunError,
} from "../../src/runs/store/store_errors.ts";
import { firstInLine, takeGpu, waitForTurn } from "../../src/runs/supervise/turn.ts";
import { fakeRecipe, startFake, withFolder } from "./fake_run.ts";
import { testStore } from "./test_store.ts";

function newRun(folder: string, metadata: Record<string, string> = {}): NewRun {
  const recipe = fakeRecipe(folder);
  const manifest = newManifest(recipe, []);
  return { manifest, recipe, folder: `${folder}/runs/${manifest.id}`, worker: "service", metadata };
}

const state = (state: RunState): RunEventBody => ({ type: "state", state });
const warning = (message: string): RunEventBody => ({ type: "warning", code: "test", message });

Deno.test("append() numbers events of several processes without gaps", () =>
  withFolder(async (folder) => {
    const store = testStore(folder);
    const { id } = await store.create(newRun(folder));
    const code = `import { openStore } from ${
      JSON.stringify(import.meta.resolve("../../src/runs/store/data_folder.ts"))
    };
      const store = openStore(${JSON.stringify(folder)});
      for (let i = 0; i < 100; i++) {
        await store.append(${
      JSON.stringify(id)
    }, 1, [{ type: "warning", code: "child", message: String(i) }]);
      }`;
    await Deno.writeTextFile(`${folder}/writer.ts`, code);
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const write = () =>
      new Deno.Command(Deno.execPath(), { args: ["run", "-A", `--config=${config}`, `${folder}/writer.ts`] })
        .output();
    const children = [write(), write()];
    for (let i = 0; i < 100; i++) await store.append(id, 1, [warning(`own ${i}`)]);
    for (const { success } of await Promise.all(children)) assert(success);
    const events = await store.events(id);
    assertEquals(events.map(({ seq }) => seq), Array.from({ length: 301 }, (_, i) => i + 1));
    assertEquals((await store.get(id))?.seq, 301);
  }));

Deno.test("append() refuses a state that the run cannot come to, and keeps nothing of the batch", () =>
  withFolder(async (folder) => {
    const store = testStore(folder);
    const { id } = await store.create(newRun(folder));
    await assertRejects(() => store.append(id, 1, [warning("lost"), state("succeeded")]), RunStateError);
    assertEquals((await store.events(id)).length, 1);
    await store.append(id, 1, [state("running"), state("succeeded")]);
    for (const next of RUN_STATES) {
      assertEquals(mayBecome("succeeded", next), false);
      await assertRejects(() => store.append(id, 1, [state(next)]), RunStateError, "is succeeded");
    }
    await assertRejects(() => store.append("none", 1, [warning("")]), UnknownRunError);
  }));

Deno.test("create() makes one run of a request that is sent again, and refuses its key for another", () =>
  withFolder(async (folder) => {
    const store = testStore(folder);
    const key = { owner: "ada", key: "k", fingerprint: "a" };
    const first = await store.create(newRun(folder), key);
    assertEquals((await store.create(newRun(folder), key)).id, first.id);
    assertEquals((await store.list()).data.length, 1);
    await assertRejects(() => store.create(newRun(folder), { ...key, fingerprint: "b" }), IdempotencyError);
    const other = await store.create(newRun(folder), { ...key, owner: "bob", fingerprint: "b" });
    assert(other.id !== first.id);
  }));

Deno.test("create() refuses an id that a run has, and leaves that run as it is", () =>
  withFolder(async (folder) => {
    const store = testStore(folder);
    const run = newRun(folder);
    await store.create(run);
    await assertRejects(() => store.create({ ...run, owner: "bob" }), TakenIdError, run.manifest.id);
    assertEquals((await store.list()).data.map(({ owner }) => owner), [""]);
  }));

Deno.test("list() pages from the newest to the oldest, and filters", () =>
  withFolder(async (folder) => {
    const store = testStore(folder);
    const ids: string[] = [];
    for (let i = 0; i < 7; i++) {
      ids.unshift((await store.create(newRun(folder, { odd: String(i % 2 === 1), "a.b'\"]": "x" }))).id);
    }
    const order = async () => {
      const seen: string[] = [];
      for (;;) {
        const after = seen.at(-1);
        const { data, hasMore } = await store.list({ limit: 3, ...(after ? { after } : {}) });
        seen.push(...data.map(({ id }) => id));
        if (!hasMore) return seen;
      }
    };
    assertEquals((await order()).toSorted(), ids.toSorted());
    assertEquals((await order()).toReversed(), await store.ids());
    assertEquals((await store.list({ metadata: { odd: "true" } })).data.length, 3);
    assertEquals((await store.list({ metadata: { "a.b'\"]": "x" } })).data.length, 7);
    assertEquals((await store.list({ metadata: { odd: "true", none: "" } })).data.length, 0);
    await store.append(ids[0]!, 0, [state("cancelled")]);
    assertEquals((await store.list({ states: ["cancelled", "failed"] })).data.map(({ id }) => id), [ids[0]]);
    await assertRejects(() => store.list({ after: "none" }), UnknownRunError);
  }));

Deno.test("ask() cancels a run that another process works on; what is asked of a run at rest is refused", () =>
  withFolder(async (folder) => {
    const fake = await startFake(folder, { pace: 20 }, { steps: 200 });
    await fake.until((event) => event.type === "metrics");
    const other = openStore(folder);
    await other.ask(fake.run.id, "checkpoint");
    await fake.until((event) => event.type === "checkpoint" && event.step % 5 !== 0);
    await other.ask(fake.run.id, "cancel");
    await other.ask(fake.run.id, "pause");
    assertEquals((await fake.supervised.outcome).state, "cancelled");
    const run = (await other.get(fake.run.id))!;
    assertEquals([run.state, run.asked], ["cancelled", null]);
    await assertRejects(() => other.ask(run.id, "cancel"), RunStateError, "is cancelled");
    await assertRejects(() => other.requeue(run.id, "service"), RunStateError, "cannot be resumed");
    other.close();
  }));

Deno.test("one run at a time has the GPU, the oldest first; a lease ends with whoever held it", () =>
  withFolder(async (folder) => {
    const order: string[] = [];
    const first = await startFake(folder, { pace: 10 }, { steps: 30 });
    await first.until((event) => event.type === "metrics");
    const waits: string[] = [];
    const second = await startFake(folder, {}, { onWait: (what) => waits.push(what) });
    for (const [name, fake] of [["first", first], ["second", second]] as const) {
      fake.supervised.outcome.then(({ state }) => order.push(`${name} ${state}`));
    }
    await Promise.all([first.supervised.outcome, second.supervised.outcome]);
    assertEquals(order, ["first succeeded", "second succeeded"]);
    assertEquals(waits, [`${first.run.id}, which has the GPU or is to have it first`]);
    const begun = (fake: typeof first) =>
      fake.events.find((event) => event.type === "state" && event.state === "running")!.time;
    assert(begun(second) > first.events.at(-1)!.time);

    const store = testStore(folder);
    const run = await createRun({ store, recipe: fakeRecipe(folder) });
    assertEquals(await takeGpu(store, "gone", `${folder}/no.lock`), undefined);
    assertEquals(await waitForTurn(store, run), true);
    assertEquals(await takeGpu(store, "late", `${folder}/no.lock`), run.id);
    assertEquals(await firstInLine(store), run.id);
    run.release();
    assertEquals(await firstInLine(store), undefined, "nobody waits with a run that is let go");
    assertEquals(await takeGpu(store, "late", `${folder}/no.lock`), undefined);
  }));

Deno.test("followRun() gives every event once to each reader, whenever it comes and wherever it is written", () =>
  withFolder(async (folder) => {
    const fake = await startFake(folder, { pace: 5, exitAt: 7 });
    const read = async (after: number, store = testStore(folder)) => {
      const seen: number[] = [];
      for await (const events of followRun(store, fake.run.id, { after, batch: 3 })) {
        seen.push(...events.map(({ seq }) => seq));
      }
      return seen;
    };
    using other = openStore(folder);
    const early = [read(0), read(4, other)];
    await fake.until((event) => event.type === "checkpoint");
    const [all, some, late] = await Promise.all([...early, read(2)]);
    const stored = (await testStore(folder).events(fake.run.id)).map(({ seq }) => seq);
    assertEquals(stored, stored.map((_, i) => i + 1));
    assertEquals([all, some, late], [stored, stored.slice(4), stored.slice(2)]);
    assertEquals(await read(stored.length), []);
    const stopped = new AbortController();
    const { id } = await testStore(folder).create(newRun(folder));
    const reader = followRun(testStore(folder), id, { signal: stopped.signal });
    assertEquals((await reader.next()).value?.length, 1);
    const next = reader.next();
    stopped.abort();
    assertEquals((await next).done, true);
  }));
