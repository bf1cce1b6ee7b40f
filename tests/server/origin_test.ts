// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { checkHost, checkOrigin } from "../../src/server/http/origin.ts";
import { refusal, smallApp } from "./small_app.ts";

Deno.test("Host: names of the service in any spelling pass, all others are misdirected", async () => {
  const app = smallApp(checkHost(new Set(["localhost", "127.0.0.1", "::1", "Distill.example.org"])));
  const status = async (host: string) => (await app.request("/", { headers: { Host: host } })).status;
  for (
    const host of [
      "localhost",
      "localhost:8787",
      "LocalHost:8787",
      "localhost.",
      "localhost.:8787",
      "127.0.0.1:1",
      "[::1]",
      "[::1]:8787",
      "distill.example.org:443",
      "DISTILL.EXAMPLE.ORG.",
    ]
  ) assertEquals(await status(host), 200, host);
  for (
    const host of [
      "evil.example",
      "evil.example:8787",
      "localhost.evil.example",
      "evil.example.localhost",
      "localhost..",
      "localhost@evil.example",
      "evil.example#localhost",
      "localhost, evil.example",
      "localhost:",
      "localhost:8787:8787",
      "localhost:123456",
      "localhost/",
      "::1",
      "[::1",
      "[::ffff:127.0.0.1]",
      "0.0.0.0",
      "127.1",
      "2130706433",
      "",
    ]
  ) {
    const answer = app.request("/", { headers: { Host: host } });
    assertEquals(await refusal(answer), [421, "unknown_host"], host);
  }
  assertEquals(
    (await app.request("http://evil.example/")).status,
    421,
    "by its URL where there is no header",
  );
  assertEquals(
    (await app.request("/", { headers: { Host: "evil.example", "X-Forwarded-Host": "localhost" } })).status,
    421,
  );
});

Deno.test("a page of another site, or of another port, may change nothing", async () => {
  const app = smallApp(checkOrigin(new Set(["https://lab.example"])));
  const Host = "localhost:8787";
  const send = (headers: Record<string, string>, method = "POST") =>
    app.request("/", { method, headers: { Host, ...headers } });
  const cookie = { Cookie: "limbeck_session=x" };
  for (
    const headers of <Record<string, string>[]> [
      {},
      { Authorization: "Bearer x" },
      { ...cookie, Authorization: "Bearer x" },
      { Origin: "http://localhost:8787" },
      { Origin: "https://localhost:8787" },
      { ...cookie, Origin: "http://localhost:8787", "Sec-Fetch-Site": "same-origin" },
      { ...cookie, "Sec-Fetch-Site": "same-origin" },
      { "Sec-Fetch-Site": "none" },
      { Origin: "https://lab.example", "Sec-Fetch-Site": "cross-site" },
    ]
  ) assertEquals((await send(headers)).status, 200, JSON.stringify(headers));
  for (
    const headers of <Record<string, string>[]> [
      { Origin: "null" },
      { Origin: "" },
      { Origin: "https://evil.example" },
      { Origin: "http://localhost" },
      { Origin: "http://localhost:3000" },
      { Origin: "http://localhost:87870" },
      { Origin: "http://evil@localhost:8787" },
      { Origin: "http://localhost:8787/" },
      { Origin: "http://localhost:8787, http://evil.example" },
      { Origin: "http://evil.example, http://localhost:8787" },
      { Origin: "https://lab.example.evil.example" },
      { Origin: "file://" },
      { Origin: "https://evil.example", "Sec-Fetch-Site": "same-origin" },
      { Origin: "http://localhost:8787", "Sec-Fetch-Site": "cross-site" },
      { "Sec-Fetch-Site": "cross-site" },
      { "Sec-Fetch-Site": "same-site" },
      { "Sec-Fetch-Site": "" },
      cookie,
    ]
  ) {
    for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
      assertEquals(await refusal(send(headers, method)), [403, "cross_site"], JSON.stringify(headers));
    }
    for (const method of ["GET", "OPTIONS"]) assertEquals((await send(headers, method)).status, 200);
  }
});
