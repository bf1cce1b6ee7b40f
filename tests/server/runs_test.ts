// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { Service } from "../../src/server/service.ts";
import { createApp } from "../../src/server/app.ts";
import { TokenList } from "../../src/server/auth/tokens.ts";
import { newToken } from "../../src/server/auth/tokens.ts";
import { withFolder } from "../runs/fake_run.ts";
import { defaults, fakeNamed, prepare, submit, until, untilIdle, withService } from "./harness.ts";

Deno.test("POST /v1/runs queues a recipe, and the run is worked on to its end", () =>
  withService(async (test) => {
    const { status, headers, body } = await test.call("POST", "/v1/runs", {
      recipe: fakeNamed(),
      metadata: { purpose: "test" },
    });
    assertEquals([status, body.state, headers.get("Location")], [202, "queued", `/v1/runs/${body.id}`]);
    await until(test.service, body.id, "succeeded");
    const { body: run } = await test.call("GET", `/v1/runs/${body.id}`);
    assertEquals([run.state, run.step, run.steps, run.metadata.purpose], ["succeeded", 12, 12, "test"]);
    assertEquals(run.recipe.teacher.model, "model");
    assert(!JSON.stringify(run).includes(test.folder), "no path of this machine");
    const { body: page } = await test.call("GET", `/v1/runs/${body.id}/events?limit=5`);
    assertEquals([page.data.length, page.hasMore, page.data[0].type], [5, true, "state"]);
    const next = await test.call("GET", `/v1/runs/${body.id}/events?after=5`);
    assertEquals(next.body.data[0].seq, 6);
    const metrics = await test.call("GET", `/v1/runs/${body.id}/metrics?resolution=4&from=2`);
    assertEquals(metrics.body.training.map((p: { step: number }) => p.step), [4, 7, 10, 12]);
    assertEquals(metrics.body.training[0].steps, 3);
    const checkpoints = await test.call("GET", `/v1/runs/${body.id}/checkpoints`);
    assertEquals(checkpoints.body.data.map((c: { step: number }) => c.step), [5, 10]);
  }));

Deno.test("POST /v1/runs names everything that is wrong, with its path, and makes nothing", () =>
  withService(async (test) => {
    const { status, body } = await test.call("POST", "/v1/runs", {
      recipe: {
        teacher: { model: "modell" },
        student: { model: "/etc/passwd", shape: "/etc/passwd" },
        data: { train: "../../train.jsonl" },
        objective: [{ loss: "no-such-loss" }],
        adapter: { rank: 100_000 },
        train: { steps: 1e9 },
        output: { folder: "/tmp/mine" },
        limits: { watchdogSeconds: 1e6 },
      },
    });
    assertEquals([status, body.error.type, body.error.code], [400, "invalid_request_error", "bad_recipe"]);
    const params = body.error.problems.map((p: { param: string }) => p.param).sort();
    assertEquals(params, [
      "recipe.adapter.rank",
      "recipe.data.train",
      "recipe.limits.watchdogSeconds",
      "recipe.objective.0.loss",
      "recipe.output.folder",
      "recipe.student.model",
      "recipe.student.shape",
      "recipe.teacher.model",
      "recipe.train.steps",
    ]);
    assertStringIncludes(body.error.message, 'did you mean "model"?');
    assertEquals((await test.call("GET", "/v1/runs")).body.data, []);
    for (
      const [recipe, param] of [
        [{}, "recipe.teacher"],
        [{ ...fakeNamed(), train: { steps: "many" } }, "recipe.train.steps"],
        [{ ...fakeNamed(), adapter: { rankPattern: { "(a+)+$": 2 } } }, "recipe.adapter.rankPattern.(a+)+$"],
        [{ ...fakeNamed(), plugins: ["https://evil.example/x.ts"] }, "recipe.plugins"],
      ] as const
    ) {
      const answer = await test.call("POST", "/v1/runs", { recipe });
      assertEquals([answer.status, answer.body.error.param], [400, param]);
    }
  }));

