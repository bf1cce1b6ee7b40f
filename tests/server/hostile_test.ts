/** Requests that nobody means well with, against the whole service: always a 4xx, always in the one shape of errors. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { fakeNamed, type TestService, withService } from "./harness.ts";
import { refusal } from "./small_app.ts";

const token = newToken("ada", "submit");
const tokens = TokenList.parse(token.line, "tokens");
const Authorization = `Bearer ${token.secret}`;
const json = { Authorization, "Content-Type": "application/json" };

const post = (test: TestService, path: string, body: BodyInit | null, headers: HeadersInit = json) =>
  test.request(path, { method: "POST", body, headers });

/** JSON that is sent piece by piece, without a length; `sent` counts what was asked for. */
function endless(megabytes: number) {
  const count = { sent: 0 };
  const piece = new Uint8Array(1 << 16).fill(0x61);
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode('{"recipe":{"a":"')),
    pull(controller) {
      if ((count.sent += piece.length) > megabytes << 20) controller.close();
      else controller.enqueue(piece);
    },
  }, { highWaterMark: 0 });
  return { body, count };
}

Deno.test("a body that is too long is refused, with a length and without, and is not read to its end", () =>
  withService(async (test) => {
    for (const path of ["/v1/runs", "/v1/runs/validate", "/session"]) {
      const { body, count } = endless(64);
      assertEquals(await refusal(post(test, path, body)), [413, "too_large"], path);
      assert(count.sent < 3 << 20, `${count.sent} bytes were read`);
    }
    const long = { ...json, "Content-Length": String(1 << 30) };
    assertEquals(await refusal(post(test, "/v1/runs", "{}", long)), [413, "too_large"]);
    const form = { Authorization, "Content-Type": "multipart/form-data; boundary=x" };
    const upload = endless(64);
    assertEquals(await refusal(post(test, "/v1/files", upload.body, form)), [413, "too_large"]);
    assert(upload.count.sent < 3 << 20);
  }, { tokens, uploads: { fileBytes: 1 << 20 } }));

Deno.test("a body that is no JSON, or not said to be, is refused", () =>
  withService(async (test) => {
    for (
      const body of [
        "",
        "{",
        "null",
        "[]",
        '"x"',
        "1",
        "{'a':1}",
        '{"__proto__":{"recipe":{}}}',
        '{"recipe":{"__proto__":{"teacher":1}}}',
        '{"recipe":{"constructor":{"prototype":{}}}}',
        new Uint8Array([0xff, 0xfe, 0x7b]),
        "[".repeat(100_000),
      ]
    ) {
      const [status] = await refusal(post(test, "/v1/runs", body));
      assertEquals(status, 400, String(body).slice(0, 40));
    }
    for (
      const type of [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "text/plain; application/json",
        "",
      ]
    ) {
      const answer = post(test, "/v1/runs", '{"recipe":{}}', { Authorization, "Content-Type": type });
      assertEquals(await refusal(answer), [415, "content_type"], type);
    }
    const untyped = new TextEncoder().encode('{"recipe":{}}');
    assertEquals(await refusal(post(test, "/v1/runs", untyped, { Authorization })), [415, "content_type"]);
    assertEquals(await refusal(post(test, "/v1/files", "{}")), [415, "content_type"]);
    const plain = { Authorization, "Content-Type": "text/plain" };
    const bodiless = post(test, "/v1/runs/x/cancel", "x", plain);
    assertEquals(await refusal(bodiless), [415, "content_type"], "also where no body is wanted");
  }, { tokens }));

