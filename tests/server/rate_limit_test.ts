// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import type { MiddlewareHandler } from "hono";
import { identify, needs } from "../../src/server/http/access.ts";
import type { AppEnv } from "../../src/server/http/app_env.ts";
import { rateLimit } from "../../src/server/http/rate_limit.ts";
import { Sessions } from "../../src/server/auth/sessions.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { smallApp } from "./small_app.ts";

const byName: MiddlewareHandler<AppEnv> = async (c, next) => {
  const name = c.req.query("name");
  if (name !== undefined) c.set("identity", { name, scope: "read" });
  await next();
};

/** An app of two requests a second, four at once, on a clock that stands. */
function limited() {
  const clock = { now: 0 };
  const app = smallApp(byName, rateLimit({ perSecond: 2, burst: 4 }, () => clock.now));
  const ask = async (name?: string, address?: string) => {
    const env = address === undefined ? undefined : { remoteAddr: { hostname: address } };
    const response = await app.request(name === undefined ? "/" : `/?name=${name}`, {}, env);
    await response.text();
    return response;
  };
  const statuses = async (count: number, ...who: [string?, string?]) => {
    const all: number[] = [];
    for (let i = 0; i < count; i++) all.push((await ask(...who)).status);
    return all;
  };
  return { clock, ask, statuses };
}

Deno.test("a bucket empties, says when to come back, and fills at its rate", async () => {
  const { clock, ask, statuses } = limited();
  const first = await ask("ada");
  assertEquals(first.headers.get("RateLimit-Policy"), '"requests";q=4;w=2');
  assertEquals(first.headers.get("RateLimit"), '"requests";r=3;t=1');
  assertEquals(await statuses(4, "ada"), [200, 200, 200, 429]);
  const refused = await ask("ada");
  assertEquals(refused.headers.get("Retry-After"), "1");
  assertEquals(refused.headers.get("RateLimit"), '"requests";r=0;t=2');
  clock.now += 499;
  assertEquals(await statuses(1, "ada"), [429]);
  clock.now += 1;
  assertEquals(await statuses(2, "ada"), [200, 429]);
  clock.now += 3_600_000;
  assertEquals(await statuses(5, "ada"), [200, 200, 200, 200, 429], "no more than the burst is saved up");
});

Deno.test("one identity's requests do not count for another; those without one are told apart by address", async () => {
  const { statuses } = limited();
  assertEquals((await statuses(5, "ada")).at(-1), 429);
  assertEquals(await statuses(1, "bob"), [200]);
  assertEquals((await statuses(5, undefined, "192.0.2.1")).at(-1), 429);
  assertEquals(await statuses(1, undefined, "192.0.2.2"), [200]);
  assertEquals(
    await statuses(1, "192.0.2.1"),
    [200],
    "a name that looks like an address is not that address",
  );
  assertEquals((await statuses(5)).at(-1), 429, "without an address all share one");
});

Deno.test("buckets are bounded: whoever was not seen for longest begins anew", async () => {
  const { statuses } = limited();
  assertEquals((await statuses(5, "ada")).at(-1), 429);
  assertEquals((await statuses(5, "bob")).at(-1), 429);
  for (let i = 0; i < 9_998; i++) await statuses(1, undefined, `10.0.${i >> 8}.${i & 255}`);
  assertEquals(await statuses(1, "ada"), [429], "just seen, so kept");
  await statuses(1, undefined, "10.1.0.0");
  assertEquals(await statuses(1, "bob"), [200], "forgotten");
  assertEquals(await statuses(1, "ada"), [429]);
});

Deno.test("tokens cannot be tried out without end", async () => {
  const token = newToken("ada", "read");
  const tokens = TokenList.parse(token.line, "tokens");
  const app = smallApp(
    identify(tokens, new Sessions()),
    rateLimit({ perSecond: 1, burst: 2 }, () => 0),
    needs("read"),
  );
  const ask = async (secret: string) =>
    (await app.request("/", { headers: { Authorization: `Bearer ${secret}` } })).status;
  assertEquals([await ask("a"), await ask("b"), await ask("c")], [401, 401, 429]);
  assertEquals(await ask(token.secret), 200, "whoever has a token is not kept out by that");
});
