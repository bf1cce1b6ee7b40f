// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch } from "@std/assert";
import { identify } from "../../src/server/http/access.ts";
import { logRequests, logToStderr, requestId } from "../../src/server/http/request_log.ts";
import { Sessions } from "../../src/server/auth/sessions.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { smallApp } from "./small_app.ts";

const token = newToken("ada", "submit");

function logged() {
  const lines: Record<string, unknown>[] = [];
  const sessions = new Sessions();
  const app = smallApp(
    requestId(),
    logRequests((line) => lines.push(line)),
    identify(TokenList.parse(token.line, "tokens"), sessions),
  );
  return { app, lines, sessions };
}

Deno.test("a request is one line: its route and who sent it, but no secret", async () => {
  const { app, lines, sessions } = logged();
  const session = sessions.begin({ name: "ada", scope: "submit" });
  await app.request("/items/secret-id?token=secret-query", {
    method: "POST",
    headers: { Authorization: `Bearer ${token.secret}`, "X-Request-Id": "from-outside_1.2" },
    body: "secret-body",
  });
  await app.request("/broken", { headers: { Cookie: `limbeck_session=${session}` } });
  await app.request("/none", { headers: { Authorization: "Bearer secret-wrong" } });
  const [item, broken, none] = lines;
  const { milliseconds, ...rest } = item!;
  assert(typeof milliseconds === "number" && milliseconds >= 0);
  assertEquals(rest, {
    level: "info",
    message: "request",
    method: "POST",
    route: "/items/:id",
    status: 200,
    identity: "ada",
    request: "from-outside_1.2",
  });
  assertEquals([broken!.level, broken!.status, broken!.identity], ["error", 500, "ada"]);
  assertEquals([none!.status, none!.identity], [404, null]);
  const text = JSON.stringify(lines);
  for (const secret of ["secret", token.secret, session]) assert(!text.includes(secret), secret);
});

Deno.test("an id from outside is taken only if it is well formed", async () => {
  const { app, lines } = logged();
  const given = [
    "abc",
    "a".repeat(64),
    "a".repeat(65),
    "a b",
    'a","level":"error',
    "a<b>",
    "%0d%0a",
    "ä",
    "",
  ];
  for (const id of given) await app.request("/", { headers: { "X-Request-Id": id } });
  const ids = lines.map((line) => line.request as string);
  assertEquals(ids.slice(0, 2), given.slice(0, 2));
  for (const id of ids.slice(2)) assertMatch(id, /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
  assertEquals(new Set(ids).size, ids.length);
});

Deno.test("a line of the log is one line of JSON, whatever is in it", () => {
  const written: unknown[][] = [];
  const { error } = console;
  console.error = (...parts) => written.push(parts);
  try {
    logToStderr({ level: "error", message: 'two\nlines"}\r\n{"level":"info"' });
  } finally {
    console.error = error;
  }
  const [[line]] = written as [[string]];
  assert(!/[\r\n]/.test(line));
  const { time, ...rest } = JSON.parse(line);
  assertEquals(rest, { level: "error", message: 'two\nlines"}\r\n{"level":"info"' });
  assertMatch(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
});
