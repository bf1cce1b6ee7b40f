// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { checkBinding } from "../../src/server/listen.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";

Deno.test("an address that others can reach needs a token", () => {
  const none = new TokenList([]);
  const some = TokenList.parse(newToken("ada", "admin").line, "tokens");
  const own = ["127.0.0.1", "127.0.0.53", "::1", "localhost"];
  const open = [
    "0.0.0.0",
    "::",
    "",
    "0",
    "192.168.1.5",
    "10.0.0.1",
    "fe80::1",
    "::ffff:127.0.0.1",
    "128.0.0.1",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "distill.example.org",
    "127.0.0.1\n0.0.0.0",
  ];
  for (const host of own) {
    checkBinding(host, none);
    // A proxy on this machine hands on what comes from elsewhere.
    assertThrows(() => checkBinding(host, none, ["lab.example"]), InputError, "lab.example");
    checkBinding(host, some, ["lab.example"]);
  }
  for (const host of open) {
    const error = assertThrows(() => checkBinding(host, none), InputError) as InputError;
    assertStringIncludes(error.message, "no token");
    assertStringIncludes(error.hint!, "limbeck token");
    assertEquals(error.exitCode, 3);
    checkBinding(host, some);
  }
});
