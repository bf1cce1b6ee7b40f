/** What `eval` says where a run's model learnt with another end of texts than is measured by default. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { fakeRecipe, withFolder } from "../runs/fake_run.ts";
import { testStore } from "../runs/test_store.ts";
import { fakeTerminal } from "./fake_terminal.ts";

Deno.test("eval of what a run left tells of the run's own end of texts, unless one is named", () =>
  withFolder(async (folder) => {
    const said = async (endToken: "bos" | "auto", ...more: string[]) => {
      const recipe = fakeRecipe(folder);
      const run = await createRun({
        store: testStore(folder),
        recipe: { ...recipe, data: { ...recipe.data, endToken } },
      });
      run.release();
      const terminal = fakeTerminal();
      // There is no such model: what is said comes before anything is read.
      const args = ["eval", "--model", `${run.folder}/merged`, "--dataset", "none.jsonl", "--no-setup"];
      assertEquals(await main([...args, ...more], terminal), 3);
      return terminal.err;
    };
    assertStringIncludes(await said("bos"), "--end-token bos measures as it did");
    for (const err of [await said("auto"), await said("bos", "--end-token", "eos")]) {
      assertEquals(err.includes("measures as it did"), false, err);
    }
  }));
