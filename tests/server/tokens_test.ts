// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import {
  hashOf,
  isAllowed,
  isOpenToOthers,
  newToken,
  SCOPES,
  TokenList,
} from "../../src/server/auth/tokens.ts";

Deno.test("a token is known by its secret and by nothing that resembles it", () => {
  const [ada, root] = [newToken("ada", "submit"), newToken("root", "admin")];
  const list = TokenList.parse(`# who\n\n  ${ada.line}\r\n${root.line}`, "tokens");
  assertEquals(list.identify(ada.secret), { name: "ada", scope: "submit" });
  assertEquals(list.identify(root.secret), { name: "root", scope: "admin" });
  const hash = hashOf(ada.secret).toString("hex");
  for (
    const wrong of [
      "",
      ada.secret.slice(0, -1),
      `${ada.secret} `,
      ada.secret.toUpperCase(),
      hash,
      `sha256:${hash}`,
      "x".repeat(1 << 20),
    ]
  ) assertEquals(list.identify(wrong), undefined);
});

Deno.test("a secret is not in its line, and no two are the same", () => {
  const [one, other] = [newToken("ada", "read"), newToken("ada", "read")];
  assert(!one.line.includes(one.secret) && one.secret !== other.secret);
  assertMatch(one.line, /^ada read sha256:[0-9a-f]{64}$/);
  assertMatch(one.secret, /^limbeck_[A-Za-z0-9_-]{32}$/);
  for (const name of ["", "Ada", "a b", "ada\nroot admin", "../ada", "a".repeat(65)]) {
    assertThrows(() => newToken(name, "read"), InputError);
  }
});

Deno.test("every token is compared, wherever the right one is", () => {
  let compared = 0;
  const known = ["first", "second", "third"].map((name) => ({
    name,
    scope: "read" as const,
    get hash() {
      compared++;
      return hashOf(name);
    },
  }));
  const list = new TokenList(known);
  for (const secret of ["first", "third", "none", ""]) {
    compared = 0;
    list.identify(secret);
    assertEquals(compared, 3, secret);
  }
});

Deno.test("a token file says where it is wrong", () => {
  const { line } = newToken("ada", "submit");
  const hash = line.split(" ")[2]!;
  for (
    const [text, where, why] of [
      ["", "tokens", "has no tokens"],
      [`# ${line}\n`, "tokens", "has no tokens"],
      [`${line}\nbob`, "tokens:2", "is no token"],
      [`ada write ${hash}`, "tokens:1", "is no token"],
      [`ada read,submit ${hash}`, "tokens:1", "is no token"],
      [`ada admin ${hash.slice(0, -1)}`, "tokens:1", "is no token"],
      [`ada admin ${hash.toUpperCase()}`, "tokens:1", "is no token"],
      ["ada admin limbeck_secretinplaintext", "tokens:1", "is no token"],
      [`${line}\n${newToken("ada", "read").line}`, "tokens:2", "two tokens named ada"],
      [`${line}\nbob admin ${hash}`, "tokens:2", "bob has the same token as ada"],
    ] as const
  ) {
    const error = assertThrows(() => TokenList.parse(text, "tokens"), InputError) as InputError;
    assertEquals(error.where, where, text);
    assertStringIncludes(error.message, why);
    assert(!error.message.includes("plaintext"), "what may be a secret is not repeated");
  }
});

Deno.test("scopes include those before them", () => {
  const table = SCOPES.map((scope) => SCOPES.map((needed) => isAllowed({ name: "", scope }, needed)));
  assertEquals(table, [[true, false, false], [true, true, false], [true, true, true]]);
});

Deno.test({
  name: "a token file that others may read or change is noticed",
  ignore: Deno.build.os === "windows",
  async fn() {
    const path = await Deno.makeTempFile();
    try {
      for (
        const [mode, isOpen] of [[0o600, false], [0o400, false], [0o640, true], [0o604, true], [0o620, true]]
      ) {
        await Deno.chmod(path, mode as number);
        assertEquals(await isOpenToOthers(path), isOpen, `0o${mode!.toString(8)}`);
      }
    } finally {
      await Deno.remove(path);
    }
  },
});