Deno.test("links in folders of models and datasets lead nowhere", () =>
  withService(async (test) => {
    const { folder } = test;
    await Deno.mkdir(`${folder}/secret`);
    await Deno.writeTextFile(`${folder}/secret/config.json`, "{}");
    await Deno.writeTextFile(`${folder}/secret/rows.jsonl`, "{}");
    await Deno.symlink(`${folder}/secret`, `${folder}/models/linked`);
    await Deno.symlink(`${folder}/secret/rows.jsonl`, `${folder}/datasets/linked.jsonl`);
    await Deno.mkdir(`${folder}/models/inner`);
    await Deno.writeTextFile(`${folder}/models/inner/config.json`, "{}");
    await Deno.symlink(`${folder}/secret/rows.jsonl`, `${folder}/models/inner/tokenizer.json`);
    assertEquals((await test.call("GET", "/v1/models")).body.data.map((m: { id: string }) => m.id), [
      "model",
    ]);
    assertEquals((await test.call("GET", "/v1/datasets")).body.data.map((m: { id: string }) => m.id), [
      "train.jsonl",
    ]);
  }));

Deno.test("Idempotency-Key: the same request makes one run, another one with its key is refused", () =>
  withService(async (test) => {
    const send = (recipe: unknown, key = "k1") =>
      test.call("POST", "/v1/runs", { recipe }, { "Idempotency-Key": key });
    const [first, again] = [await send(fakeNamed()), await send(fakeNamed())];
    assertEquals([first.status, again.status, again.body.id], [202, 202, first.body.id]);
    const other = await send(fakeNamed({}, 13));
    assertEquals([other.status, other.body.error.code], [422, "idempotency_key_reused"]);
    const both = await Promise.all([send(fakeNamed(), "k2"), send(fakeNamed(), "k2")]);
    const statuses = both.map(({ status }) => status).sort();
    assertEquals(statuses, [202, 409], "the second came while the first was worked on");
    assertEquals((await send(fakeNamed(), "bad key")).status, 400);
    assertEquals((await test.call("GET", "/v1/runs")).body.data.length, 2);
  }));

Deno.test("runs are paused, resumed and cancelled; what makes no sense in a state is refused with 409", () =>
  withService(async (test) => {
    const id = await submit(test, fakeNamed({ pace: 20 }, 400));
    const waiting = await submit(test, fakeNamed());
    await until(test.service, id, "running");
    assertEquals((await test.call("POST", `/v1/runs/${id}/resume`)).status, 409);
    assertEquals((await test.call("POST", `/v1/runs/${waiting}/pause`)).status, 409);
    assertEquals((await test.call("DELETE", `/v1/runs/${id}`)).status, 409);
    assertEquals((await test.call("POST", `/v1/runs/${waiting}/cancel`)).body.state, "cancelled");
    const paused = await test.call("POST", `/v1/runs/${id}/pause`);
    assertEquals([paused.status, paused.body.asked], [202, "pause"]);
    await until(test.service, id, "paused");
    const resumed = await test.call("POST", `/v1/runs/${id}/resume`);
    assertEquals([resumed.status, resumed.body.state], [202, "queued"]);
    await until(test.service, id, "running");
    await test.call("POST", `/v1/runs/${id}/cancel`);
    await until(test.service, id, "cancelled");
    assertEquals((await test.call("POST", `/v1/runs/${id}/cancel`)).status, 202, "it is what was asked for");
    assertEquals((await test.call("POST", `/v1/runs/${id}/resume`)).status, 409);
    const states = (await test.service.store.events(id, { types: ["state"] })).map((e) =>
      e.type === "state" && e.state
    );
    assertEquals(states, ["queued", "running", "paused", "queued", "running", "cancelled"]);
    await untilIdle(test.service);
    assertEquals((await test.call("DELETE", `/v1/runs/${id}`)).status, 204);
    assertEquals((await test.call("GET", `/v1/runs/${id}`)).status, 404);
  }));

