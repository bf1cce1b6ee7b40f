// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { SESSION_SECONDS, Sessions } from "../../src/server/auth/sessions.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { fakeNamed, withService } from "./harness.ts";

const ada = { name: "ada", scope: "submit" } as const;
const bob = { name: "bob", scope: "read" } as const;

Deno.test("a session ends after its time, or when it is ended", () => {
  let now = 1e12;
  const sessions = new Sessions(() => now);
  const [one, other] = [sessions.begin(ada), sessions.begin(bob)];
  assert(one !== other && one.length >= 32);
  now += SESSION_SECONDS * 1000 - 1;
  assertEquals([sessions.identify(one), sessions.identify(other)], [ada, bob]);
  sessions.end(other);
  assertEquals([sessions.identify(one), sessions.identify(other)], [ada, undefined]);
  now += 1;
  assertEquals(sessions.identify(one), undefined);
  now -= 1;
  assertEquals(sessions.identify(one), undefined, "what has ended does not come back");
});

Deno.test("many sessions of one end that one's oldest, and nobody else's", () => {
  const sessions = new Sessions(() => 0);
  const others = sessions.begin(bob);
  const own = Array.from({ length: 101 }, () => sessions.begin(ada));
  assertEquals(sessions.identify(own[0]!), undefined);
  assertEquals([sessions.identify(own[1]!), sessions.identify(own[100]!)], [ada, ada]);
  assertEquals(sessions.identify(others), bob);
});

Deno.test("POST /session sets a cookie that scripts cannot read; Secure where it is https", () => {
  const token = newToken("ada", "submit");
  return withService(async (test) => {
    const attributes = async (headers: Record<string, string>) => {
      const answer = await test.call("POST", "/session", { token: token.secret }, headers);
      assertEquals(answer.status, 204);
      const [cookie, ...rest] = answer.headers.get("Set-Cookie")!.split("; ");
      assert(!cookie!.includes(token.secret));
      return rest.sort();
    };
    const plain = ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Strict"];
    assertEquals(await attributes({}), plain);
    assertEquals(await attributes({ "X-Forwarded-Proto": "https" }), [...plain, "Secure"]);
    for (const body of [{ token: "wrong" }, { token: "" }, { token: 1 }, {}, { token: token.secret, x: 1 }]) {
      const { status, headers } = await test.call("POST", "/session", body);
      assertEquals([status < 500 && status >= 400, headers.get("Set-Cookie")], [true, null]);
    }
    const foreign = { Origin: "https://evil.example" };
    const { body } = await test.call("POST", "/session", { token: token.secret }, foreign);
    assertEquals(body.error.code, "cross_site", "no other site logs a browser in");
  }, { tokens: TokenList.parse(token.line, "tokens") });
});

Deno.test("without tokens there is no session to keep: a program that keeps cookies goes on as before", () =>
  withService(async (test) => {
    const begun = await test.call("POST", "/session", { token: "any" });
    const cookie = begun.headers.get("Set-Cookie");
    assertEquals([begun.status, cookie], [204, null]);
    const Cookie = cookie?.split(";")[0] ?? "none=1";
    const answer = await test.call("POST", "/v1/runs", { recipe: fakeNamed() }, { Cookie });
    assertEquals(answer.status, 202);
    assertEquals((await test.call("GET", "/session")).body, { name: "", scope: "admin" });
  }));
