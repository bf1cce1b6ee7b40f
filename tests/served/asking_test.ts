/** Runs that wait for a server are not in line for the GPU. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { acquireLock } from "../../src/runs/store/run_lock.ts";
import { askingLock, firstInLine } from "../../src/runs/supervise/turn.ts";
import { tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { testStore } from "../runs/test_store.ts";

Deno.test("a run whose server is still asked keeps nobody from the GPU, and stands in line afterwards", () =>
  withTiny(async (files) => {
    const store = testStore(files.folder);
    const served = await createRun({
      store,
      recipe: tinyRecipe(files, {
        teacher: {
          model: "server",
          server: { url: "http://127.0.0.1:9/v1", model: "m" },
          cache: { topK: 4 },
        },
        student: { model: files.teacher },
      }),
    });
    const other = await createRun({ store, recipe: tinyRecipe(files) });
    try {
      const release = await acquireLock(askingLock(served.folder));
      assertEquals(await firstInLine(store), other.id);
      release();
      assertEquals(await firstInLine(store), served.id);
    } finally {
      served.release();
      other.release();
    }
  }));