Deno.test("GET /v1/runs pages and filters", () =>
  withService(async (test) => {
    const ids: string[] = [];
    await until(test.service, await submit(test, fakeNamed({ pace: 50 }, 1000)), "running");
    for (let i = 0; i < 5; i++) {
      const answer = await test.call("POST", "/v1/runs", {
        recipe: fakeNamed(),
        metadata: { "n[0]": String(i % 2) },
      });
      ids.unshift(answer.body.id);
    }
    const first = await test.call("GET", "/v1/runs?limit=2&status=queued");
    assertEquals([first.body.data.length, first.body.hasMore], [2, true]);
    const rest = await test.call("GET", `/v1/runs?status=queued&after=${first.body.data[1].id}`);
    const seen = [...first.body.data, ...rest.body.data].map((run) => run.id);
    assertEquals(seen.toSorted(), ids.toSorted());
    assertEquals((await test.call("GET", "/v1/runs?metadata[n[0]]=1")).body.data.length, 2);
    assertEquals((await test.call("GET", "/v1/runs?status=lost")).body.error.param, "status");
    assertEquals((await test.call("GET", "/v1/runs?limit=0")).status, 400);
    assertEquals((await test.call("GET", "/v1/runs?after=none")).status, 404);
  }));

Deno.test("a full queue is answered 429 with Retry-After", () =>
  withService(async (test) => {
    await submit(test, fakeNamed({ pace: 50 }, 1000));
    await until(test.service, (await test.service.store.ids())[0]!, "running");
    await submit(test);
    const { status, headers, body } = await test.call("POST", "/v1/runs", { recipe: fakeNamed() });
    assertEquals([status, body.error.type, headers.get("Retry-After")], [429, "rate_limit_error", "30"]);
  }, { queueLimit: 1 }));

Deno.test("a run that takes too long fails and keeps its checkpoint; one whose model is gone fails at its turn", () =>
  withService(async (test) => {
    const id = await submit(test, fakeNamed({ pace: 20 }, 1000));
    await until(test.service, id, "failed");
    const { body } = await test.call("GET", `/v1/runs/${id}`);
    assertEquals([body.error.code, body.step > 0], ["wall_time", true]);
    assert((await test.call("GET", `/v1/runs/${id}/checkpoints`)).body.data.length > 0);
    const blocking = await submit(test, fakeNamed({ pace: 20 }, 1000));
    await until(test.service, blocking, "running");
    const doomed = await submit(test);
    await Deno.remove(`${test.folder}/datasets/train.jsonl`);
    await until(test.service, doomed, "failed");
    const failed = (await test.call("GET", `/v1/runs/${doomed}`)).body;
    assertEquals(failed.error.code, "bad_input");
    assertStringIncludes(failed.error.message, "data.train");
    assert(!failed.error.message.includes(test.folder));
  }, { caps: { wallSeconds: 1.5 } }));

