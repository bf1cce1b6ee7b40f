// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import type { RunEvent, RunEventBody, StateEvent } from "../../src/distill/run/events.ts";
import { followRun } from "../../src/runs/store/follow.ts";
import { runFolder } from "../../src/runs/store/layout.ts";
import { newManifest } from "../../src/runs/store/run_folder.ts";
import { secondsWorked } from "../../src/runs/store/run_progress.ts";
import type { NewRun, RunStore, Store } from "../../src/runs/store/store.ts";
import { StoreError } from "../../src/runs/store/store_errors.ts";
import { Scheduler, type SchedulerOptions } from "../../src/runs/supervise/scheduler.ts";
import { fakeEntry, fakeRecipe, withFolder } from "./fake_run.ts";
import type { Fault } from "./fake_trainer.ts";
import { testStore } from "./test_store.ts";

function newRun(store: Store, folder: string, fault: Fault = {}, steps = 12): NewRun {
  const recipe = fakeRecipe(folder, fault, steps);
  const manifest = newManifest(recipe, []);
  return { manifest, recipe, folder: runFolder(store, manifest.id), worker: "service" };
}

async function withScheduler(
  options: Omit<SchedulerOptions, "entry">,
  work: (scheduler: Scheduler) => Promise<void>,
): Promise<void> {
  const scheduler = await Scheduler.start({ entry: fakeEntry, ...options });
  try {
    await work(scheduler);
  } finally {
    await scheduler.close(2);
  }
}

/** The first event of a run that fits. */
async function until(store: RunStore, id: string, fits: (event: RunEvent) => boolean): Promise<void> {
  for await (const events of followRun(store, id)) if (events.some(fits)) return;
}

/** A store whose disk can be full: then it takes no event. */
function withDisk(store: Store): { store: Store; disk: { full: boolean; refused: number } } {
  const disk = { full: false, refused: 0 };
  const append = (...args: Parameters<Store["append"]>) => {
    if (!disk.full) return store.append(...args);
    disk.refused++;
    return Promise.reject(new StoreError("limbeck.sqlite", new Error("database or disk is full")));
  };
  return {
    disk,
    store: new Proxy(store, {
      get(target, name) {
        if (name === "append") return append;
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    }),
  };
}

Deno.test("a run whose end the full disk does not take ends when there is room, and so do its readers", () =>
  withFolder(async (folder) => {
    const { store, disk } = withDisk(testStore(folder));
    await withScheduler({ store }, async (scheduler) => {
      const { id } = await store.create(newRun(store, folder, { pace: 20 }, 200));
      await until(store, id, (event) => event.type === "checkpoint");
      await store.ask(id, "pause");
      await until(store, id, (event) => event.type === "state" && event.state === "paused");
      await store.requeue(id, "service");
      await until(store, id, (event) => event.type === "metrics" && event.attempt === 2);
      disk.full = true;
      const seen: RunEvent[] = [];
      const reader = (async () => {
        for await (const events of followRun(store, id)) seen.push(...events);
      })();
      // What the trainer said, and at least one try to say how it ended.
      while (disk.refused < 3) await new Promise((resolve) => setTimeout(resolve, 20));
      assertEquals((await store.get(id))!.state, "running");
      disk.full = false;
      await reader;
      const { state, error } = (await store.get(id))!;
      assertEquals([state, error?.code], ["failed", "disk_full"]);
      assertEquals(seen.map(({ seq }) => seq), seen.map((_, i) => i + 1));
      // It can be resumed, and others come after it.
      const next = await store.create(newRun(store, folder));
      await until(store, next.id, (event) => event.type === "state" && event.state === "succeeded");
      await store.requeue(id, "service");
      await until(store, id, (event) => event.type === "metrics" && event.attempt === 3);
      await store.ask(id, "cancel");
      await until(store, id, (event) => event.type === "state" && event.state === "cancelled");
      while (scheduler.current !== undefined) await new Promise((resolve) => setTimeout(resolve, 10));
    });
  }));

Deno.test("a service that ends while the disk is full does not wait, and the next one goes on with the run", () =>
  withFolder(async (folder) => {
    const { store, disk } = withDisk(testStore(folder));
    let id = "";
    await withScheduler({ store }, async (scheduler) => {
      ({ id } = await store.create(newRun(store, folder, { pace: 10 }, 60)));
      await until(store, id, (event) => event.type === "checkpoint");
      disk.full = true;
      while (disk.refused < 2) await new Promise((resolve) => setTimeout(resolve, 20));
      await scheduler.close(2);
    });
    disk.full = false;
    await withScheduler(
      { store },
      () => until(store, id, (event) => event.type === "state" && event.state === "succeeded"),
    );
    assertEquals((await store.get(id))!.step, 60);
  }));

Deno.test("the time that a run may take counts on when the service was started again, and anew when someone asks", () =>
  withFolder(async (folder) => {
    const store = testStore(folder);
    const adopted = async (by?: StateEvent["by"]) => {
      const run = newRun(store, folder);
      const at = (second: number, attempt: number, body: RunEventBody) => ({
        ...{ time: new Date(Date.UTC(2026, 0, 1) + second * 1000).toISOString(), attempt },
        ...body,
      });
      const log = [
        at(0, 0, { type: "state", state: "queued" }),
        at(10, 1, { type: "state", state: "running" }),
        at(70, 1, { type: "warning", code: "w", message: "its last word" }),
        at(500, 1, { type: "state", state: "interrupted" }),
        at(500, 1, { type: "state", state: "queued", ...(by ? { by } : {}) }),
      ].map((event, i): RunEvent => ({ ...event, seq: i + 1 }));
      assertEquals(secondsWorked(log), by === "request" ? 0 : 60);
      return (await store.adopt(run, log)).id;
    };
    const ids = [await adopted(), await adopted("service-end"), await adopted("request")];
    await withScheduler({ store, wallSeconds: 60 }, async () => {
      for (const id of ids) {
        await until(
          store,
          id,
          (event) => event.type === "state" && ["failed", "succeeded"].includes(event.state),
        );
      }
    });
    const runs = await Promise.all(ids.map((id) => store.get(id)));
    assertEquals(runs.map((run) => run!.error?.code), ["wall_time", "wall_time", undefined]);
    assert(runs[0]!.error!.message.includes("longer than the 60 s"));
    assertEquals(runs.map((run) => run!.state), ["failed", "failed", "succeeded"]);
  }));
