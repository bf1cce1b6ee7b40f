/** The chains of examples/chains are whole: all that they name is there, in the right order. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl } from "@std/path";
import { main } from "../../src/cli/main.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";

const folder = fromFileUrl(new URL("../../examples/chains", import.meta.url));

for (const { name } of Deno.readDirSync(folder)) {
  if (!/\.ya?ml$/.test(name)) continue;
  Deno.test(`examples/chains/${name} can be begun`, async () => {
    const data = await Deno.makeTempDir();
    try {
      const terminal = fakeTerminal();
      const args = ["chain", `${folder}/${name}`, "--data", data, "--dry-run", "--json"];
      assertEquals(await main(args, terminal), 0, terminal.err);
      const { steps } = JSON.parse(terminal.out);
      assertEquals(steps.map(({ done }: { done: boolean }) => done), steps.map(() => false));
      assertEquals([...Deno.readDirSync(data)], []);
    } finally {
      await Deno.remove(data, { recursive: true });
    }
  });
}
