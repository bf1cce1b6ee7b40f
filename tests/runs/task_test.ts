/** Runs that merge, add a residual or cut a model, in processes of their own. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertRejects, assertStringIncludes } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import type { RunEvent } from "../../src/distill/run/events.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import { createRun, type LockedRun, openRun, readRun } from "../../src/runs/store/run_folder.ts";
import { acquireLock } from "../../src/runs/store/run_lock.ts";
import { DEFAULT_GPU } from "../../src/runs/store/store.ts";
import { type SuperviseOptions, superviseRun } from "../../src/runs/supervise/supervisor.ts";
import { firstInLine } from "../../src/runs/supervise/turn.ts";
import { parseTask, type Task } from "../../src/runs/task/task.ts";
import { mapTaskPaths, taskPaths } from "../../src/runs/task/task_paths.ts";
import { valuesOf, withModels } from "../merge/tiny_merge.ts";
import { childrenOf } from "../processes.ts";
import { withSmallDisk } from "./small_disk.ts";
import { closeTestStore, testStore } from "./test_store.ts";

const models = { a: {}, b: { seed: 2 }, base: { seed: 3 } };

function problemsOf(value: unknown): { path: string; message: string }[] {
  try {
    parseTask(value);
  } catch (error) {
    if (error instanceof RecipeError) return [...error.problems];
  }
  throw new Error("it was not refused");
}

/** Works on a task to its end, with a store in `folder`. */
async function work(
  folder: string,
  task: Task | LockedRun,
  onEvent: (event: RunEvent, run: ReturnType<typeof superviseRun>) => void = () => {},
  options: Partial<SuperviseOptions> = {},
) {
  const resume = "recipe" in task && "release" in task;
  const run = resume
    ? task as LockedRun
    : await createRun({ store: testStore(folder), recipe: task as Task });
  const events: RunEvent[] = [];
  const supervised = superviseRun({
    ...options,
    run,
    resume,
    onEvent(event) {
      events.push(event);
      onEvent(event, supervised);
    },
  });
  const outcome = await supervised.outcome;
  run.release();
  return { run, events, outcome };
}

function inFolder(fn: (folder: string) => Promise<void>): Promise<void> {
  return withModels(models, async (folder) => {
    try {
      await fn(folder);
    } finally {
      closeTestStore(folder);
    }
  });
}

Deno.test("parseTask() says what is wrong with a task, field by field", () => {
  assertStringIncludes(problemsOf({ task: "merg" })[0]!.message, 'did you mean "merge"');
  assertEquals(problemsOf({ task: "shrink", model: "m", data: "d" }).map(({ path }) => path), ["layers"]);
  assertEquals(
    problemsOf({ task: "residual", base: "a", instruct: "b", newBase: "c", rank: 4, dtype: "f16" })[0]!.path,
    "dtype",
  );
  assertEquals(problemsOf({ task: "residual", base: "a", instruct: "b" })[0]!.path, "newBase");
  assertEquals(problemsOf({ task: "merge", method: "linear" })[0]!.path, "models");
  assertEquals(
    problemsOf({ task: "merge", method: "x", models: [{ model: "m" }], output: "o" })[0]!.path,
    "output",
  );
  assertEquals(problemsOf({ task: "shrink", model: "m", data: [], layers: 1 })[0]!.path, "data");
});

Deno.test("taskPaths() knows every field of a task that holds a path, and no word that is none", () => {
  const fields = (task: unknown) => taskPaths(task).map(({ field, of }) => `${field} ${of}`);
  assertEquals(
    fields({
      task: "merge",
      method: "ties",
      base: "x",
      models: [{ model: "a" }, { model: "b" }],
      tokenizer: "union",
    }),
    ["base model", "models.0.model model", "models.1.model model"],
  );
  const mergekit = {
    task: "merge",
    merge_method: "passthrough",
    base_model: "x",
    slices: [{ sources: [{ model: "a", layer_range: [0, 1] }, { model: "b", layer_range: [0, 1] }] }],
    tokenizer_source: "y",
  };
  assertEquals(fields(mergekit).map((field) => field.split(" ")[0]), [
    "base_model",
    "slices.0.sources.0.model",
    "slices.0.sources.1.model",
    "tokenizer_source",
  ]);
  assertEquals(fields({ task: "shrink", model: "m", data: ["c", "d"] }), [
    "model model",
    "data.0 dataset",
    "data.1 dataset",
  ]);
  const moved = mapTaskPaths(mergekit, ({ path }) => `/srv/${path}`);
  assertEquals(moved.slices[0]!.sources[1]!.model, "/srv/b");
  assertEquals(mergekit.slices[0]!.sources[1]!.model, "b");
});

