// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { FlagReader } from "../../src/cli/command.ts";
import { main } from "../../src/cli/main.ts";
import { Output } from "../../src/cli/terminal/output.ts";
import { RunError } from "../../src/cli/terminal/run_error.ts";
import { handleSignals, watchRun } from "../../src/cli/terminal/watch_run.ts";
import { createRun, findRun } from "../../src/runs/store/run_folder.ts";
import { isLocked } from "../../src/runs/store/run_lock.ts";
import { summarise } from "../../src/runs/store/run_summary.ts";
import { fakeEntry, fakeRecipe, resumeFake, withFolder } from "../runs/fake_run.ts";
import type { Fault } from "../runs/fake_trainer.ts";
import { fakeTerminal } from "./fake_terminal.ts";
import { testStore } from "../runs/test_store.ts";

const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function start(folder: string, fault: Fault = {}) {
  return createRun({ recipe: fakeRecipe(folder, fault), store: testStore(folder) });
}

function invocation(json = false) {
  const terminal = fakeTerminal();
  return { terminal, args: [], flags: new FlagReader({}), out: new Output(terminal, json) };
}

const options = { resume: false, entry: fakeEntry };

Deno.test("watchRun() shows progress and a summary, writes a report and lets go of the run", () =>
  withFolder(async (folder) => {
    const run = await start(folder);
    const use = invocation();
    assertEquals(await watchRun(run, options, use), 0);
    for (const text of [run.manifest.id, "checkpoints/step-000010", "student after   0.250"]) {
      assertStringIncludes(use.terminal.out, text);
    }
    assertStringIncludes(await Deno.readTextFile(`${run.folder}/report.html`), "Held-out loss");
    assertEquals(isLocked(run.folder), false);

    const terminal = fakeTerminal();
    assertEquals(await main(["runs", "--data", folder, "--json"], terminal), 0);
    const [summary] = JSON.parse(terminal.out);
    assertEquals([summary.state, summary.step, summary.steps], ["succeeded", 12, 12]);
    const again = fakeTerminal();
    assertEquals(await main(["resume", run.folder, "--data", folder, "--no-setup"], again), 3);
    assertStringIncludes(again.err, "this run is done");
    assertEquals(await main(["runs", "rm", "last", "--data", folder], fakeTerminal()), 0);
    await assertRejects(() => Deno.stat(run.folder), Deno.errors.NotFound);
  }));

Deno.test("watchRun() throws the run's own error with its exit code, and still writes a report", () =>
  withFolder(async (folder) => {
    const run = await start(folder, { throwAt: 3 });
    const error = await assertRejects(
      () => watchRun(run, options, invocation()),
      RunError,
      "the GPU was lost",
    );
    assertEquals([error.exitCode, error.code, error.hint], [4, "device", "try again"]);
    assertStringIncludes(await Deno.readTextFile(`${run.folder}/report.html`), "the GPU was lost");
  }));

Deno.test("watchRun() prints events and the outcome as JSON lines for machines", () =>
  withFolder(async (folder) => {
    const use = invocation(true);
    await watchRun(await start(folder), options, use);
    const lines = use.terminal.out.trim().split("\n").map((line) => JSON.parse(line));
    // The first event, that it is queued, was stored when the run was made.
    assertEquals(lines.slice(0, -1).map((line) => line.seq), lines.slice(0, -1).map((_, i) => i + 2));
    const { type, state, exitCode, result } = lines.at(-1);
    assertEquals([type, state, exitCode, result.steps], ["outcome", "succeeded", 0, 12]);
  }));

/** Runs `watched_run.ts`, sends it a signal whenever `next` is printed, and waits for its end. */
async function interrupted(
  folder: string,
  fault: Fault,
  ...next: string[]
): Promise<{ code: number; printed: string }> {
  const script = new URL("./watched_run.ts", import.meta.url).pathname;
  const args = ["run", "-A", script, folder, JSON.stringify(fault)];
  const process = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
  let [printed, asked] = ["", 0];
  for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) {
    printed += text;
    if (next.length > 0 && printed.includes(next[0])) {
      // As a person would: what comes sooner is taken for the same press.
      if (asked++ > 0) await later(600);
      next.shift();
      process.kill("SIGINT");
    }
  }
  return { code: (await process.status).code, printed };
}

Deno.test("Ctrl-C saves and stops with 130, and the run can be resumed", () =>
  withFolder(async (folder) => {
    const { code, printed } = await interrupted(folder, { pace: 20 }, "step 1/");
    assertEquals(code, 130);
    assertStringIncludes(printed, "Saving a checkpoint and stopping");
    assertStringIncludes(printed, "`limbeck resume");
    const found = await findRun("last", testStore(folder));
    assertEquals(summarise(found).state, "paused");
    const resumed = await resumeFake({ folder: found.folder, store: testStore(folder) });
    await resumed.until((event) => event.type === "metrics");
    resumed.supervised.request("stop");
    assertEquals((await resumed.supervised.outcome).state, "paused");
  }));

Deno.test("a second Ctrl-C ends a run that does not listen", () =>
  withFolder(async (folder) => {
    const { code, printed } = await interrupted(
      folder,
      { pace: 20, deaf: true },
      "step 1/",
      "Saving a checkpoint",
    );
    assertEquals(code, 130);
    assertStringIncludes(printed, "continues from the last checkpoint, if there is one");
    assertEquals(summarise(await findRun("last", testStore(folder))).state, "interrupted");
  }));

Deno.test("one Ctrl-C counts once, however often it is passed on; a later one is a second", async () => {
  const said: string[] = [];
  const signals = { first: () => void said.push("first"), second: () => void said.push("second") };
  using _handled = handleSignals(signals);
  Deno.kill(Deno.pid, "SIGHUP");
  await later(50);
  Deno.kill(Deno.pid, "SIGHUP");
  await later(550);
  assertEquals(said, ["first"]);
  Deno.kill(Deno.pid, "SIGHUP");
  await later(50);
  assertEquals(said, ["first", "second"]);
});
