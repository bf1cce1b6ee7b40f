/** What the service promises when things go wrong. Longer versions of these are in `bench/service.ts`. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import type { RunEvent } from "../../src/distill/run/events.ts";
import { openStore } from "../../src/runs/store/data_folder.ts";
import { isEnd } from "../../src/runs/store/run_states.ts";
import { withFolder } from "../runs/fake_run.ts";
import { fakeNamed, prepare, submit, until, untilIdle, withListening, withService } from "./harness.ts";
import { processesWith } from "../processes.ts";
import { seededRandom } from "../random.ts";
import { freePort, post, readAll, startService } from "./service_process.ts";

/** Each run has come to one end, its numbers have no gap, and its metrics are those of an uninterrupted run. */
async function assertWhole(
  folder: string,
  ids: readonly string[],
  steps: number,
): Promise<Map<string, RunEvent[]>> {
  using store = openStore(`${folder}/service`);
  const logs = new Map<string, RunEvent[]>();
  for (const id of ids) {
    const events = await store.events(id);
    logs.set(id, events);
    assertEquals(events.map(({ seq }) => seq), events.map((_, i) => i + 1), id);
    const ends = events.filter((event) => event.type === "state" && isEnd(event.state));
    assertEquals(ends.length, 1, `${id} has one end`);
    assertEquals((await store.get(id))!.state, "succeeded");
    const held = (await store.events(id, { types: ["metrics"], holding: true }))
      .map((event) => event.type === "metrics" && event.step);
    assertEquals(held, Array.from({ length: steps }, (_, i) => i + 1), id);
  }
  return logs;
}

Deno.test("kill -9 of the service and of its children: no acknowledged run is lost, no event is lost or doubled", () =>
  withFolder(async (folder) => {
    await prepare(folder);
    const port = freePort();
    let service = await startService(folder, port);
    const { url } = service;
    const ids: string[] = [];
    for (let i = 0; i < 4; i++) {
      const told = await post(url, "/v1/runs", { recipe: fakeNamed({ pace: 10 }, 60) }, `key-${i}`);
      ids.push(String(told.id));
    }
    const readers = ids.map((id) => readAll(url, id));
    const random = seededRandom("kills");
    // On a slow machine all of them meet one run, which may be restarted three times.
    for (let kill = 0; kill < 3; kill++) {
      await new Promise((resolve) => setTimeout(resolve, 150 + random() * 500));
      if (kill % 2 === 0) {
        await service.kill("SIGKILL");
        service = await startService(folder, port);
      } else {
        // Whichever run is worked on.
        for (const id of await processesWith(`${folder}/service/runs/`)) Deno.kill(id, "SIGKILL");
      }
    }
    const again = await post(url, "/v1/runs", { recipe: fakeNamed({ pace: 10 }, 60) }, "key-0");
    assertEquals(again.id, ids[0], "a request that is sent again makes no second run");
    const seen = await Promise.all(readers);
    await service.kill("SIGTERM");
    const logs = await assertWhole(folder, ids, 60);
    ids.forEach((id, i) => assertEquals(seen[i], logs.get(id), "a reader saw the log"));
  }));

Deno.test("SIGTERM during a run: streams end, a checkpoint is saved, and the next service goes on", () =>
  withFolder(async (folder) => {
    await prepare(folder);
    const port = freePort();
    const first = await startService(folder, port);
    const { id } = await post(first.url, "/v1/runs", { recipe: fakeNamed({ pace: 10 }, 80) }, "k");
    const reader = readAll(first.url, String(id));
    await new Promise((resolve) => setTimeout(resolve, 700));
    const begun = performance.now();
    await first.kill("SIGTERM");
    assertLess(performance.now() - begun, 5000, "an open stream does not keep it");
    const second = await startService(folder, port);
    const seen = await reader;
    await second.kill("SIGTERM");
    const logs = await assertWhole(folder, [String(id)], 80);
    assertEquals(seen, logs.get(String(id)));
    const rewind = seen.find((event) => event.type === "rewind");
    assert(rewind?.type === "rewind" && rewind.step > 5, "from the checkpoint that was saved when it ended");
  }));