Deno.test("a cache is made for a whole recipe, whose problems and paths are told by their place in the task", () => {
  const recipe = {
    teacher: { model: "a", cache: { topK: 4, folder: "c" } },
    student: { model: "teacher", layers: [0] },
    data: { train: "t", heldOut: "h" },
  };
  const task = parseTask({ task: "cache", recipe });
  assertEquals(task.task === "cache" && task.recipe.teacher.cache!.precision, "f16");
  const paths = (problems: { path: string }[]) => problems.map(({ path }) => path);
  assertEquals(paths(problemsOf({ task: "cache" })), ["recipe"]);
  assertEquals(paths(problemsOf({ task: "cache", recipe, layers: 2 })), ["layers"]);
  const wrong = { ...recipe, teacher: { model: "a", cache: { topK: 0 } }, train: { seed: -1 } };
  assertEquals(paths(problemsOf({ task: "cache", recipe: wrong })), [
    ...["recipe.teacher.cache.topK", "recipe.train.seed"],
  ]);
  assertEquals(paths(problemsOf({ task: "cache", recipe: { ...recipe, teacher: { model: "a" } } })), [
    "recipe.teacher.cache",
  ]);
  assertEquals(taskPaths(task).map(({ field, of }) => `${field} ${of}`), [
    ...["recipe.teacher.model model", "recipe.data.train dataset", "recipe.data.heldOut dataset"],
    "recipe.teacher.cache.folder folder",
  ]);
  const moved = mapTaskPaths(task, ({ path }) => `/srv/${path}`);
  assertEquals(moved.task === "cache" && moved.recipe.student.model, "teacher");
  assertEquals(moved.task === "cache" && moved.recipe.data.train, "/srv/t");
});

Deno.test("a merge is a run: it says how far it is, and leaves a model", () =>
  inFolder(async (folder) => {
    const task = parseTask({
      task: "merge",
      method: "linear",
      models: [{ model: `${folder}/a`, weight: 3 }, { model: `${folder}/b`, weight: 1 }],
    });
    const { run, events, outcome } = await work(folder, task);
    assertEquals([outcome.state, outcome.error], ["succeeded", undefined]);
    assertEquals(outcome.result!.paths, { merged: "merged" });
    const stored = (await run.store.get(run.id))!;
    assertEquals([stored.step, stored.state], [100, "succeeded"]);
    const steps = events.flatMap((event) => event.type === "progress" ? [event.step] : []);
    assertEquals([...new Set(steps)].sort((a, b) => a - b), steps);
    assertEquals(steps.at(-1), 100);
    const [a, b, merged] = await Promise.all(
      ["a", "b"].map((name) => valuesOf(`${folder}/${name}`)).concat(valuesOf(`${run.folder}/merged`)),
    );
    for (const [name, values] of merged!) {
      const expected = Math.fround((3 * a!.get(name)![0]! + b!.get(name)![0]!) / 4);
      assert(Math.abs(values[0]! - expected) <= 1e-6 * Math.abs(expected), name);
    }
    assertEquals((await readRun(run.folder)).recipe, task);
  }));

Deno.test("a residual is a run: of a rank it leaves an adapter", () =>
  inFolder(async (folder) => {
    const task = parseTask({
      task: "residual",
      ...{ base: `${folder}/a`, instruct: `${folder}/b`, newBase: `${folder}/base` },
    });
    const whole = await work(folder, task);
    assertEquals(whole.outcome.result?.paths, { merged: "merged" });
    const adapter = await work(folder, { ...task, rank: 2 } as Task);
    assertEquals(adapter.outcome.result?.paths, { adapter: "adapter" });
    assertGreater(adapter.outcome.result!.findings!.total as number, 0);
    await Deno.stat(`${adapter.run.folder}/adapter/adapter_model.safetensors`);
  }));

Deno.test("models that do not fit each other end a merge as bad input, with nothing half-written", () =>
  withModels({ a: {}, wide: { hiddenSize: 32 } }, async (folder) => {
    const task = parseTask({
      task: "merge",
      method: "linear",
      models: [{ model: `${folder}/a` }, { model: `${folder}/wide` }],
    });
    const { run, outcome } = await work(folder, task);
    assertEquals([outcome.state, outcome.exitCode], ["failed", 3]);
    assertStringIncludes(outcome.error!.message, "wide");
    const left = [...Deno.readDirSync(run.folder)].map(({ name }) => name);
    assertEquals(left.filter((name) => name.includes("merged")), []);
    closeTestStore(folder);
  }));

