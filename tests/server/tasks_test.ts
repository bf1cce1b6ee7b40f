/** Merges and residuals as runs of a service: submitted with names, watched, cancelled, used by what comes after them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch } from "@std/assert";
import { writeTinyModel } from "../distill/tiny_model.ts";
import { submit, type TestService, until, untilIdle, withService } from "./harness.ts";

/** Calls `fn` with a service that has two small models, and works with the real processes. */
function withTasks(fn: (test: TestService) => Promise<void>, layers = 2): Promise<void> {
  return withService(async (test) => {
    await Deno.remove(`${test.folder}/models/model`, { recursive: true });
    for (const [seed, name] of ["a", "b"].entries()) {
      await writeTinyModel(`${test.folder}/models/${name}`, { layers, hiddenSize: 16, seed: seed + 1 });
    }
    await fn(test);
  }, { entry: undefined });
}

const MERGE = {
  task: "merge",
  method: "linear",
  models: [{ model: "a", weight: 1 }, { model: "b", weight: 1 }],
};

Deno.test("a merge is submitted, streamed and handed out, and later runs can name what it made", () =>
  withTasks(async (test) => {
    const id = await submit(test, MERGE);
    await until(test.service, id, "succeeded", "failed");
    const { body: run } = await test.call("GET", `/v1/runs/${id}`);
    assertEquals([run.state, run.task, run.step, run.steps, run.recipe], [
      "succeeded",
      "merge",
      100,
      100,
      MERGE,
    ]);
    assert(!JSON.stringify(run).includes(test.folder), "a path of this machine");

    const stream = await test.request(`/v1/runs/${id}/events`, { headers: { Accept: "text/event-stream" } });
    const text = await stream.text();
    assertMatch(text, /"type":"progress"/);
    assert(!text.includes(test.folder), "a path of this machine");

    const { body: files } = await test.call("GET", `/v1/runs/${id}/artifacts`);
    const names = files.data.map(({ name }: { name: string }) => name);
    for (
      const name of ["merged/model.safetensors", "merged/config.json", "merged/README.md", "result.json"]
    ) {
      assert(names.includes(name), `${name} is missing in ${names}`);
    }
    for (const name of names.filter((name: string) => !name.endsWith(".safetensors"))) {
      const file = await (await test.request(`/v1/runs/${id}/artifacts/${name}`)).text();
      assert(!file.includes(test.folder), `${name} has a path of this machine`);
    }

    const { body: models } = await test.call("GET", "/v1/models");
    assert(models.data.some((model: { id: string }) => model.id === `run:${id}`));
    const next = await submit(test, {
      task: "residual",
      ...{ base: "a", instruct: "b", newBase: `run:${id}` },
    });
    await until(test.service, next, "succeeded", "failed");
    assertEquals((await test.call("GET", `/v1/runs/${next}`)).body.state, "succeeded");

    const list = async (query: string) =>
      (await test.call("GET", `/v1/runs${query}`)).body.data.map((run: { id: string }) => run.id);
    assertEquals(await list("?task=merge"), [id]);
    assertEquals(await list("?task=distill"), []);
    assertEquals(await list(""), [next, id]);
    assertEquals((await test.call("GET", "/v1/fine_tuning/jobs")).body.data, []);
    assertEquals((await test.call("GET", `/v1/fine_tuning/jobs/${id}`)).status, 404);
  }));

