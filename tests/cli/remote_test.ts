/** The same verbs on this machine and through a service. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { distillationOf } from "../../src/runs/task/run_recipe.ts";
import { main } from "../../src/cli/main.ts";
import { heldOutSets } from "../../src/distill/recipe/data_sets.ts";
import { inputPaths } from "../../src/distill/recipe/paths.ts";
import type { TrainingSet } from "../../src/distill/recipe/recipe.ts";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { superviseRun } from "../../src/runs/supervise/supervisor.ts";
import { fakeEntry, fakeRecipe } from "../runs/fake_run.ts";
import { fakeNamed, until, withListening } from "../server/harness.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

const lines = (text: string) => text.trim().split("\n").map((line) => JSON.parse(line));

Deno.test("distill, runs, logs, pause, resume and cancel work through a service", () =>
  withListening(async ({ url, service, folder }) => {
    const recipe = { ...fakeNamed(), data: { train: "./mine.jsonl" } };
    await Deno.writeTextFile(`${folder}/mine.jsonl`, '{"text":"once upon"}\n');
    await Deno.writeTextFile(`${folder}/mine.json`, JSON.stringify(recipe));
    const done = await limbeck("distill", `${folder}/mine.json`, "--remote", url, "--json");
    assertEquals([done.code, lines(done.out).at(-1).state], [0, "succeeded"]);
    const files = await service.uploads.list();
    assertEquals([files.length, files[0]!.filename], [1, "mine.jsonl"], "the dataset was uploaded");
    await Deno.writeTextFile(`${folder}/other.jsonl`, '{"text":"there was"}\n');
    const train = [{ path: "mine.jsonl", weight: 2 }, { path: "other.jsonl" }];
    const data = { train, heldOut: [{ path: "./mine.jsonl", name: "held" }] };
    await Deno.writeTextFile(`${folder}/lists.json`, JSON.stringify({ ...fakeNamed(), data }));
    assertEquals((await limbeck("distill", `${folder}/lists.json`, "--remote", url)).code, 0);
    const mixed = distillationOf((await service.store.list()).data[0]!.recipe).data;
    assertEquals((mixed.train as TrainingSet[]).map(({ name, weight }) => [name, weight]), [["mine", 2], [
      "other",
      1,
    ]]);
    assertEquals(heldOutSets(mixed)!.map(({ name }) => name), ["held"]);
    const texts = await Promise.all(inputPaths({ data: mixed }).map(({ path }) => Deno.readTextFile(path)));
    assertEquals(
      texts,
      ["mine", "other", "mine"].map((name) => Deno.readTextFileSync(`${folder}/${name}.jsonl`)),
    );
    await service.store.remove((await service.store.list()).data[0]!.id);

    const [run] = JSON.parse((await limbeck("runs", "--remote", url, "--json")).out);
    assertEquals([run.state, run.step], ["succeeded", 12]);
    assertStringIncludes(
      (await limbeck("runs", "show", "last", "--remote", url)).out,
      "succeeded, step 12 of 12",
    );
    const logged = lines((await limbeck("logs", "last", "--remote", url, "--json")).out);
    assertEquals(logged.map(({ seq }) => seq), (await service.store.events(run.id)).map(({ seq }) => seq));

    await Deno.writeTextFile(`${folder}/slow.json`, JSON.stringify(fakeNamed({ pace: 20 }, 300)));
    const watched = limbeck("distill", `${folder}/slow.json`, "--remote", url);
    const id = await newRun(service, run.id);
    await until(service, id, "running");
    assertEquals((await limbeck("pause", "last", "--remote", url)).code, 0);
    assertEquals((await watched).code, 130);
    assertEquals((await limbeck("resume", id, "--remote", url)).code, 0);
    const followed = limbeck("logs", "last", "-f", "--remote", url);
    await until(service, id, "running");
    assertEquals((await limbeck("cancel", id, "--remote", url)).code, 0);
    assertStringIncludes((await followed).out, "The run is cancelled");
    const again = await limbeck("cancel", id, "--remote", url, "--json");
    assertEquals(again.code, 0, "it is what was asked for");

    const bad = await limbeck("distill", `${folder}/mine.json`, "--remote", url, "--set", "train.steps=x");
    assertEquals(bad.code, 3);
    assertStringIncludes(bad.err, "recipe.train.steps");
    const wrong = await limbeck("runs", "--remote", "http://127.0.0.1:9");
    assertEquals(wrong.code, 1);
    assertStringIncludes(wrong.err, "cannot be reached");
    assertEquals((await limbeck("runs", "--remote", "nowhere")).code, 3);
  }));

Deno.test("a run of a terminal shows in the service and can be cancelled there, and the other way round", () =>
  withListening(async ({ url, service, folder }) => {
    const { store } = service;
    const run = await createRun({ store, recipe: fakeRecipe(folder, { pace: 20 }, 400) });
    const supervised = superviseRun({ run, entry: fakeEntry });
    supervised.outcome.finally(run.release);
    await until(service, run.id, "running");
    const [shown] = (await (await fetch(`${url}/v1/runs`)).json()).data;
    assertEquals([shown.id, shown.state, shown.worker, shown.recipe.teacher.model], [
      run.id,
      "running",
      "command",
      "model",
    ]);
    assert(!JSON.stringify(shown).includes(folder));
    await (await fetch(`${url}/v1/runs/${run.id}/cancel`, { method: "POST" })).body?.cancel();
    assertEquals((await supervised.outcome).state, "cancelled");

    const response = await fetch(`${url}/v1/runs`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ recipe: fakeNamed({ pace: 20 }, 400) }),
    });
    const { id } = await response.json();
    await until(service, id, "running");
    const data = ["--data", `${folder}/service`];
    const followed = limbeck("logs", id, "-f", ...data);
    assertStringIncludes((await limbeck("runs", ...data)).out, "running");
    assertEquals((await limbeck("cancel", id, ...data)).code, 0);
    await until(service, id, "cancelled");
    assertStringIncludes((await followed).out, "The run is cancelled");
    const queuedAgain = await limbeck("cancel", id, ...data);
    assertEquals(queuedAgain.code, 3);
    assertStringIncludes(queuedAgain.err, "is cancelled and cannot be cancelled");
  }));

Deno.test("a run whose terminal was killed can be resumed by the service", () =>
  withListening(async ({ url, service, folder }) => {
    const { store } = service;
    const run = await createRun({ store, recipe: fakeRecipe(folder) });
    await store.append(run.id, 1, [{ type: "state", state: "running" }]);
    // Its process is gone, without a word.
    run.release();
    const call = async (method: string, path: string) => {
      const response = await fetch(`${url}/v1/runs/${run.id}${path}`, { method });
      return { status: response.status, body: await response.json() };
    };
    assertEquals((await call("GET", "")).body.state, "interrupted");
    assertEquals((await call("POST", "/pause")).status, 409);
    assertEquals((await call("POST", "/resume")).status, 202);
    await until(service, run.id, "succeeded");
    assertEquals((await call("GET", "")).body.worker, "service");
  }));

/** The newest run, once it is another than `known`. */
async function newRun(
  { store }: { store: import("../../src/runs/store/store.ts").Store },
  known: string,
): Promise<string> {
  for (;;) {
    const id = (await store.list({ limit: 1 })).data[0]?.id;
    if (id !== undefined && id !== known) return id;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