Deno.test("a model that is not there is told before a run is made", () =>
  inFolder(async (folder) => {
    const task = parseTask({ task: "merge", method: "linear", models: [{ model: `${folder}/none` }] });
    await assertRejects(
      () => createRun({ store: testStore(folder), recipe: task }),
      InputError,
      "models.0.model",
    );
    assertEquals(await testStore(folder).ids(), []);
  }));

Deno.test("a task that is stopped leaves nothing, and does all of it when it is resumed", () =>
  withModels(
    { a: { layers: 40, hiddenSize: 64 }, b: { seed: 2, layers: 40, hiddenSize: 64 } },
    async (folder) => {
      const task = parseTask({
        task: "merge",
        method: "linear",
        models: [{ model: `${folder}/a`, weight: 1 }, { model: `${folder}/b`, weight: 1 }],
      });
      const stopped = await work(folder, task, (event, run) => {
        if (event.type === "stage") run.request("pause");
      });
      assertEquals([stopped.outcome.state, stopped.outcome.exitCode], ["paused", 130]);
      const left = [...Deno.readDirSync(stopped.run.folder)].map(({ name }) => name);
      assertEquals(left.filter((name) => name.includes("merged")), []);
      const again = await work(folder, await openRun(stopped.run.folder, testStore(folder)));
      assertEquals(again.outcome.state, "succeeded");
      assertEquals((await valuesOf(`${again.run.folder}/merged`)).size > 0, true);
      closeTestStore(folder);
    },
  ));

Deno.test("a task whose process is killed in the middle begins again, and leaves all of it", () =>
  withModels({ a: { layers: 40, hiddenSize: 64 } }, async (folder) => {
    const task = parseTask({
      task: "merge",
      method: "linear",
      models: [{ model: `${folder}/a`, weight: 1 }, { model: `${folder}/a`, weight: 3 }],
    });
    let killed = 0;
    const before = new Set(childrenOf(Deno.pid).keys());
    const { run, events, outcome } = await work(folder, task, (event) => {
      if (event.type !== "progress" || killed > 0) return;
      for (const pid of childrenOf(Deno.pid).keys()) {
        if (before.has(pid)) continue;
        killed++;
        Deno.kill(pid, "SIGKILL");
      }
    }, { unattended: true });
    assertEquals([killed, outcome.state], [1, "succeeded"]);
    const told = events.flatMap((event) => event.type === "state" ? [event.state] : []);
    assertEquals(told, ["running", "interrupted", "queued", "running", "succeeded"]);
    assertEquals(await valuesOf(`${run.folder}/merged`), await valuesOf(`${folder}/a`));
    assertEquals([...Deno.readDirSync(run.folder)].filter(({ name }) => name.endsWith(".tmp")), []);
    closeTestStore(folder);
  }));

Deno.test("a merge that the disk has no room for is refused before a byte is written", () =>
  withSmallDisk((folder) =>
    withModels({ a: { layers: 8, hiddenSize: 64 } }, async (models) => {
      const task = parseTask({ task: "merge", method: "linear", models: [{ model: `${models}/a` }] });
      const { run, outcome } = await work(`${folder}/runs`, task);
      assertEquals([outcome.state, outcome.error?.code], ["failed", "disk_full"]);
      const left = [...Deno.readDirSync(run.folder)].map(({ name }) => name);
      assertEquals(left.filter((name) => name.includes("merged")), []);
      closeTestStore(`${folder}/runs`);
    })
  ));

Deno.test("merges do not wait for the GPU, nor does whoever wants it wait for them", () =>
  inFolder(async (folder) => {
    const store = testStore(folder);
    const lock = `${folder}/other.lock`;
    const release = await acquireLock(lock);
    const holds = { holder: "another", lock };
    assertEquals(await store.lease(DEFAULT_GPU, holds, () => true), undefined);
    const task = parseTask({ task: "merge", method: "linear", models: [{ model: `${folder}/a` }] });
    const waiting = await createRun({ store, recipe: task });
    assertEquals(await firstInLine(store), undefined);
    waiting.release();
    assertEquals((await work(folder, task)).outcome.state, "succeeded");
    assertEquals((await store.lease(DEFAULT_GPU, { holder: "b", lock: "b" }, () => true))?.holder, "another");
    release();
  }));
