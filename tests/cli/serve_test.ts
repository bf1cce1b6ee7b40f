/** What `limbeck serve` and `limbeck token` refuse, and that a service answers where it was told to listen. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { TokenList } from "../../src/server/auth/tokens.ts";
import { readLines } from "../../src/runs/child/lines.ts";
import { withFolder } from "../runs/fake_run.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

Deno.test("serve refuses what would leave the door open, before it begins anything", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/empty`, "# all taken away\n");
    const data = `${folder}/service`;
    for (
      const [flags, code, why] of [
        [["--host", "0.0.0.0"], 3, "there is no token"],
        [["--host", "::"], 3, "there is no token"],
        [["--tokens", `${folder}/empty`], 3, "has no tokens"],
        [["--tokens", `${folder}/none`], 3, "there is no such file"],
        [["--public-host", "https://lab.example"], 2, "--public-host"],
        [["--public-host", "lab.example"], 3, "there is no token"],
        [["--origin", "lab.example"], 2, "--origin"],
        [["--origin", "https://lab.example/"], 2, "such as https://lab.example,"],
        [["--origin", "*"], 2, "--origin"],
        [["--origin", "null"], 2, "--origin"],
      ] as const
    ) {
      const { code: got, err } = await limbeck("serve", "--no-setup", "--data", data, ...flags);
      assertEquals(got, code, flags.join(" "));
      assertStringIncludes(err, why);
    }
    assertEquals(await Deno.stat(data).catch(() => "none"), "none");
  }));

Deno.test("token makes a line that a service takes, and tells the secret apart from it", async () => {
  const { code, out, err } = await limbeck("token", "ada", "--scope", "admin");
  assertEquals(code, 0);
  const secret = /limbeck_\S+/.exec(err)![0];
  assertEquals(TokenList.parse(out, "tokens").identify(secret), { name: "ada", scope: "admin" });
  assert(!out.includes(secret), "what goes into the file holds no secret");
  const json = JSON.parse((await limbeck("token", "bob", "--json")).out);
  assertEquals(TokenList.parse(json.line, "tokens").identify(json.token), { name: "bob", scope: "submit" });
  assertEquals((await limbeck("token", "ada", "--scope", "root")).code, 2);
  assertEquals((await limbeck("token", "Ada Lovelace")).code, 3);
  assertEquals((await limbeck("token")).code, 2);
});

Deno.test({
  name: "a service answers by the address that it listens on, and warns of a token file that others may read",
  // Elsewhere 127.0.0.2 is no address of the machine.
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withFolder(async (folder) => {
      const { out } = await limbeck("token", "ada", "--scope", "read");
      await Deno.writeTextFile(`${folder}/tokens`, out, { mode: 0o644 });
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", new URL("../../src/cli/main.ts", import.meta.url).href, "serve", "--json"].concat(
          ["--host", "127.0.0.2", "--port", "0", "--no-setup"],
          ["--data", `${folder}/service`, "--tokens", `${folder}/tokens`],
        ),
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      const said = new Response(child.stderr).text();
      try {
        for await (const line of readLines(child.stdout)) {
          const { url } = JSON.parse(line);
          const response = await fetch(`${url}healthz`);
          assertEquals([response.status, await response.json()], [200, { status: "ok" }]);
          const session = await fetch(`${url}session`);
          await session.body!.cancel();
          assert(session.headers.has("RateLimit-Policy"));
          break;
        }
      } finally {
        child.kill("SIGINT");
        assertEquals((await child.status).code, 0);
      }
      assertStringIncludes(await said, `chmod 600 ${folder}/tokens`);
    }),
});
