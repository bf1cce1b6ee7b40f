// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import type { RunEvent } from "../../src/distill/run/events.ts";
import { readEvents } from "../../src/runs/store/event_log.ts";
import { openRun } from "../../src/runs/store/run_folder.ts";
import { resumeFake, startFake, withFolder } from "./fake_run.ts";
import { testStore } from "./test_store.ts";

async function metrics(folder: string): Promise<Record<string, unknown>[]> {
  const lines = (await Deno.readTextFile(`${folder}/metrics.jsonl`)).trim().split("\n");
  return lines.map((line) => {
    const { time: _time, secondsPerStep: _seconds, tokensPerSecond: _rate, ...row } = JSON.parse(line);
    return row;
  });
}

/** What is stored is what was seen, numbered without gaps. */
async function assertGapless(folder: string, seen?: RunEvent[]): Promise<RunEvent[]> {
  const stored = await readEvents(folder);
  assertEquals(stored.map((event) => event.seq), stored.map((_, i) => i + 1));
  if (seen) assertEquals(stored, JSON.parse(JSON.stringify(seen)));
  return stored;
}

const states = (events: RunEvent[]) => events.flatMap((event) => event.type === "state" ? [event.state] : []);
const isStep = (step: number) => (event: RunEvent) => event.type === "metrics" && event.step === step;

Deno.test("superviseRun() stores every event and the result when the trainer succeeds", () =>
  withFolder(async (folder) => {
    const { run, events, supervised } = await startFake(folder, { noisy: true });
    const outcome = await supervised.outcome;
    assertEquals([outcome.state, outcome.exitCode, outcome.result?.steps], ["succeeded", 0, 12]);
    await assertGapless(run.folder, events);
    assertEquals(states(events), ["queued", "running", "succeeded"]);
    assertEquals((await metrics(run.folder)).length, 13);
    assertEquals(JSON.parse(await Deno.readTextFile(`${run.folder}/result.json`)).status, "succeeded");
    const console = await Deno.readTextFile(`${run.folder}/console.log`);
    for (const text of ["a library says hello", "not an event", "nonsense"]) {
      assertStringIncludes(console, text);
    }
    // A value that is not finite is stored as null.
    const second = events.find(isStep(2));
    assert(second?.type === "metrics" && second.losses["cross-entropy"] === null);
  }));

Deno.test("superviseRun() gives the training process no way out of its folder", () =>
  withFolder(async (folder) => {
    const { events, supervised } = await startFake(folder, { intrude: true }, { steps: 1 });
    assertEquals((await supervised.outcome).error?.message, undefined);
    assertEquals(events.filter((event) => event.type === "warning" && event.code === "intruded"), []);
  }));

for (const word of ["pause", "stop"] as const) {
  Deno.test(`request() saves at a control line, and ends the run at ${word} so that it can be resumed`, () =>
    withFolder(async (folder) => {
      const paused = await startFake(folder, { pace: 150 });
      await paused.until(isStep(2));
      paused.supervised.request("checkpoint");
      const saved = await paused.until((event) => event.type === "checkpoint");
      assert(saved.type === "checkpoint" && saved.step < 5);
      paused.supervised.request(word);
      const outcome = await paused.supervised.outcome;
      assertEquals([outcome.state, outcome.exitCode], ["paused", 130]);

      const resumed = await resumeFake(paused.run);
      assertEquals((await resumed.supervised.outcome).state, "succeeded");
      const stored = await assertGapless(paused.run.folder, [...paused.events, ...resumed.events]);
      assertEquals(stored.at(-1)?.attempt, 2);
      const plain = await startFake(folder);
      await plain.supervised.outcome;
      assertEquals(await metrics(paused.run.folder), await metrics(plain.run.folder));
    }));
}

Deno.test("superviseRun() continues from the last checkpoint when the process is killed with SIGKILL", () =>
  withFolder(async (folder) => {
    const fake = await startFake(folder, { pace: 20 });
    const pid = await fake.until((event) => event.type === "warning" && event.code === "pid");
    await fake.until(isStep(8));
    Deno.kill(Number(pid.type === "warning" && pid.message), "SIGKILL");
    const outcome = await fake.supervised.outcome;
    assertEquals([outcome.state, outcome.exitCode], ["succeeded", 0]);
    assertEquals(states(fake.events), ["queued", "running", "interrupted", "queued", "running", "succeeded"]);
    const stored = await assertGapless(fake.run.folder, fake.events);
    const rewind = stored.find((event) => event.type === "rewind");
    assertEquals([rewind?.attempt, rewind?.type === "rewind" && rewind.step], [2, 5]);
    const plain = await startFake(folder);
    await plain.supervised.outcome;
    assertEquals(await metrics(fake.run.folder), await metrics(plain.run.folder));
  }));

Deno.test("superviseRun() fails at once when the process dies before its first checkpoint", () =>
  withFolder(async (folder) => {
    const { events, supervised } = await startFake(folder, { exitAt: 3 });
    const outcome = await supervised.outcome;
    assertEquals([outcome.state, outcome.exitCode, outcome.error?.code], ["failed", 1, "died"]);
    assertMatch(outcome.error!.message, /exit code 7/);
    assertEquals(states(events), ["queued", "running", "failed"]);
  }));

Deno.test("superviseRun() gives up after three restarts", () =>
  withFolder(async (folder) => {
    const { events, supervised } = await startFake(folder, { alwaysExitAt: 7 });
    assertEquals((await supervised.outcome).state, "failed");
    assertEquals(states(events).filter((state) => state === "running").length, 4);
  }));