Deno.test("patterns of layers cannot hold a process up: what is no such pattern is refused with its place", () =>
  withService(async (test) => {
    for (const path of ["/v1/runs", "/v1/runs/validate", "/v1/runs/estimate", "/v1/data/preview"]) {
      for (const field of ["rankPattern", "alphaPattern"]) {
        for (const pattern of ["(", "(a+)+$", "(.*)*x", "[a-z]+", "a".repeat(5000)]) {
          const recipe = { ...fakeNamed(), adapter: { [field]: { [pattern]: 2 } } };
          const answer = await test.call("POST", path, { recipe }, { Authorization });
          assertEquals(answer.status, 400, `${path} ${field} ${pattern.slice(0, 20)}`);
          assertEquals(answer.body.error.param, `recipe.adapter.${field}.${pattern}`);
        }
      }
    }
  }, { tokens }));

Deno.test("a route that is not there is 404, a method that is not is 405 with those that are", () =>
  withService(async (test) => {
    const headers = { Authorization };
    for (const path of ["/none", "/v1/none", "/v1/runs/x/none", "//v1/runs", "/v1/runs/", "/V1/runs"]) {
      assertEquals((await refusal(test.request(path, { headers })))[0], 404, path);
    }
    for (
      const [method, path, allow] of [
        ["DELETE", "/v1/runs", "HEAD, GET, POST"],
        ["PUT", "/v1/runs/x", "HEAD, GET, DELETE"],
        ["GET", "/v1/runs/validate/", ""],
        ["PATCH", "/healthz", "HEAD, GET"],
        ["PROPFIND", "/healthz", "HEAD, GET"],
      ] as const
    ) {
      const response = await test.request(path, { method, headers });
      assertEquals(response.headers.get("Allow") ?? "", allow, `${method} ${path}`);
      assertEquals(await refusal(response), allow ? [405, "method"] : [404, "unknown_route"]);
    }
  }, { tokens }));

Deno.test("ids that lead elsewhere lead nowhere", () =>
  withService(async (test) => {
    for (
      const id of [
        "%00",
        "%E0%A4%A",
        "..%2F..%2Fetc",
        "%2e%2e",
        "a".repeat(5000),
        "'%20OR%201=1--",
        "__proto__",
        "%0d%0aX-Evil:%201",
      ]
    ) {
      for (const path of [`/v1/runs/${id}`, `/v1/runs/${id}/events`, `/v1/files/${id}`, `/v1/models/${id}`]) {
        const response = await test.request(path, { headers: { Authorization } });
        assertEquals(response.headers.get("X-Evil"), null);
        const [status] = await refusal(response);
        assert(status === 404 || status === 400, `${path.slice(0, 60)}: ${status}`);
      }
    }
  }, { tokens }));

Deno.test("a failure inside is logged with its request, and the client is told nothing of it", () => {
  const lines: Readonly<Record<string, unknown>>[] = [];
  return withService(async (test) => {
    test.service.store.get = () => Promise.reject(new Error("the secret /srv/data/limbeck.sqlite is locked"));
    const response = await test.request("/v1/runs/x", { headers: { Authorization, "X-Request-Id": "r1" } });
    const text = await response.clone().text();
    assertEquals(await refusal(response), [500, "internal"]);
    assert(!/secret|srv|sqlite/.test(text), text);
    const line = lines.find(({ request, stack }) => request === "r1" && stack !== undefined)!;
    assertStringIncludes(String(line.message), "secret");
    assert(!JSON.stringify(lines).includes(token.secret));
  }, { tokens, log: (line) => lines.push(line) });
});

Deno.test("every route but those that are meant for all needs a token", () =>
  withService(async (test) => {
    const { paths } = (await test.call("GET", "/openapi.json")).body as {
      paths: Record<string, Record<string, unknown>>;
    };
    const open: string[] = [];
    for (const [path, methods] of Object.entries(paths)) {
      for (const method of Object.keys(methods)) {
        const url = path.replace(/\{[^}]+\}/g, "x");
        const { status } = await test.call(method.toUpperCase(), url, method === "post" ? {} : undefined);
        if (status !== 401) open.push(`${method} ${path}`);
      }
    }
    assertEquals(open.sort(), [
      "delete /session",
      "get /healthz",
      "get /readyz",
      "get /session",
      "post /session",
    ]);
  }, { tokens }));
