/** What a generated entry is given: its modules are fetched once, and those of plugins each time. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { prepareEntry } from "../../src/runs/child/entry.ts";

/** Processes that `work` starts. */
async function started(work: () => Promise<unknown>): Promise<number> {
  const { Command } = Deno;
  let count = 0;
  Deno.Command = class extends Command {
    constructor(...of: ConstructorParameters<typeof Command>) {
      super(...of);
      count++;
    }
  };
  try {
    await work();
  } finally {
    Deno.Command = Command;
  }
  return count;
}

Deno.test("modules of an entry are asked for once, and again where its text is another or a plugin is in it", async () => {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "limbeck-" }));
  try {
    const plugin = `${folder}/plugin.ts`;
    await Deno.writeTextFile(plugin, "export default 1;\n");
    const entry = (name: string, text: string, plugins: string[] = []) =>
      started(() => prepareEntry(`${folder}/${name}`, `// ${text}\n`, plugins));
    const text = `once ${folder}`;
    assertEquals([await entry("a", text), await entry("b", text), await entry("c", "other")], [1, 0, 1]);
    assertEquals(await Deno.readTextFile(`${folder}/b/entry.ts`), `// ${text}\n`);
    assertEquals([await entry("d", text, [plugin]), await entry("e", text, [plugin])], [1, 1]);
    await Deno.writeTextFile(plugin, 'import "./gone.ts";\n');
    await assertRejects(() => entry("f", text, [plugin]), InputError, "a plugin cannot be loaded");
    // What failed is no answer for later.
    const broken = () => prepareEntry(`${folder}/g`, `import "${folder}/gone.ts";\n`, []);
    for (let i = 0; i < 2; i++) await assertRejects(broken, Error, "the process cannot be loaded");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