Deno.test("readers that drop the line, are slow, vanish or come late all see the log; the run does not wait", () =>
  withListening(async ({ url, service }) => {
    const call = async (recipe: unknown) => {
      const told = await post(url, "/v1/runs", { recipe }, crypto.randomUUID());
      return String(told.id);
    };
    const id = await call(fakeNamed({ pace: 4 }, 150));
    const good = Array.from({ length: 40 }, () => readAll(url, id));
    const random = seededRandom("dropped lines");
    const dropping = Array.from(
      { length: 8 },
      () => readAll(url, id, { dropAfter: () => 1 + random() * 20 }),
    );
    const slow = Array.from({ length: 4 }, () => readAll(url, id, { delay: 25 }));
    const stalled = await Promise.all(
      Array.from(
        { length: 6 },
        () => fetch(`${url}/v1/runs/${id}/events`, { headers: { Accept: "text/event-stream" } }),
      ),
    );
    await until(service, id, "succeeded");
    const run = (await service.store.get(id))!;
    const seconds = (Date.parse(run.finishedAt!) - Date.parse(run.startedAt!)) / 1000;
    assertLess(seconds, 12, "150 steps of 4 ms, whoever reads");
    const stored = JSON.parse(JSON.stringify(await service.store.events(id)));
    for (const seen of await Promise.all([...good, ...dropping, readAll(url, id)])) {
      assertEquals(seen, stored);
    }
    for (const seen of await Promise.all(slow)) assertEquals(seen, stored);
    for (const response of stalled) await response.body!.cancel();
    while (service.streams.count > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  }));

Deno.test("a kernel that never ends is ended by the watchdog, and its run goes on", () =>
  withService(async (test) => {
    const id = await submit(test, fakeNamed({ hangAt: 7 }));
    await until(test.service, id, "succeeded");
    const events = await test.service.store.events(id);
    const interrupted = events.find((event) => event.type === "state" && event.state === "interrupted");
    assert(interrupted?.type === "state" && interrupted.message!.includes("no sign of life"));
  }, { watchdogSeconds: 1 }));

Deno.test("a run whose process dies again and again fails after three restarts, and the next one is worked on", () =>
  withService(async (test) => {
    const id = await submit(test, fakeNamed({ alwaysExitAt: 7 }));
    const next = await submit(test);
    await until(test.service, next, "succeeded");
    const { state, error, restarts } = (await test.service.store.get(id))!;
    assertEquals([state, error?.code, restarts], ["failed", "died", 3]);
  }));

Deno.test("hundreds of runs are taken in at once, each acknowledged one is kept, and the oldest is worked on first", () =>
  withService(async (test) => {
    const blocking = await submit(test, fakeNamed({ pace: 20 }, 1000));
    await until(test.service, blocking, "running");
    const ids = await Promise.all(Array.from({ length: 300 }, () => submit(test, fakeNamed({}, 1))));
    assertEquals(new Set(ids).size, 300);
    assertEquals(await test.service.store.countQueued(), 300);
    const queued = (await test.service.store.queued(300)).map(({ id }) => id);
    assertEquals(queued.toSorted(), ids.toSorted());
    for (const id of ids.slice(3)) await test.call("POST", `/v1/runs/${id}/cancel`);
    await test.call("POST", `/v1/runs/${blocking}/cancel`);
    await untilIdle(test.service);
    const done = await Promise.all(ids.slice(0, 3).map((id) => test.service.store.get(id)));
    assertEquals(done.map((run) => run!.state), ["succeeded", "succeeded", "succeeded"]);
    const began = done.toSorted((a, b) => a!.startedAt! < b!.startedAt! ? -1 : 1).map((run) =>
      run!.manifest.createdAt
    );
    assertEquals(began, began.toSorted());
  }));

Deno.test("runs that draw one id are taken in all the same, each with its own", () =>
  withService(async (test) => {
    const { getRandomValues } = crypto;
    // The second draw is the first one's; ids are alike within a second.
    let draws = 0;
    Object.defineProperty(crypto, "getRandomValues", {
      configurable: true,
      value: (bytes: Uint8Array) =>
        bytes.length === 4 && ++draws <= 2 ? bytes.fill(7) : getRandomValues.call(crypto, bytes),
    });
    try {
      await new Promise((resolve) => setTimeout(resolve, 1000 - Date.now() % 1000));
      const ids = [await submit(test, fakeNamed({}, 1)), await submit(test, fakeNamed({}, 1))];
      assertEquals([new Set(ids).size, draws], [2, 3]);
    } finally {
      delete (crypto as { getRandomValues?: unknown }).getRandomValues;
    }
    await untilIdle(test.service);
  }));

Deno.test("a full disk refuses runs and uploads clearly, and the service goes on once there is room", () =>
  withFolder(async (folder) => {
    const disk = `${folder}/service`;
    await Deno.mkdir(disk);
    const run = (command: string, ...args: string[]) =>
      new Deno.Command(command, { args, stderr: "null" }).output();
    const mounted = await run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk).catch(() => ({
      success: false,
    }));
    if (!mounted.success) return console.log("skip: a small disk cannot be mounted here");
    try {
      await withService(async (test) => {
        const before = await submit(test);
        await untilIdle(test.service);
        using ballast = await Deno.open(`${disk}/ballast`, { write: true, create: true });
        while (await ballast.write(new Uint8Array(4096)).catch(() => 0) > 0);
        while (await ballast.write(new Uint8Array(1)).catch(() => 0) > 0);
        let refused = 0;
        for (let i = 0; i < 40; i++) {
          const answer = await test.call("POST", "/v1/runs", { recipe: fakeNamed() });
          if (answer.status === 202) continue;
          assertEquals([answer.status, answer.body.error.code], [507, "disk_full"]);
          refused++;
        }
        assertGreater(refused, 0);
        const form = new FormData();
        form.set("purpose", "fine-tune");
        form.set("file", new File(['{"text":"x"}\n'.repeat(20_000)], "rows.jsonl"));
        const upload = await test.request("/v1/files", { method: "POST", body: form });
        assertEquals([upload.status, (await upload.json()).error.code], [507, "disk_full"]);
        assertEquals(
          (await test.call("GET", `/v1/runs/${before}`)).body.state,
          "succeeded",
          "reading still works",
        );
        assertEquals((await test.call("GET", "/readyz")).status, 503);
        await ballast.truncate(0);
        await untilIdle(test.service);
        const after = await submit(test);
        await until(test.service, after, "succeeded");
      }, { dataFolder: disk });
    } finally {
      await run("umount", disk);
    }
  }));