Deno.test("artifacts have ranges and an ETag; no name leads elsewhere", () =>
  withService(async (test) => {
    const id = await submit(test);
    await untilIdle(test.service);
    const { folder } = (await test.service.store.get(id))!;
    await Deno.mkdir(`${folder}/adapter`, { recursive: true });
    await Deno.writeTextFile(`${folder}/adapter/adapter_config.json`, '{"r":16}');
    const base = JSON.stringify(`${folder}/base`);
    await Deno.mkdir(`${folder}/teacher-adapter`);
    // As PEFT writes it, with numbers that JavaScript would write in another way.
    const config = `{"base_model_name_or_path": ${base}, "lora_dropout": 0.0}`;
    await Deno.writeTextFile(`${folder}/teacher-adapter/adapter_config.json`, config);
    await Deno.symlink("/etc/hostname", `${folder}/adapter/link`);
    const list = (await test.call("GET", `/v1/runs/${id}/artifacts`)).body.data;
    const names = list.map((a: { name: string }) => a.name);
    assert(names.includes("report.html") && names.includes("adapter/adapter_config.json"));
    assert(
      !names.some((name: string) =>
        name.includes("link") || name.includes("recipe") || name.includes("console")
      ),
    );
    const report = await test.request(`/v1/runs/${id}/artifacts/report.html`);
    const html = await report.text();
    assertStringIncludes(html, "<style");
    assertStringIncludes(html, "&quot;train.jsonl&quot;");
    assert(!html.includes(test.folder), "no path of this machine");
    const policy = report.headers.get("Content-Security-Policy")!;
    assertStringIncludes(policy, "style-src 'unsafe-inline'");
    assert(policy.includes("sandbox") && !policy.includes("script-src"), "styled, and no more");
    const url = `/v1/runs/${id}/artifacts/adapter/adapter_config.json`;
    const whole = await test.request(url);
    const etag = whole.headers.get("ETag")!;
    assertEquals([whole.status, await whole.text()], [200, '{"r":16}']);
    assertMatch(etag, /^"[0-9a-f]{64}"$/);
    const send = async (headers: Record<string, string>, path = url) => {
      const response = await test.request(path, { headers });
      return [response.status, await response.text(), response.headers.get("Content-Range")];
    };
    assertEquals(await send({ Range: "bytes=2-4" }), [206, 'r":', "bytes 2-4/8"]);
    assertEquals(await send({ Range: "bytes=-3" }), [206, "16}", "bytes 5-7/8"]);
    assertEquals(await send({ Range: "bytes=6-99" }), [206, "6}", "bytes 6-7/8"]);
    assertEquals((await send({ Range: "bytes=8-" }))[0], 416);
    assertEquals((await send({ Range: "bytes=4-2" }))[0], 200);
    assertEquals((await send({ Range: "bytes=0-1,3-4" }))[0], 200);
    assertEquals((await send({ Range: "bytes=0-1", "If-Range": '"other"' }))[0], 200);
    assertEquals((await send({ "If-None-Match": etag }))[0], 304);
    const shown = '{"base_model_name_or_path": "base", "lora_dropout": 0.0}';
    const other = `/v1/runs/${id}/artifacts/teacher-adapter/adapter_config.json`;
    const told = await test.request(other);
    assertEquals([await told.text(), told.headers.get("Content-Length")], [shown, String(shown.length)]);
    assertEquals(list.find((a: { url: string }) => a.url === other).bytes, shown.length);
    assertEquals(told.headers.get("ETag"), `"${createHash("sha256").update(shown).digest("hex")}"`);
    assertEquals(await send({ Range: "bytes=2-5" }, other), [206, "base", `bytes 2-5/${shown.length}`]);
    const model = JSON.stringify(`${test.folder}/models/model`);
    await Deno.writeTextFile(`${folder}/teacher-adapter/adapter_config.json`, config.replace(base, model));
    assertEquals((await send({}, other))[1], shown.replace('base",', 'model",'));
    assertEquals((await send({}, `/v1/runs/${id}/artifacts/adapter%2Fadapter_config.json`))[1], '{"r":16}');
    for (
      const name of [
        "..%2Fmanifest.json",
        "manifest.json",
        "adapter%2Flink",
        "%2Fetc%2Fpasswd",
        "adapter/../recipe.json",
      ]
    ) {
      assertEquals((await send({}, `/v1/runs/${id}/artifacts/${name}`))[0], 404, name);
    }
  }));