Deno.test("models are measured on tasks, and the table is in the result and in the report", () =>
  withTasks(async (test) => {
    const rows = [["the cat", "sat on", "zz"], ["a mat", "and ran", "zz"]]
      .map(([context, ...choices]) => JSON.stringify({ context, choices, answer: 0, text: context }) + "\n");
    await Deno.writeTextFile(`${test.folder}/datasets/rows.jsonl`, rows.join(""));
    const choice = {
      ...{ kind: "multiple-choice", name: "choice", data: "rows.jsonl", context: "{context}" },
      ...{ choices: "{choices}", answer: "{answer}" },
    };
    const evaluate = {
      task: "evaluate",
      models: [{ model: "a" }, { model: "b", name: "other" }],
      tasks: [choice, { kind: "agreement", name: "near", data: "rows.jsonl", text: "{text}", topK: 2 }],
    };
    const refused = async (recipe: unknown) => {
      const { status, body } = await test.call("POST", "/v1/runs", { recipe });
      return [status, body.error.problems?.[0]?.param, body.error.message];
    };
    const [status, param] = await refused({ ...evaluate, tasks: [{ ...choice, kind: "choices" }] });
    assertEquals([status, param], [400, "recipe.tasks.0"]);
    assertEquals((await refused({ ...evaluate, tasks: [{ ...choice, data: "/etc/passwd" }] }))[0], 400);
    const long = {
      kind: "exact-match",
      data: "rows.jsonl",
      prompt: "{text}",
      answer: "{text}",
      extract: "text",
    };
    assertMatch(
      String((await refused({ ...evaluate, tasks: [{ ...long, maxTokens: 5000 }] }))[2]),
      /more than this service allows/,
    );
    const { body: checked } = await test.call("POST", "/v1/runs/validate", { recipe: evaluate });
    assertMatch(JSON.stringify(checked), /compares with a teacher, and none is named/);

    const whole = { ...evaluate, teacher: "b" };
    const { body: needs } = await test.call("POST", "/v1/runs/estimate", { recipe: whole });
    assert(needs.totalBytes > 0, JSON.stringify(needs));
    const id = await submit(test, whole);
    await until(test.service, id, "succeeded", "failed");
    const { body: run } = await test.call("GET", `/v1/runs/${id}`);
    assertEquals([run.state, run.task, run.step, run.recipe], ["succeeded", "evaluate", 100, whole]);
    const { evaluation } = run.result.findings;
    assertEquals(evaluation.models, ["a", "other"]);
    const [accuracy, near] = evaluation.tasks;
    assertEquals([accuracy.name, accuracy.items, accuracy.figures[0].key], ["choice", 2, "accuracy"]);
    assertEquals(near.figures[0].values[0] > 0.01 && near.figures[0].values[1] < 1e-6, true);
    assertEquals(accuracy.calibration.length, 2);
    assert(!JSON.stringify(run).includes(test.folder), "a path of this machine");
    const table = await (await test.request(`/v1/runs/${id}/artifacts/evaluation.json`)).json();
    assertEquals(table, evaluation);
    await untilIdle(test.service);
    const html = await (await test.request(`/v1/runs/${id}/artifacts/report.html`)).text();
    assertMatch(html, /<h2>Tasks<\/h2>[^]*Reliability, choice/);
    assert(!html.includes(test.folder), "a path of this machine");
  }));

