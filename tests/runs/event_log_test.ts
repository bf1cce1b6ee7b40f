// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertGreater, assertRejects, assertStringIncludes } from "@std/assert";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { InputError } from "../../src/base/errors.ts";
import { readEvents, RunLog } from "../../src/runs/store/event_log.ts";
import { newRunId } from "../../src/runs/store/run_id.ts";
import { parseEvent } from "../../src/runs/child/training.ts";
import { readLines } from "../../src/runs/child/lines.ts";
import { adoptRun, createRun, type LockedRun } from "../../src/runs/store/run_folder.ts";
import { StoreError } from "../../src/runs/store/store_errors.ts";
import { fakeRecipe, resumeFake, startFake, withFolder } from "./fake_run.ts";
import { withSmallDisk } from "./small_disk.ts";
import { closeTestStore, testStore } from "./test_store.ts";

const row = (step: number): RunEventBody => ({
  type: "metrics",
  step,
  loss: 1 / step,
  losses: {},
  learningRate: 1,
  gradientNorm: 1,
  supervisedTokens: 1,
  tokensPerSecond: 1,
  secondsPerStep: 1,
});

const steps = async (folder: string) =>
  (await Deno.readTextFile(`${folder}/metrics.jsonl`)).split("\n").filter(Boolean).map((line) =>
    JSON.parse(line).step
  );

/** A run that nobody works on. */
async function queuedRun(folder: string): Promise<LockedRun> {
  const run = await createRun({ store: testStore(folder), recipe: fakeRecipe(folder) });
  run.release();
  return run;
}

Deno.test("RunLog continues the numbers, and mends the copies when it is opened again", () =>
  withFolder(async (folder) => {
    const run = await queuedRun(folder);
    const log = await RunLog.open(run.store, run);
    await log.append([{ type: "state", state: "running" }], 1);
    await log.append([row(1)], 1);
    log.close();
    await Deno.writeTextFile(`${run.folder}/events.jsonl`, '{"seq":4,"type":"met', { append: true });
    await Deno.writeTextFile(`${run.folder}/metrics.jsonl`, "torn", { append: true });
    const again = await RunLog.open(run.store, run);
    assertEquals([again.seq, again.attempt], [3, 1]);
    // Somebody else says something of it meanwhile.
    await run.store.append(run.id, 1, [{ type: "warning", code: "other", message: "" }]);
    assertEquals((await again.append([row(2), row(3)], 2)).map(({ seq }) => seq), [5, 6]);
    again.close();
    assertEquals(await readEvents(run.folder), await run.store.events(run.id));
    assertEquals((await readEvents(run.folder)).map((event) => event.seq), [1, 2, 3, 4, 5, 6]);
    assertEquals(await steps(run.folder), [1, 2, 3]);
  }));

Deno.test("RunLog takes rows after a rewind out of metrics.jsonl and the store, at once and when it is opened again", () =>
  withFolder(async (folder) => {
    const run = await queuedRun(folder);
    const log = await RunLog.open(run.store, run);
    const holding = async () =>
      (await run.store.events(run.id, { types: ["metrics", "evaluation"], holding: true })).map((event) =>
        "step" in event && event.step
      );
    const evaluation = { type: "evaluation", model: "student", loss: 1, losses: {}, tokens: 1 } as const;
    await log.append([{ ...evaluation, step: 0 }, row(1), row(2), row(3), { ...evaluation, step: 3 }], 1);
    await log.append([{ type: "rewind", step: 1 }], 2);
    assertEquals(await steps(run.folder), [0, 1]);
    await log.append([row(2)], 2);
    log.close();
    assertEquals(await steps(run.folder), [0, 1, 2]);
    const restarted = await RunLog.open(run.store, run);
    assertEquals([await steps(run.folder), await holding()], [[0, 1, 2], [0, 1, 2]]);
    await restarted.append([{ type: "rewind", step: -1 }], 3);
    restarted.close();
    assertEquals([await steps(run.folder), await holding()], [[], []]);
  }));

