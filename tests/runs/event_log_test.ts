// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import type { RunEventBody } from "../../src/distill/events.ts";
import { InputError } from "../../src/errors.ts";
import { EventLogError, readEvents, RunLog } from "../../src/runs/event_log.ts";
import { newRunId } from "../../src/runs/run_id.ts";
import { parseEvent, readLines } from "../../src/runs/protocol.ts";
import { resumeFake, startFake, withFolder } from "./fake_run.ts";

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

Deno.test("RunLog continues the numbers and cuts off a torn line when it is opened again", () =>
  withFolder(async (folder) => {
    const log = await RunLog.open(folder);
    log.append({ type: "state", state: "running" }, 1);
    log.append(row(1), 1);
    log.close();
    await Deno.writeTextFile(`${folder}/events.jsonl`, '{"seq":3,"type":"met', { append: true });
    await Deno.writeTextFile(`${folder}/metrics.jsonl`, "torn", { append: true });
    const again = await RunLog.open(folder);
    assertEquals([again.seq, again.attempt], [2, 1]);
    assertEquals(again.append(row(2), 2).seq, 3);
    again.close();
    assertEquals((await readEvents(folder)).map((event) => event.seq), [1, 2, 3]);
    assertEquals((await readEvents(folder, 2)).length, 1);
    assertEquals(await steps(folder), [1, 2]);
  }));

Deno.test("RunLog takes rows after a rewind out of metrics.jsonl, at once and when it is opened again", () =>
  withFolder(async (folder) => {
    const log = await RunLog.open(folder);
    const evaluation = { type: "evaluation", model: "student", loss: 1, losses: {}, tokens: 1 } as const;
    log.append({ ...evaluation, step: 0 }, 1);
    for (const step of [1, 2, 3]) log.append(row(step), 1);
    log.append({ ...evaluation, step: 3 }, 1);
    log.append({ type: "rewind", step: 1 }, 2);
    await log.applyRewind();
    assertEquals(await steps(folder), [0, 1]);
    log.append(row(2), 2);
    log.close();
    assertEquals(await steps(folder), [0, 1, 2]);
    (await RunLog.open(folder)).close();
    assertEquals(await steps(folder), [0, 1, 2]);
    const restarted = await RunLog.open(folder);
    restarted.append({ type: "rewind", step: -1 }, 3);
    await restarted.applyRewind();
    restarted.close();
    assertEquals(await steps(folder), []);
  }));

Deno.test("RunLog.open() refuses a log that was changed before its end", () =>
  withFolder(async (folder) => {
    const line = (seq: number) => JSON.stringify({ seq, time: "", attempt: 1, type: "heartbeat" }) + "\n";
    for (
      const [text, message] of [[line(1) + line(3), "has number 3"], [
        "{}}\n" + line(2),
        "line 1 is not JSON",
      ]]
    ) {
      await Deno.writeTextFile(`${folder}/events.jsonl`, text);
      await assertRejects(() => RunLog.open(folder), InputError, message);
    }
  }));

/** Mounts a file system of 256 KiB and calls `fn` with its path; only root may. */
async function withSmallDisk(fn: (disk: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const disk = `${folder}/runs`;
    const run = (command: string, ...args: string[]) =>
      new Deno.Command(command, { args, stderr: "null" }).output();
    const mounted = await run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk).catch(() => ({
      success: false,
    }));
    if (!mounted.success) return console.log("skip: a small disk cannot be mounted here");
    try {
      await fn(folder);
    } finally {
      await run("umount", disk);
    }
  });
}

Deno.test("RunLog.append() refuses an event and stays whole when the disk is full", () =>
  withSmallDisk(async (folder) => {
    const log = await RunLog.open(`${folder}/runs`);
    const text = "x".repeat(10_000);
    const fill = () => {
      for (;;) log.append({ type: "warning", code: "fill", message: text }, 1);
    };
    const error = assertThrows(fill, EventLogError, "disk full");
    assertEquals(error.code, "disk_full");
    const stored = log.seq;
    assertEquals((await readEvents(`${folder}/runs`)).length, stored);
    await Deno.remove(`${folder}/runs/metrics.jsonl`);
    log.close();
    assertEquals((await readEvents(`${folder}/runs`)).at(-1)?.seq, stored);
  }));

Deno.test("superviseRun() fails with a clear error when the disk is full, and the run can be resumed", () =>
  withSmallDisk(async (folder) => {
    const fake = await startFake(folder, { pace: 5 }, { steps: 150 });
    await fake.until((event) => event.type === "checkpoint");
    const ballast = await Deno.open(`${fake.run.folder}/ballast`, { write: true, create: true });
    while (await ballast.write(new Uint8Array(1024)).catch(() => 0) > 0);
    ballast.close();
    const { state, error } = await fake.supervised.outcome;
    assertEquals([state, error?.code], ["failed", "disk_full"]);
    assertStringIncludes(error!.hint!, "resume");
    await Deno.remove(`${fake.run.folder}/ballast`);
    const resumed = await resumeFake(fake.run.folder);
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
