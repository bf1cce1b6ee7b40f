/** What a request may name, and what clients may have, whatever lies beside it. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { distillationOf } from "../../src/runs/task/run_recipe.ts";
import { heldOutSets, trainingSets } from "../../src/distill/recipe/data_sets.ts";
import { inputPaths } from "../../src/distill/recipe/paths.ts";
import type { RunEvent } from "../../src/distill/run/events.ts";
import { newManifest } from "../../src/runs/store/run_folder.ts";
import type { RunStore } from "../../src/runs/store/store.ts";
import { fakeRecipe } from "../runs/fake_run.ts";
import { fakeNamed, submit, type TestService, until, withService } from "./harness.ts";

/** Keeps finished runs as if they had been made here; returns their ids. */
async function finishedRuns(store: RunStore, folder: string, count: number): Promise<string[]> {
  const recipe = fakeRecipe(folder);
  const manifest = newManifest(recipe, []);
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    const createdAt = new Date(Date.UTC(2026, 0, 1) + i * 1000).toISOString();
    const id = `20260101-000000-${String(i).padStart(4, "0")}`;
    const states = ["queued", "running", "succeeded"] as const;
    const events = states.map((state, k): RunEvent => ({
      ...{ seq: k + 1, time: createdAt, attempt: Math.min(k, 1), type: "state", state },
    }));
    const run = { manifest: { ...manifest, id, createdAt }, recipe, folder: `${folder}/runs/${id}` };
    ids.push((await store.adopt({ ...run, worker: "service" }, events)).id);
  }
  return ids;
}

async function upload(test: TestService): Promise<string> {
  const form = new FormData();
  form.set("purpose", "fine-tune");
  form.set("file", new File(['{"text":"once"}\n'], "rows.jsonl"));
  return (await (await test.request("/v1/files", { method: "POST", body: form })).json()).id;
}

/** How often files and folders are read meanwhile. */
async function readsDuring(work: () => Promise<unknown>): Promise<number> {
  const { readTextFile, readDir } = Deno;
  let reads = 0;
  Deno.readTextFile = (...args) => (reads++, readTextFile(...args));
  Deno.readDir = (...args) => (reads++, readDir(...args));
  try {
    await work();
    return reads;
  } finally {
    Object.assign(Deno, { readTextFile, readDir });
  }
}

Deno.test("what it costs to look at a run does not grow with what was uploaded, and an upload is still shown by its id", () =>
  withService(async (test) => {
    const [id] = await finishedRuns(test.service.store, test.folder, 1);
    const look = () => test.call("GET", `/v1/runs/${id}`);
    const before = await readsDuring(look);
    const files: string[] = [];
    for (let i = 0; i < 20; i++) files.push(await upload(test));
    assertEquals(await readsDuring(look), before);
    const recipe = { ...fakeNamed(), data: { train: files[7]! } };
    const running = await submit(test, recipe);
    await until(test.service, running, "succeeded");
    const { folder } = test.service.store;
    const { hide } = test.service.catalogue;
    assertEquals(hide(`${folder}/files/${files[7]}/content.jsonl: line 3`), `${files[7]}: line 3`);
    assertEquals(
      hide(`${test.folder}/datasets/train.jsonl, ${test.folder}/models/model/config.json`),
      "train.jsonl, model/config.json",
    );
    assertEquals(hide(`${folder}/files/other/content.jsonl`), "content.jsonl");
  }));

Deno.test("datasets of a list are named as one alone is: by uploads and the operator's names, and by nothing else", () =>
  withService(async (test) => {
    const file = await upload(test);
    const train = [{ path: "train.jsonl", weight: 3 }, { path: file, name: "mine" }];
    const recipe = {
      ...fakeNamed(),
      data: { train, mix: "tokens", heldOut: [{ path: file }, { path: "train.jsonl" }] },
    };
    const id = await submit(test, recipe);
    await until(test.service, id, "succeeded");
    const { recipe: shown } = (await test.call("GET", `/v1/runs/${id}`)).body;
    assertEquals([shown.data.train, shown.data.heldOut], [recipe.data.train, recipe.data.heldOut]);
    // What a set is called is what the request called it, wherever its file lies.
    const stored = distillationOf((await test.service.store.get(id))!.recipe).data;
    assertEquals(trainingSets(stored).map(({ name, weight }) => [name, weight]), [["train", 3], ["mine", 1]]);
    assertEquals(heldOutSets(stored)!.map(({ name }) => name), [file, "train"]);
    assertEquals(inputPaths({ data: stored }).map(({ path }) => path), [
      `${await Deno.realPath(test.folder)}/datasets/train.jsonl`,
      ...[1, 2].map(() => `${test.service.store.folder}/files/${file}/content.jsonl`),
      `${await Deno.realPath(test.folder)}/datasets/train.jsonl`,
    ]);
    const job = (await test.call("GET", `/v1/fine_tuning/jobs/${id}`)).body;
    assertEquals([job.training_file, job.validation_file], [`train.jsonl, ${file}`, `${file}, train.jsonl`]);
    // It can be sent again as it is shown.
    await until(test.service, await submit(test, shown), "succeeded");

    for (
      const path of [
        "/etc/passwd",
        "../datasets/train.jsonl",
        `${test.folder}/datasets/train.jsonl`,
        "file-0",
      ]
    ) {
      const data = { train: [{ path: "train.jsonl" }, { path, name: "x" }], heldOut: [{ path, name: "y" }] };
      const { status, body } = await test.call("POST", "/v1/runs", { recipe: { ...fakeNamed(), data } });
      assertEquals(status, 400, path);
      const params = body.error.problems.map(({ param }: { param: string }) => param);
      assertEquals(params, ["recipe.data.train.1.path", "recipe.data.heldOut.0.path"]);
      assertStringIncludes(body.error.message, "this service has no dataset");
    }
  }));

