/** A chain that cuts a model, trains what is left and merges the two: what each step leaves is what the next one takes. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { namesIn, valuesOf } from "../merge/tiny_merge.ts";
import { fakeTerminal } from "./fake_terminal.ts";

Deno.test({
  name: "a model is cut, mended and merged with itself in one chain, by folder and by shape",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withTiny(async (files) => {
      const { folder, teacher, heldOut } = files;
      const recipe = tinyRecipe(files);
      const mend = (student: object) => ({
        ...recipe,
        student,
        train: { ...recipe.train, steps: 2, warmup: 0 },
      });
      await Deno.writeTextFile(
        `${folder}/chain.json`,
        JSON.stringify({
          steps: [
            { name: "cut", task: "shrink", model: teacher, data: heldOut, layers: 2, search: "exhaustive" },
            { name: "mended", task: "distill", ...mend({ model: "step:cut" }) },
            { name: "shaped", task: "distill", ...mend({ model: "teacher", shape: "step:cut" }) },
            {
              name: "both",
              task: "merge",
              method: "linear",
              models: [{ model: "step:cut" }, { model: "step:mended" }],
            },
          ],
        }),
      );
      const chain = async () => {
        const terminal = fakeTerminal();
        const code = await main(
          ["chain", `${folder}/chain.json`, "--data", `${folder}/data`, "--no-setup"],
          terminal,
        );
        assertEquals(code, 0, terminal.err);
        return terminal.out;
      };
      await chain();
      const runs = `${folder}/data/chains`;
      const folderOf = (name: string) => `${runs}/${namesIn(runs).find((run) => run.startsWith(`${name}-`))}`;
      const [mended, shaped, both] = await Promise.all(
        ["mended", "shaped", "both"].map((name) => valuesOf(`${folderOf(name)}/merged`)),
      );
      // A model that was cut to a folder and one that is cut as it is read train the same way.
      assertEquals(shaped, mended);
      assertEquals([...both!.keys()].sort(), [...mended!.keys()].sort());
      assert((await Deno.readTextFile(`${folderOf("cut")}/shrink.json`)).includes('"kept"'));
      assertEquals((await chain()).match(/done before/g)?.length, 4);
    }, { layers: 3 }),
});
