// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import { distillationOf } from "../../src/runs/task/run_recipe.ts";
import { DatabaseSync } from "node:sqlite";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { openStore } from "../../src/runs/store/data_folder.ts";
import { followRun } from "../../src/runs/store/follow.ts";
import { createRun, newManifest } from "../../src/runs/store/run_folder.ts";
import { afterLog, NO_PROGRESS } from "../../src/runs/store/run_progress.ts";
import type { NewRun, StoredRun } from "../../src/runs/store/store.ts";
import { RunStateError } from "../../src/runs/store/store_errors.ts";
import { firstInLine, takeGpu, waitForTurn } from "../../src/runs/supervise/turn.ts";
import { fakeRecipe, startFake, withFolder } from "./fake_run.ts";
import { testStore } from "./test_store.ts";

function newRun(folder: string): NewRun {
  const recipe = fakeRecipe(folder);
  const manifest = newManifest(recipe, []);
  return { manifest, recipe, folder: `${folder}/runs/${manifest.id}`, worker: "service" };
}

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

Deno.test("a store of an earlier version opens as it is, and its runs go on", () =>
  withFolder(async (folder) => {
    // Written out table by table, events before the runs that they belong to.
    const database = new DatabaseSync(`${folder}/limbeck.sqlite`, { enableForeignKeyConstraints: false });
    database.exec(await Deno.readTextFile(new URL("./store_version_1.sql", import.meta.url)));
    database.close();
    const store = testStore(folder);
    const runs = await Promise.all((await store.ids()).map(async (id) => (await store.get(id))!));
    assertEquals(
      runs.map(({ state, asked, restarts, seq, attempt, step }) => [
        ...[state, asked, restarts, seq, attempt, step],
      ]),
      [
        ["succeeded", null, 1, 15, 2, 4],
        ["paused", null, 0, 5, 1, 1],
        ["queued", null, 0, 5, 1, 0],
        ["running", "cancel", 0, 3, 1, 1],
      ],
    );
    const [done, paused, queued, killed] = runs as [StoredRun, StoredRun, StoredRun, StoredRun];
    assertEquals([done.result?.heldOut.after, done.owner, done.metadata], [1, "ada", { n: "0" }]);
    assertEquals([queued.error?.code, distillationOf(queued.recipe).train.steps], ["device", 4]);
    for (const run of runs) {
      const events = await store.events(run.id);
      const { id, asked } = run;
      const told = afterLog({ id, ...NO_PROGRESS }, events);
      assertEquals({ ...run, ...told, asked }, run, "where it stands is what its log says");
    }
    const held = await store.events(done.id, { types: ["metrics"], holding: true });
    assertEquals(held.map((event) => event.type === "metrics" && event.step), [1, 2, 3, 4]);
    assertEquals((await store.checkpoints(done.id)).map(({ step, best }) => [step, best]), [[2, false], [
      4,
      true,
    ]]);
    assertEquals(await takeGpu(store, "other", `${folder}/no.lock`), undefined, "its holder is long gone");
    assertEquals((await store.requeue(paused.id, "service")).seq, 6);
    await store.append(killed.id, 1, [{ type: "state", state: "interrupted" }, {
      type: "state",
      state: "queued",
    }]);
    assertEquals((await store.queued()).map(({ id }) => id), [paused.id, queued.id, killed.id]);
  }));

Deno.test("ask() cancels a run that another process works on; what is asked of a run at rest is refused", () =>
  withFolder(async (folder) => {
    const fake = await startFake(folder, { pace: 20, checkpointEvery: 1000 }, { steps: 400 });
    await fake.until((event) => event.type === "metrics");
    const other = openStore(folder);
    await other.ask(fake.run.id, "checkpoint");
    await fake.until((event) => event.type === "checkpoint");
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
    // Long enough that the second has begun to wait, however slow the machine is.
    const first = await startFake(folder, { pace: 10 }, { steps: 200 });
    await first.until((event) => event.type === "metrics");
    const second = await startFake(folder);
    for (const [name, fake] of [["first", first], ["second", second]] as const) {
      fake.supervised.outcome.then(({ state }) => order.push(`${name} ${state}`));
    }
    await Promise.all([first.supervised.outcome, second.supervised.outcome]);
    assertEquals(order, ["first succeeded", "second succeeded"]);
    const waits = second.events.flatMap((event) => event.type === "stage" ? [event.message] : []);
    assertEquals(waits, [`waiting for the GPU: ${first.run.id} has it or comes first`]);
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
