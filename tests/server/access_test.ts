// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { identify, needs } from "../../src/server/http/access.ts";
import { Sessions } from "../../src/server/auth/sessions.ts";
import { newToken, type Scope, TokenList } from "../../src/server/auth/tokens.ts";
import { refusal, smallApp } from "./small_app.ts";

const ada = newToken("ada", "submit");
const list = TokenList.parse(ada.line, "tokens");

function guarded(scope: Scope, tokens = list, sessions = new Sessions()) {
  const app = smallApp(identify(tokens, sessions), needs(scope));
  return (headers: HeadersInit = {}) => app.request("/", { headers });
}

Deno.test("a bearer token is its holder's identity", async () => {
  const ask = guarded("submit");
  for (const scheme of ["Bearer", "bearer", "BEARER"]) {
    const response = await ask({ Authorization: `${scheme} ${ada.secret}` });
    assertEquals(await response.json(), { identity: { name: "ada", scope: "submit" } });
  }
});

Deno.test("without a token, or with one that is not known, the answer is 401 and names the scheme", async () => {
  const ask = guarded("read");
  const none = await ask();
  assertEquals(none.headers.get("WWW-Authenticate"), 'Bearer realm="limbeck"');
  assertEquals(await refusal(none), [401, "unauthorized"]);
  const duplicate = new Headers();
  duplicate.append("Authorization", `Bearer ${ada.secret}`);
  duplicate.append("Authorization", `Bearer ${ada.secret}`);
  for (
    const headers of [
      { Authorization: "Bearer wrong" },
      { Authorization: "Bearer" },
      { Authorization: "" },
      { Authorization: ada.secret },
      { Authorization: `Basic ${btoa(`ada:${ada.secret}`)}` },
      { Authorization: `Bearer  ${ada.secret}` },
      { Authorization: `Bearer ${ada.secret} x` },
      { Authorization: `Bearer wrong, Bearer ${ada.secret}` },
      { Authorization: `Bearer ${"x".repeat(10_000)}` },
      duplicate,
    ]
  ) {
    const response = await ask(headers);
    assertMatch(response.headers.get("WWW-Authenticate")!, /^Bearer realm="limbeck", error="invalid_token"$/);
    assertEquals(await refusal(response), [401, "unauthorized"]);
  }
});

Deno.test("a scope that is missing is named, with 403", async () => {
  const response = await guarded("admin")({ Authorization: `Bearer ${ada.secret}` });
  assertStringIncludes(
    response.headers.get("WWW-Authenticate")!,
    'error="insufficient_scope", scope="admin"',
  );
  const text = await response.clone().text();
  assertStringIncludes(text, "scope admin; yours has submit");
  assertEquals(await refusal(response), [403, "scope"]);
});

Deno.test("a session's cookie stands for its token; a forged one and one beside a wrong token do not", async () => {
  const sessions = new Sessions();
  const ask = guarded("read", list, sessions);
  const id = sessions.begin({ name: "ada", scope: "submit" });
  assertEquals((await ask({ Cookie: `a=b; limbeck_session=${id}` })).status, 200);
  for (const forged of ["", "x", id.slice(1), `${id}x`, id.toLowerCase(), encodeURIComponent(`"${id}"`)]) {
    assertEquals((await ask({ Cookie: `limbeck_session=${forged}` })).status, 401, forged);
  }
  const both = await ask({ Cookie: `limbeck_session=${id}`, Authorization: "Bearer wrong" });
  assertEquals(await refusal(both), [401, "unauthorized"]);
});

Deno.test("without tokens everyone is an administrator; a header changes nothing", async () => {
  const ask = guarded("admin", new TokenList([]));
  assertEquals((await ask()).status, 200);
  assertEquals((await ask({ Authorization: "Bearer wrong" })).status, 200);
});