Deno.test("scopes: read looks, submit controls its own, admin controls all", () => {
  const tokens = ["reader read", "ada submit", "bob submit", "root admin"].map((text) => {
    const [name, scope] = text.split(" ") as [string, "read" | "submit" | "admin"];
    return { name, ...newToken(name, scope) };
  });
  const list = TokenList.parse(tokens.map(({ line }) => line).join("\n"), "tokens");
  const as = (name: string) => ({
    Authorization: `Bearer ${tokens.find((token) => token.name === name)!.secret}`,
  });
  return withService(async (test) => {
    const none = await test.call("GET", "/v1/runs");
    assertEquals([none.status, none.body.error.type], [401, "authentication_error"]);
    assertMatch(none.headers.get("WWW-Authenticate")!, /^Bearer/);
    assertEquals(
      (await test.call("GET", "/v1/runs", undefined, { Authorization: "Bearer wrong" })).status,
      401,
    );
    assertEquals((await test.call("POST", "/v1/runs", { recipe: {} }, as("reader"))).status, 403);
    const recipe = fakeNamed({ pace: 20 }, 1000);
    const { status, body: { id, owner } } = await test.call("POST", "/v1/runs", { recipe }, as("ada"));
    assertEquals([status, owner], [202, "ada"]);
    assertEquals((await test.call("GET", `/v1/runs/${id}`, undefined, as("reader"))).status, 200);
    assertEquals(
      (await test.call("POST", `/v1/runs/${id}/cancel`, undefined, as("bob"))).body.error.code,
      "owner",
    );
    assertEquals(
      (await test.call("POST", `/v1/runs/${id}/cancel`, undefined, as("reader"))).body.error.code,
      "scope",
    );
    assertEquals((await test.call("POST", `/v1/runs/${id}/cancel`, undefined, as("root"))).status, 202);
    assertEquals((await test.call("GET", "/healthz")).status, 200);
    assertEquals((await test.call("GET", "/metrics")).status, 401);

    const session = await test.call("POST", "/session", { token: tokens[1]!.secret });
    const cookie = session.headers.get("Set-Cookie")!;
    assertEquals(session.status, 204);
    for (const part of ["HttpOnly", "SameSite=Strict", "Path=/"]) assertStringIncludes(cookie, part);
    const Cookie = cookie.split(";")[0]!;
    assertEquals((await test.call("GET", "/session", undefined, { Cookie })).body, {
      name: "ada",
      scope: "submit",
    });
    assertEquals((await test.call("GET", "/v1/runs", undefined, { Cookie })).status, 200);
    const evil = { Cookie, Origin: "https://evil.example" };
    assertEquals((await test.call("POST", "/v1/runs", { recipe }, evil)).body.error.code, "cross_site");
    const own = { Cookie, Origin: "http://localhost" };
    assertEquals((await test.call("POST", "/v1/runs", { recipe: fakeNamed() }, own)).status, 202);
    assertEquals((await test.call("DELETE", "/session", undefined, { Cookie })).status, 403, "no browser's");
    assertEquals((await test.call("DELETE", "/session", undefined, own)).status, 204);
    assertEquals((await test.call("GET", "/v1/runs", undefined, { Cookie })).status, 401);
  }, { tokens: list });
});

Deno.test("a service that ends in the middle of a run is taken up by the next one, bit for bit", () =>
  withFolder(async (folder) => {
    await prepare(folder);
    const start = async () => {
      const service = await Service.start(defaults(folder));
      const app = createApp(service);
      const call = async (path: string, body?: unknown) => {
        const response = await app.request(path, {
          ...(body
            ? { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }
            : {}),
        });
        return await response.json();
      };
      return { service, call };
    };
    const first = await start();
    const { id } = await first.call("/v1/runs", { recipe: fakeNamed({ pace: 20 }, 60) });
    const queued = await first.call("/v1/runs", { recipe: fakeNamed() });
    await until(first.service, id, "running");
    const { promise, resolve } = Promise.withResolvers<void>();
    const watching = first.service.store.onChange(async () => {
      const run = await first.service.store.get(id);
      if (run && run.step > 12) resolve();
    });
    await promise;
    watching[Symbol.dispose]();
    const other = await Service.start(defaults(folder)).then(() => "", (error) => error.message);
    assertStringIncludes(other, "another service works on this data folder");
    await first.service.close();

    const second = await start();
    await until(second.service, id, "succeeded");
    await until(second.service, queued.id, "succeeded");
    const { store } = second.service;
    const events = await store.events(id);
    assertEquals(events.map(({ seq }) => seq), events.map((_, i) => i + 1));
    const states = events.flatMap((event) => event.type === "state" ? [event.state] : []);
    assertEquals(states, ["queued", "running", "interrupted", "queued", "running", "succeeded"]);
    const steps = (await store.events(id, { types: ["metrics"], holding: true }))
      .map((event) => event.type === "metrics" && event.step);
    assertEquals(steps, Array.from({ length: 60 }, (_, i) => i + 1));
    await second.service.close();
  }));