Deno.test("a teacher's cache is a run of its own, which runs that train on it find", () =>
  withTasks(async (test) => {
    const lines = ["the cat sat on a mat", "and ran home to see", "his sun"].map((text) =>
      JSON.stringify({ text })
    );
    for (const name of ["rows", "heldout"]) {
      await Deno.writeTextFile(`${test.folder}/datasets/${name}.jsonl`, lines.join("\n") + "\n");
    }
    const recipe = {
      teacher: { model: "a", cache: { payload: "hidden", precision: "int8" } },
      student: { model: "b" },
      data: { train: "rows.jsonl", heldOut: "heldout.jsonl", contextLength: 32 },
      objective: [{ loss: "forward-kl" }],
      adapter: { rank: 2 },
      train: { steps: 1, tokensPerMicroBatch: 64 },
      samples: { tokens: 0 },
    };
    const refused = async (recipe: unknown) => {
      const { status, body } = await test.call("POST", "/v1/runs", { recipe });
      assertEquals(status, 400);
      return body.error.problems.map(({ param }: { param: string }) => param);
    };
    assertEquals(await refused({ task: "cache", recipe, more: 1 }), ["recipe.more"]);
    const { cache: _, ...uncached } = recipe.teacher;
    assertEquals(await refused({ task: "cache", recipe: { ...recipe, teacher: uncached } }), [
      "recipe.recipe.teacher.cache",
    ]);
    const placed = { ...recipe.teacher, cache: { ...recipe.teacher.cache, folder: "/tmp/x" } };
    assertEquals(await refused({ task: "cache", recipe: { ...recipe, teacher: placed } }), [
      "recipe.recipe.teacher.cache.folder",
    ]);
    const wide = { ...recipe, student: { model: "c" }, data: { ...recipe.data, train: "/etc/passwd" } };
    assertEquals(await refused({ task: "cache", recipe: wide }), [
      ...["recipe.recipe.student.model", "recipe.recipe.data.train"],
    ]);

    const task = { task: "cache", recipe };
    const { body: needs } = await test.call("POST", "/v1/runs/estimate", { recipe: task });
    assert(needs.totalBytes > 0, JSON.stringify(needs));
    const id = await submit(test, task);
    await until(test.service, id, "succeeded", "failed");
    const { body: run } = await test.call("GET", `/v1/runs/${id}`);
    assertEquals([run.state, run.task], ["succeeded", "cache"], JSON.stringify(run.error));
    const { cache } = run.result.findings;
    assertEquals([cache.samples, cache.made, cache.bytesPerToken], [6, 6, 4 + 16]);
    assert(!JSON.stringify(run).includes(test.folder), "a path of this machine");

    const next = await submit(test, recipe);
    await until(test.service, next, "succeeded", "failed");
    const { body: events } = await test.call("GET", `/v1/runs/${next}/events`);
    const said = JSON.stringify(events);
    assertMatch(said, /using the teacher's cache/);
    assertEquals((await test.call("GET", `/v1/runs/${next}`)).body.state, "succeeded");
  }));

Deno.test("what a shrink found is a model and a shape to later runs", () =>
  withTasks(async (test) => {
    const lines = ["the quick brown fox", "jumps over the lazy dog"].map((text) => JSON.stringify({ text }));
    await Deno.writeTextFile(`${test.folder}/datasets/rows.jsonl`, lines.join("\n") + "\n");
    const shrink = { task: "shrink", model: "a", data: "rows.jsonl", layers: 1 };
    const id = await submit(test, shrink);
    await until(test.service, id, "succeeded", "failed");
    const { body: run } = await test.call("GET", `/v1/runs/${id}`);
    assertEquals([run.state, run.result?.paths], ["succeeded", { merged: "merged", shape: "shape.json" }]);
    assertEquals(run.result.findings.depth.plan.kept.length, 1);
    const found = await (await test.request(`/v1/runs/${id}/artifacts/shrink.json`)).text();
    assert(!found.includes(test.folder), "a path of this machine");

    await untilIdle(test.service);
    const report = await test.request(`/v1/runs/${id}/artifacts/report.html`);
    const html = await report.text();
    assertMatch(
      html,
      /<h2>Loss against tokens a second<\/h2>[^]*<h2>Shapes<\/h2>[^]*<td><strong>[01]<\/strong>/,
    );
    assertMatch(html, /Tokens a second: .* batch on .+, the median of several turns/);

    const { body: shapes } = await test.call("GET", `/v1/runs/${id}/shapes`);
    assertEquals([shapes.figure, shapes.step, shapes.costs], ["loss", null, [
      "parameters",
      "tokensPerSecond",
    ]]);
    type Told = { name: string; frontier: string[]; chosen: boolean; tokensPerSecond: number };
    const [whole, ...subsets]: Told[] = shapes.data;
    assertEquals([whole!.name, subsets.length], ["layers 0, 1", 2]);
    assertEquals(subsets.map(({ chosen }) => chosen).sort(), [false, true]);
    assert(subsets.find(({ chosen }) => chosen)!.frontier.includes("parameters"));
    assert(
      shapes.data.every(({ tokensPerSecond, frontier }: Told) => tokensPerSecond > 0 || !frontier.length),
    );

    // What one run has measured of a model on some data, others of the service need not.
    const measured = () =>
      [...Deno.readDirSync(`${test.folder}/service/evaluations`)].filter(({ name }) =>
        name.endsWith(".jsonl")
      )
        .map(({ name }) => Deno.readTextFileSync(`${test.folder}/service/evaluations/${name}`));
    const known = measured();
    const again = await submit(test, { ...shrink, search: "exhaustive", untimed: true });
    await until(test.service, again, "succeeded", "failed");
    assertEquals(measured(), known);
    const { body: other } = await test.call("GET", `/v1/runs/${again}/shapes`);
    assertEquals(other.data.map((shape: Told) => shape.tokensPerSecond), [null, null, null]);

    // A shape file may be brought along, and be a width of several shapes.
    const shape = await (await test.request(`/v1/runs/${id}/artifacts/shape.json`)).text();
    assertEquals([shape.includes(test.folder), JSON.parse(shape).model.path], [false, "a"]);
    const upload = async (text: string, purpose = "shape") => {
      const body = new FormData();
      body.set("purpose", purpose);
      body.set("file", new File([text], "shape.json"));
      const response = await test.request("/v1/files", { method: "POST", body });
      return { status: response.status, body: await response.json() };
    };
    const uploaded = await upload(shape);
    const cut = {
      ...JSON.parse(shape),
      ...{ keptLayers: [0, 1], width: { groups: [[0], [0]], channels: [[0, 2], [1, 3]] } },
    };
    const narrow = await upload(JSON.stringify(cut));
    assertEquals([uploaded.status, narrow.status], [200, 200], JSON.stringify(narrow.body));
    const looked = async (student: object, data = "rows.jsonl") => {
      const recipe = {
        ...{ teacher: { model: "a" }, student: { model: "teacher", ...student } },
        data: { train: data, heldOut: "rows.jsonl", contextLength: 16 },
        objective: [{ loss: "cross-entropy" }],
      };
      const { status, body } = await test.call("POST", "/v1/runs/validate", { recipe });
      return [status, body.error?.param ?? null];
    };
    const widths = [{ width: 0.5, shape: narrow.body.id }];
    assertEquals(await looked({ shape: uploaded.body.id }), [200, null]);
    assertEquals(await looked({ shapes: { layers: [[0]], widths } }), [200, null]);
    const nowhere = { widths: [{ width: 0.5, shape: "file-000000000000000000000000" }] };
    assertEquals(await looked({ shapes: nowhere }), [400, "recipe.student.shapes.widths.0.shape"]);
    assertEquals(await looked({}, uploaded.body.id), [400, "recipe.data.train"]);
    assert(
      !(await test.call("GET", "/v1/datasets")).body.data.some(({ id }: { id: string }) =>
        id === uploaded.body.id
      ),
    );
    assertEquals((await upload(shape, "fine-tune")).body.error.param, "purpose");
    assertEquals((await upload('{"text": "once"}')).body.error.param, "purpose");
    const damaged = await upload(shape.replace("keptLayers", "keptLayer"));
    assertEquals([damaged.status, damaged.body.error.param], [400, "file"]);

    const mended = (student: object) =>
      submit(test, {
        ...{
          teacher: { model: "a" },
          student,
          data: { train: "rows.jsonl", heldOut: "rows.jsonl", contextLength: 16 },
        },
        train: { steps: 1, warmup: 0, tokensPerMicroBatch: 32 },
      });
    for (const student of [{ model: "teacher", shape: `run:${id}` }, { model: `run:${id}` }]) {
      const next = await mended(student);
      await until(test.service, next, "succeeded", "failed");
      const { body } = await test.call("GET", `/v1/runs/${next}`);
      assertEquals([body.state, body.error], ["succeeded", null]);
      const wrong = { teacher: { model: "a" }, student: { model: "teacher", shape: `run:${next}` } };
      const refused = await test.call("POST", "/v1/runs", {
        recipe: { ...wrong, data: { train: "rows.jsonl" } },
      });
      assertEquals([refused.status, refused.body.error.param], [400, "recipe.student.shape"]);
    }
  }));

Deno.test("what is wrong with a task is told with its place in the request", () =>
  withTasks(async (test) => {
    const refused = async (recipe: unknown) => {
      const { status, body } = await test.call("POST", "/v1/runs", { recipe });
      return [status, body.error.param, body.error.problems?.length];
    };
    assertEquals(await refused({ ...MERGE, task: "merg" }), [400, "recipe.task", 1]);
    assertEquals(await refused({ ...MERGE, method: "none" }), [400, "recipe.method", 1]);
    assertEquals(await refused({ ...MERGE, output: "/tmp/x" }), [400, "recipe.output", 1]);
    assertEquals(await refused({ ...MERGE, chatTemplate: "{{ 1 }}" }), [400, "recipe.chatTemplate", 1]);
    for (const path of ["/etc", "../a", `${test.folder}/models/a`]) {
      const models = [MERGE.models[0], { model: path }];
      assertEquals(await refused({ ...MERGE, models }), [400, "recipe.models.1.model", 1]);
      assertEquals(await refused({ ...MERGE, base: path }), [400, "recipe.base", 1]);
      assertEquals(await refused({ ...MERGE, tokenizer: path }), [400, "recipe.tokenizer", 1]);
    }
    const mergekit = {
      task: "merge",
      merge_method: "linear",
      base_model: "a",
      slices: [{ sources: [{ model: "/etc", layer_range: [0, 1] }] }],
      tokenizer_source: "/etc",
    };
    assertEquals(await refused(mergekit), [400, "recipe.slices.0.sources.0.model", 2]);
    assertEquals(
      await refused({ task: "residual", base: "a", instruct: "b", newBase: "a", rank: 1000 }),
      [400, "recipe.rank", 1],
    );
    assertEquals(await refused({ task: "shrink", model: "a", data: ["/etc/passwd"], layers: 1 }), [
      400,
      "recipe.data.0",
      1,
    ]);
    assertEquals(await test.service.store.ids(), []);
  }));

Deno.test("what a task will leave and needs is told before it is submitted, and what it cannot do", () =>
  withTasks(async (test) => {
    const row = JSON.stringify({ text: "the quick brown fox" });
    await Deno.writeTextFile(`${test.folder}/datasets/rows.jsonl`, row + "\n");
    const silent = JSON.stringify({ prompt: "the quick", completion: "brown" });
    await Deno.writeTextFile(`${test.folder}/datasets/silent.jsonl`, silent + "\n");
    const ask = async (what: string, recipe: unknown) => {
      const { status, body } = await test.call("POST", `/v1/runs/${what}`, { recipe });
      assert(!JSON.stringify(body).includes(test.folder), JSON.stringify(body));
      return { status, body };
    };
    const merge = await ask("validate", { ...MERGE, outDtype: "f16" });
    assertEquals([merge.status, merge.body.valid, merge.body.task], [200, true, "merge"]);
    const { parameters } = merge.body.output;
    assertEquals(merge.body.output, { kind: "model", dtype: "f16", parameters, bytes: 2 * parameters });
    const estimated = await ask("estimate", MERGE);
    assertEquals([estimated.body.adapter, estimated.body.totalBytes, estimated.body.steps], [null, 0, 100]);

    const residual = { task: "residual", base: "a", instruct: "b", newBase: "a" };
    assertEquals((await ask("validate", residual)).body.output.parameters, parameters);
    const small = (await ask("estimate", { ...residual, rank: 2 })).body.output;
    assertEquals([small.kind, small.bytes], ["adapter", 4 * small.parameters]);

    const shrink = { task: "shrink", model: "a", data: "rows.jsonl", layers: 1 };
    const { body: cut } = await ask("estimate", shrink);
    assertEquals([cut.model, cut.data.samples, cut.evaluations], [{ layers: 2, parameters }, 1, 7]);
    assert(cut.totalBytes > 0 && cut.adapter !== null, JSON.stringify(cut));
    assertEquals(
      cut.totalBytes,
      Object.values(cut.bytes as Record<string, number>).reduce((sum, bytes) => sum + bytes, 0),
    );

    await writeTinyModel(`${test.folder}/models/wide`, { layers: 2, hiddenSize: 32 });
    const refused = async (recipe: object, said: RegExp) => {
      const { status, body } = await ask("validate", recipe);
      assertEquals(status, 400, JSON.stringify(body));
      assertMatch(body.error.message, said);
    };
    await refused({ ...MERGE, models: [{ model: "a" }, { model: "wide" }] }, /another kind of model/);
    await refused({ ...residual, newBase: "wide" }, /another kind of model/);
    await refused({ ...shrink, layers: 2 }, /2 of the model's 2 layers cannot be what is left/);
    await refused({ ...shrink, data: "silent.jsonl", contextLength: 2 }, /no .* left|no sample/);
    const seen = await test.call("POST", "/v1/data/preview", { recipe: shrink });
    assertEquals([seen.status, seen.body.error.param], [400, "recipe.task"]);
    assertEquals(await test.service.store.ids(), []);
  }));

Deno.test("the difference of two models is an adapter, and a shape of a run becomes a model of its own", () =>
  withTasks(async (test) => {
    const end = async (recipe: unknown) => {
      const id = await submit(test, recipe);
      await until(test.service, id, "succeeded", "failed");
      const { body } = await test.call("GET", `/v1/runs/${id}`);
      assertEquals([body.state, body.error], ["succeeded", null]);
      return body;
    };
    const extracted = await end({ task: "extract", base: "a", tuned: "b", rank: 2 });
    assertEquals(extracted.result.paths, { adapter: "adapter" });
    assert(extracted.result.findings.total > 0 && extracted.result.findings.total < 1);

    const adapters = [{ adapter: `run:${extracted.id}`, weight: 0.5 }, { adapter: `run:${extracted.id}` }];
    const both = { task: "merge-adapters", adapters };
    const merged = await end(both);
    assertEquals([merged.result.paths.adapter, merged.result.findings.method], ["adapter", "cat"]);
    assertEquals((await end({ ...both, into: "a" })).result.paths, { merged: "merged" });
    const { body: needs } = await test.call("POST", "/v1/runs/estimate", { recipe: both });
    const { body: smaller } = await test.call("POST", "/v1/runs/estimate", {
      recipe: { ...both, method: "svd", rank: 2 },
    });
    assertEquals(needs.output.parameters, 2 * smaller.output.parameters);
    const wrong = { ...both, adapters: [...adapters, { adapter: "run:none" }] };
    const unknown = await test.call("POST", "/v1/runs", { recipe: wrong });
    assertEquals([unknown.status, unknown.body.error.param], [400, "recipe.adapters.2.adapter"]);

    const lines = ["the quick brown fox", "jumps over the lazy dog"].map((text) => JSON.stringify({ text }));
    await Deno.writeTextFile(`${test.folder}/datasets/rows.jsonl`, lines.join("\n") + "\n");
    const trained = await end({
      ...{ teacher: { model: "a" }, student: { model: "teacher", shapes: { layers: [[1]] } } },
      data: { train: "rows.jsonl", heldOut: "rows.jsonl", contextLength: 16 },
      ...{ objective: [{ loss: "cross-entropy" }], samples: { tokens: 0 } },
      train: { steps: 1, warmup: 0, tokensPerMicroBatch: 32 },
    });
    const { body: shapes } = await test.call("GET", `/v1/runs/${trained.id}/shapes`);
    assertEquals([shapes.figure, shapes.step], ["held-out loss", 1]);
    type Told = { name: string; value: number; before: number; layers: number[] };
    assertEquals(shapes.data.map(({ name, layers }: Told) => [name, layers.length]), [
      ["depth=2,width=1", 2],
      ["depth=1,width=1", 1],
    ]);
    assert(shapes.data.every(({ value, before }: Told) => value > 0 && before > 0));

    const shape = { task: "export", run: `run:${trained.id}`, shape: "depth=1" };
    const valid = await test.call("POST", "/v1/runs/validate", { recipe: shape });
    assertEquals([valid.status, valid.body.recipe.target], [200, "merged"]);
    const small = await end(shape);
    assertEquals(small.result.paths, { merged: "merged" });
    const config = await (await test.request(`/v1/runs/${small.id}/artifacts/merged/config.json`)).json();
    assertEquals(config.num_hidden_layers, 1);
    const lora = await end({ ...shape, target: "peft" });
    const { body: files } = await test.call("GET", `/v1/runs/${lora.id}/artifacts`);
    const names = files.data.map(({ name }: { name: string }) => name);
    for (const name of ["adapter/adapter_model.safetensors", "adapter/base/config.json"]) {
      assert(names.includes(name), `${name} is missing in ${names}`);
    }
    const settings = await test.request(`/v1/runs/${lora.id}/artifacts/adapter/adapter_config.json`);
    assert(!(await settings.text()).includes(test.folder), "a path of this machine");

    const none = await test.call("POST", "/v1/runs/validate", { recipe: { ...shape, shape: "depth=3" } });
    assertEquals(none.status, 400);
    assertMatch(none.body.error.message, /"depth=3" is no shape of the run/);
    for (const run of [`run:${small.id}`, "run:none", test.folder]) {
      const refused = await test.call("POST", "/v1/runs", { recipe: { ...shape, run } });
      assertEquals([refused.status, refused.body.error.param], [400, "recipe.run"]);
    }
  }));

Deno.test("a merge that is cancelled ends, and leaves no model", () =>
  withTasks(async (test) => {
    const id = await submit(test, MERGE);
    await until(test.service, id, "running", "succeeded", "failed");
    assertEquals((await test.call("POST", `/v1/runs/${id}/cancel`)).status, 202);
    await until(test.service, id, "cancelled", "succeeded", "failed");
    const { body } = await test.call("GET", `/v1/runs/${id}`);
    assertEquals([body.state, body.error], ["cancelled", null]);
    const { body: files } = await test.call("GET", `/v1/runs/${id}/artifacts`);
    assertEquals(files.data.filter(({ name }: { name: string }) => name.startsWith("merged")), []);
  }, 60));

Deno.test("models that do not fit each other fail the run with a word that names no path", () =>
  withTasks(async (test) => {
    await writeTinyModel(`${test.folder}/models/wide`, { layers: 2, hiddenSize: 32 });
    const id = await submit(test, { ...MERGE, models: [{ model: "a" }, { model: "wide" }] });
    await until(test.service, id, "succeeded", "failed");
    const { body } = await test.call("GET", `/v1/runs/${id}`);
    assertEquals([body.state, body.error.exitCode], ["failed", 3]);
    assert(!JSON.stringify(body).includes(test.folder), body.error.message);
    assertMatch(body.error.message, /wide/);
  }));