Deno.test("GET /v1/models/run:ID finds a run behind hundreds of newer ones", () =>
  withService(async (test) => {
    const ids = await finishedRuns(test.service.store, test.folder, 206);
    const { status, body } = await test.call("GET", `/v1/models/run:${ids[0]}`);
    assertEquals([status, body.id, body.source, body.run], [200, `run:${ids[0]}`, "run", ids[0]]);
    assertEquals((await test.call("GET", "/v1/models/model")).body.source, "operator");
    for (const name of ["run:none", "none", `run:${await submit(test, fakeNamed({ pace: 50 }, 1000))}`]) {
      const answer = await test.call("GET", `/v1/models/${name}`);
      assertEquals([answer.status, answer.body.error.code], [404, "unknown_model"], name);
    }
  }));

Deno.test("GET /v1/plugins lists merges beside losses and adapters, with the options of their parents", () =>
  withService(async (test) => {
    const { status, body } = await test.call("GET", "/v1/plugins");
    assertEquals(status, 200);
    const found = (id: string) => body.data.find((plugin: { id: string }) => plugin.id === id);
    const ties = found("ties");
    assertEquals([ties.kind, ties.role], ["merge", "merge"]);
    assert("trim" in ties.options.properties);
    assertEquals(ties.furtherOptions.parentOptions.about, "of each parent");
    assert("density" in ties.furtherOptions.parentOptions.schema.properties);
    assertEquals([found("forward-kl").role, found("forward-kl").furtherOptions], ["loss", {}]);
  }));

Deno.test("links at the top of a run's folder lead nowhere", () =>
  withService(async (test) => {
    const id = await submit(test);
    await until(test.service, id, "succeeded");
    const { folder } = (await test.service.store.get(id))!;
    await Deno.mkdir(`${test.folder}/secret`);
    await Deno.writeTextFile(`${test.folder}/secret/config.json`, "{}");
    await Deno.mkdir(`${folder}/base`);
    await Deno.writeTextFile(`${folder}/base/config.json`, "{}");
    for (const name of ["adapter", "merged"]) {
      await Deno.symlink(`${test.folder}/secret`, `${folder}/${name}`);
    }
    const listed = (await test.call("GET", `/v1/runs/${id}/artifacts`)).body.data;
    const names: string[] = listed.map(({ name }: { name: string }) => name);
    assert(names.includes("base/config.json"));
    assertEquals(names.filter((name) => /^(adapter|merged)/.test(name)), []);
    const file = await test.call("GET", `/v1/runs/${id}/artifacts/merged/config.json`);
    assertEquals(file.status, 404);
    // As a model, too.
    const { store, catalogue } = test.service;
    const run = (await store.get(id))!;
    await store.remove(id);
    const events: RunEvent[] = [
      { seq: 1, time: run.manifest.createdAt, attempt: 0, type: "state", state: "queued" },
      {
        ...{ seq: 2, time: run.manifest.createdAt, attempt: 1, type: "result" },
        result: { ...run.result!, paths: { merged: "merged" } },
      },
    ];
    await store.adopt(run, events);
    assertEquals(await catalogue.model(`run:${id}`), undefined);
    await Deno.remove(`${folder}/merged`);
    await Deno.rename(`${folder}/base`, `${folder}/merged`);
    assertEquals(await catalogue.model(`run:${id}`), `${await Deno.realPath(folder)}/merged`);
    await Deno.symlink(`${test.folder}/secret/config.json`, `${folder}/merged/tokenizer.json`);
    assertEquals(await catalogue.model(`run:${id}`), undefined);
  }));