Deno.test("superviseRun() ends a process that hangs, and resumes it", () =>
  withFolder(async (folder) => {
    const { events, supervised } = await startFake(folder, { hangAt: 6 }, { watchdogSeconds: 1 });
    assertEquals((await supervised.outcome).state, "succeeded");
    const interrupted = events.find((event) => event.type === "state" && event.state === "interrupted");
    assertMatch((interrupted as { message: string }).message, /no sign of life for 1 s/);
  }));

Deno.test("superviseRun() lets a process live that only sends heartbeats", () =>
  withFolder(async (folder) => {
    const { events, supervised } = await startFake(folder, { beat: 1800 }, { watchdogSeconds: 1, steps: 1 });
    assertEquals((await supervised.outcome).state, "succeeded");
    assertEquals(states(events), ["queued", "running", "succeeded"]);
    assertEquals(events.some((event) => event.type === "heartbeat"), false);
  }));

Deno.test("superviseRun() reports an error with its code, hint and exit code and does not restart", () =>
  withFolder(async (folder) => {
    const known = await startFake(folder, { throwAt: 6 });
    const { error, exitCode, state } = await known.supervised.outcome;
    assertEquals([state, exitCode, error?.code, error?.message, error?.hint], [
      "failed",
      4,
      "device",
      "the GPU was lost",
      "try again",
    ]);
    assertEquals(states(known.events), ["queued", "running", "failed"]);
    const bug = await startFake(folder, { bugAt: 1 });
    assertEquals((await bug.supervised.outcome).error?.code, "internal");
    assertMatch(await Deno.readTextFile(`${bug.run.folder}/console.log`), /fake_trainer\.ts/);
  }));

Deno.test("kill() ends a process that does not listen, and the run can be resumed", () =>
  withFolder(async (folder) => {
    const fake = await startFake(folder, { deaf: true, pace: 20 }, { steps: 30 });
    await fake.until(isStep(6));
    fake.supervised.request("stop");
    await fake.until(isStep(8));
    fake.supervised.kill();
    const outcome = await fake.supervised.outcome;
    assertEquals([outcome.state, outcome.exitCode], ["interrupted", 130]);
    const resumed = await resumeFake(fake.run);
    assertEquals((await resumed.supervised.outcome).state, "succeeded");
    assertEquals((await metrics(fake.run.folder)).length, 31);
  }));

Deno.test("terminate() ends a process that does not listen with SIGTERM, and with SIGKILL where that does not", () =>
  withFolder(async (folder) => {
    for (const shrugs of [false, true]) {
      const fault = { deaf: true, pace: 20, shrugs };
      const fake = await startFake(folder, fault, { steps: 1000, graceSeconds: 0.5 });
      await fake.until(isStep(6));
      fake.supervised.terminate();
      const outcome = await fake.supervised.outcome;
      assertEquals([outcome.state, outcome.exitCode], ["interrupted", 130]);
      const console = await Deno.readTextFile(`${fake.run.folder}/console.log`);
      assertEquals(console.includes("a SIGTERM came"), shrugs, "SIGKILL comes later");
      const last = fake.events.findLast((event) => event.type === "metrics");
      assert(last?.type === "metrics");
      // It went on for the half second that it was given.
      assertEquals(last.step > 15, shrugs, String(last.step));
    }
  }));

Deno.test("a training process saves and ends when the process that started it is gone", () =>
  withFolder(async (folder) => {
    // The parent is a process of its own, so that it can be killed.
    const parent = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", new URL("./abandoned_parent.ts", import.meta.url).pathname, "run", folder],
      stdout: "piped",
    }).spawn();
    const reader = parent.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const { value } = await reader.read();
    parent.kill("SIGKILL");
    await parent.status;
    await reader.cancel();
    const run = value!.trim();
    const store = testStore(folder);
    // Waits for the orphan, then continues where it saved.
    const resumed = await resumeFake({ folder: run, store });
    assertEquals((await resumed.supervised.outcome).state, "succeeded");
    const stored = await assertGapless(run);
    const rewind = stored.find((event) => event.type === "rewind");
    // Not step 5: it saved when it was abandoned, and its last events were not lost.
    assertGreater(rewind?.type === "rewind" ? rewind.step : 0, 6);
    assertEquals((await metrics(run)).length, 31);
  }));

Deno.test("superviseRun() imports plugins into the training process and refuses a changed one", () =>
  withFolder(async (folder) => {
    const plugin = `${folder}/my_loss.ts`;
    await Deno.writeTextFile(
      plugin,
      'import { z } from "zod";\nexport const name = `mine ${typeof z.string}`;\n',
    );
    const { run, events, supervised } = await startFake(folder, {}, { plugins: [plugin], steps: 1 });
    assertEquals((await supervised.outcome).state, "succeeded");
    const told = events.find((event) => event.type === "warning" && event.code === "plugin");
    assertEquals(told?.type === "warning" && told.message, "mine function");
    await Deno.writeTextFile(plugin, "export const name = 2;\n");
    await assertRejects(() => openRun(run.folder, run.store), InputError, "not what it was");

    await Deno.writeTextFile(plugin, "export const = ;\n");
    const broken = await startFake(folder, {}, { plugins: [plugin] });
    assertStringIncludes((await broken.supervised.outcome).error!.message, "my_loss.ts");
    assertEquals(states(broken.events), ["queued", "failed"]);
  }));

Deno.test("superviseRun() names a model or dataset that is gone when the run is resumed", () =>
  withFolder(async (folder) => {
    const fake = await startFake(folder, { throwAt: 6 });
    await fake.supervised.outcome;
    await Deno.remove(`${folder}/data/train.jsonl`);
    const error = await assertRejects(() => resumeFake(fake.run), InputError, "data.train");
    assertStringIncludes(error.message, "train.jsonl");
    await assertGapless(fake.run.folder);
  }));