Deno.test("adoptRun() refuses a log that was changed before its end, and takes in one that is whole", () =>
  withFolder(async (folder) => {
    const run = await queuedRun(folder);
    const events = await run.store.events(run.id);
    await run.store.remove(run.id);
    const line = (seq: number) => JSON.stringify({ ...events[0], seq }) + "\n";
    for (
      const [text, message] of [[line(1) + line(3), "has number 3"], [
        "{}}\n" + line(2),
        "line 1 is not JSON",
      ]]
    ) {
      await Deno.writeTextFile(`${run.folder}/events.jsonl`, text!);
      await assertRejects(() => adoptRun(run.folder, run.store), InputError, message);
    }
    await Deno.writeTextFile(`${run.folder}/events.jsonl`, line(1) + '{"seq":2,"torn');
    assertEquals((await adoptRun(run.folder, run.store)).state, "queued");
    assertEquals(await run.store.events(run.id), events);
  }));

Deno.test("append() refuses an event and the store stays whole when its disk is full", () =>
  withSmallDisk(async (folder) => {
    const run = await queuedRun(folder);
    const store = testStore(`${folder}/runs`);
    await store.create({ ...run, worker: "command" });
    const warning = (text: string): RunEventBody => ({ type: "warning", code: "fill", message: text });
    const fill = async () => {
      for (;;) await store.append(run.id, 1, [warning("x".repeat(10_000))]);
    };
    const error = await assertRejects(fill, StoreError, "disk full");
    assertEquals(error.code, "disk_full");
    const stored = await store.events(run.id);
    assertEquals(stored.map(({ seq }) => seq), stored.map((_, i) => i + 1));
    assertEquals((await store.get(run.id))?.seq, stored.length);
    assertGreater(stored.length, 10);
    closeTestStore(`${folder}/runs`);
    assertEquals(await testStore(`${folder}/runs`).events(run.id), stored);
    closeTestStore(`${folder}/runs`);
  }));

Deno.test("superviseRun() fails with a clear error when the disk is full, and the run can be resumed", () =>
  withSmallDisk(async (folder) => {
    const fake = await startFake(folder, { pace: 15 }, { steps: 150 });
    await fake.until((event) => event.type === "checkpoint");
    const ballast = await Deno.open(`${fake.run.folder}/ballast`, { write: true, create: true });
    while (await ballast.write(new Uint8Array(1024)).catch(() => 0) > 0);
    ballast.close();
    const { state, error } = await fake.supervised.outcome;
    assertEquals([state, error?.code], ["failed", "disk_full"]);
    assertStringIncludes(error!.hint!, "resume");
    await Deno.remove(`${fake.run.folder}/ballast`);
    const resumed = await resumeFake(fake.run);
    assertEquals((await resumed.supervised.outcome).state, "succeeded");
    const stored = await readEvents(fake.run.folder);
    assertEquals(stored.map((event) => event.seq), stored.map((_, i) => i + 1));
    assertEquals(await steps(fake.run.folder), [...Array(151).keys()]);
  }));

Deno.test("newRunId() sorts by time", () => {
  const ids = [1, 2, 3].map((day) => newRunId(new Date(Date.UTC(2026, 6, day, 3, 4, 5))));
  assertEquals([...ids].sort(), ids);
  assertEquals(ids[0].slice(0, 16), "20260701-030405-");
});

Deno.test("parseEvent() takes well-formed events only", () => {
  assertEquals(parseEvent('{"type":"rewind","step":3}'), { type: "rewind", step: 3 });
  assertEquals(parseEvent(JSON.stringify(row(1)))?.type, "metrics");
  assertEquals(parseEvent(JSON.stringify({ ...row(1), loss: NaN }))?.type, "metrics");
  for (
    const line of [
      "",
      "1",
      "null",
      "hello",
      '{"type":"rewind"}',
      '{"type":"rewind","step":"3"}',
      '{"type":"toString"}',
    ]
  ) {
    assertEquals(parseEvent(line), undefined);
  }
});

Deno.test("readLines() joins chunks, keeps characters whole and drops lines without bound", async () => {
  const bytes = new TextEncoder().encode("a\u00e9b\nc\n" + "x".repeat(9 << 20) + "\nend");
  const chunks = [bytes.subarray(0, 2), bytes.subarray(2, 5), bytes.subarray(5)];
  const lines: string[] = [];
  for await (const line of readLines(ReadableStream.from(chunks))) lines.push(line);
  assertEquals(lines.map((line) => line.slice(0, 5)), ["a\u00e9b", "c", "xxxxx", "end"]);
});
