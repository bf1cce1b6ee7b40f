// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch } from "@std/assert";
import { secureHeaders } from "../../src/server/http/headers.ts";
import { HttpError } from "../../src/server/http/http_error.ts";
import { requestId } from "../../src/server/http/request_log.ts";
import { smallApp } from "./small_app.ts";

const origins = new Set(["https://lab.example"]);

Deno.test("every answer, also an error, tells a browser to do as little as possible with it", async () => {
  const app = smallApp(requestId(), secureHeaders());
  app.get("/refused", () => {
    throw new HttpError(400, "no");
  });
  for (const [path, status] of [["/", 200], ["/refused", 400], ["/broken", 500], ["/none", 404]] as const) {
    const { headers, status: got } = await app.request(path);
    assertEquals(got, status);
    const directives = headers.get("Content-Security-Policy")!.split("; ");
    for (
      const directive of [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
      ]
    ) assert(directives.includes(directive), `${path}: ${directive}`);
    assert(!/unsafe|\*|http/.test(directives.join()), "nothing inline, nothing from elsewhere");
    assertEquals(
      [
        "X-Content-Type-Options",
        "X-Frame-Options",
        "Referrer-Policy",
        "Cross-Origin-Resource-Policy",
        "Cache-Control",
      ]
        .map((name) => headers.get(name)),
      ["nosniff", "DENY", "no-referrer", "same-origin", "no-store"],
    );
    assertMatch(headers.get("X-Request-Id")!, /^[0-9a-f-]{36}$/);
    assertEquals(headers.get("Access-Control-Allow-Origin"), null);
  }
});

Deno.test("an answer that says how long it may be kept is left that way", async () => {
  const app = smallApp(requestId(), secureHeaders());
  app.get("/kept", (c) => c.body("", 200, { "Cache-Control": "private, max-age=60" }));
  assertEquals((await app.request("/kept")).headers.get("Cache-Control"), "private, max-age=60");
});

Deno.test("CORS is for the origins that are allowed, exactly, and never for cookies", async () => {
  const app = smallApp(requestId(), secureHeaders(origins));
  const { headers } = await app.request("/", { headers: { Origin: "https://lab.example" } });
  assertEquals(headers.get("Access-Control-Allow-Origin"), "https://lab.example");
  assertEquals(headers.get("Access-Control-Allow-Credentials"), null);
  assertEquals(headers.get("Vary"), "Origin");
  for (
    const Origin of [
      "null",
      "https://evil.example",
      "https://lab.example.evil.example",
      "http://lab.example",
      "https://LAB.example",
    ]
  ) {
    const { headers } = await app.request("/", { headers: { Origin } });
    assertEquals(headers.get("Access-Control-Allow-Origin"), null, Origin);
    assertEquals(headers.get("Vary"), "Origin", "a cache must tell them apart");
  }
});

Deno.test("a preflight is answered for allowed origins only", async () => {
  const app = smallApp(requestId(), secureHeaders(origins));
  const ask = (Origin: string) =>
    app.request("/none", { method: "OPTIONS", headers: { Origin, "Access-Control-Request-Method": "POST" } });
  const allowed = await ask("https://lab.example");
  assertEquals([allowed.status, allowed.headers.get("Access-Control-Allow-Origin")], [
    204,
    "https://lab.example",
  ]);
  assertMatch(allowed.headers.get("Access-Control-Allow-Headers")!, /Authorization/);
  const refused = await ask("https://evil.example");
  assertEquals([refused.status, refused.headers.get("Access-Control-Allow-Origin")], [404, null]);
});
