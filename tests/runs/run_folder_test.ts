// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { distillationOf } from "../../src/runs/task/run_recipe.ts";
import { InputError } from "../../src/base/errors.ts";
import { createRun, findRun, newManifest, openRun, removeRun } from "../../src/runs/store/run_folder.ts";
import { isLocked, lock, LockedError, lockFile } from "../../src/runs/store/run_lock.ts";
import { fakeRecipe, withFolder } from "./fake_run.ts";
import { testStore } from "./test_store.ts";

Deno.test("createRun() saves the resolved recipe and locks the folder until release()", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    assertEquals(JSON.parse(await Deno.readTextFile(`${run.folder}/recipe.json`)), run.recipe);
    assertEquals(isLocked(run.folder), true);
    await assertRejects(() => openRun(run.folder, run.store), InputError, `process ${Deno.pid}`);
    const stored = (await run.store.get(run.id))!;
    await assertRejects(() => removeRun(run.store, stored), InputError, "another process works on this run");
    run.release();
    assertEquals(isLocked(run.folder), false);
    const again = await openRun(run.folder, run.store);
    assertEquals([again.manifest, again.recipe], [run.manifest, run.recipe]);
    again.release();
    await removeRun(run.store, stored);
    assertEquals(await run.store.ids(), []);
    await assertRejects(() => Deno.stat(run.folder), Deno.errors.NotFound);
  }));

Deno.test("createRun() refuses an output folder that holds something", () =>
  withFolder(async (folder) => {
    const recipe = fakeRecipe(folder);
    recipe.output.folder = `${folder}/mine`;
    const run = await createRun({ store: testStore(folder), recipe });
    run.release();
    await assertRejects(
      () => createRun({ store: testStore(folder), recipe }),
      InputError,
      "a run already lives in this output folder",
    );
    recipe.output.folder = `${folder}/data`;
    await assertRejects(
      () => createRun({ store: testStore(folder), recipe }),
      InputError,
      "the output folder is not empty",
    );
    recipe.output.folder = `${folder}/data/train.jsonl`;
    await assertRejects(() => createRun({ store: testStore(folder), recipe }), InputError, "cannot be made");
    assertEquals((await findRun(`${folder}/mine`, testStore(folder))).folder, `${folder}/mine`);
  }));

Deno.test("createRun() makes nothing when a path of the recipe is not there, and names them all", () =>
  withFolder(async (folder) => {
    await Deno.remove(`${folder}/data`, { recursive: true });
    const make = () => createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    const { message } = await assertRejects(make, InputError, "teacher.model");
    assertEquals(message.split("\n").map((line) => line.split(":")[0]), ["teacher.model", "data.train"]);
    assertEquals(await testStore(folder).ids(), []);
    assertEquals([...Deno.readDirSync(`${folder}/runs`)], []);
  }));

Deno.test("openRun() refuses a recipe that was changed and a folder without a run", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    run.release();
    const changed = { ...run.recipe, train: { ...distillationOf(run.recipe).train, learningRate: 1 } };
    await Deno.writeTextFile(`${run.folder}/recipe.json`, JSON.stringify(changed));
    await assertRejects(() => openRun(run.folder, run.store), InputError, "the recipe was changed");
    await Deno.writeTextFile(`${run.folder}/recipe.json`, "{");
    await assertRejects(() => openRun(run.folder, run.store), InputError, "not valid JSON");
    await assertRejects(
      () => openRun(`${folder}/data`, testStore(folder)),
      InputError,
      "there is no run here",
    );
  }));

Deno.test("findRun() knows ids, their beginnings and the last one", () =>
  withFolder(async (folder) => {
    const store = testStore(folder);
    await assertRejects(() => findRun("last", store), InputError, "there is no run");
    const recipe = fakeRecipe(folder);
    const manifest = newManifest(recipe, []);
    for (const id of ["20260101-000000-aaaa", "20260102-000000-bbbb", "20260102-000000-cccc"]) {
      const createdAt = `2026-01-${id.slice(6, 8)}T00:00:00.000Z`;
      await store.create({
        manifest: { ...manifest, id, createdAt },
        recipe,
        folder: `${folder}/runs/${id}`,
        worker: "command",
      });
    }
    assertEquals((await findRun("20260101", store)).id, "20260101-000000-aaaa");
    assertEquals((await findRun("last", store)).id, "20260102-000000-cccc");
    await assertRejects(() => findRun("20260102", store), InputError, "the beginning of 2 runs");
    await assertRejects(() => findRun("notes", store), InputError, "there is no run");
  }));

Deno.test("a run's lock ends with its process, however that ends", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    run.release();
    const holder = `import { openRun } from ${
      JSON.stringify(import.meta.resolve("../../src/runs/store/run_folder.ts"))
    };
      import { openStore } from ${JSON.stringify(import.meta.resolve("../../src/runs/store/data_folder.ts"))};
      await openRun(${JSON.stringify(run.folder)}, openStore(${
      JSON.stringify(folder)
    })); console.log("held"); setTimeout(() => {}, 60_000);`;
    await Deno.writeTextFile(`${folder}/holder.ts`, holder);
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const args = ["run", "-A", `--config=${config}`, `${folder}/holder.ts`];
    const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    assertEquals(isLocked(run.folder), true);
    child.kill("SIGKILL");
    await child.status;
    await reader.cancel();
    assertEquals(isLocked(run.folder), false);
  }));

Deno.test("who looks whether a run is worked on keeps nobody from working on it", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    run.release();
    // As isLocked() does in another process, for longer than a moment.
    const looking = await Deno.open(lockFile(run.folder), { read: true });
    assertEquals(await looking.tryLock(false), true);
    setTimeout(() => looking.close(), 50);
    const release = await lock(run.folder);
    await assertRejects(() => lock(run.folder), LockedError, `process ${Deno.pid}`);
    release();
  }));
