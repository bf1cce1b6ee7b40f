// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { createRun, findRun, isLocked, openRun, removeRun, runIds } from "../../src/runs/run_folder.ts";
import { fakeRecipe, withFolder } from "./fake_run.ts";

Deno.test("createRun() saves the resolved recipe and locks the folder until release()", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), runsFolder: `${folder}/runs` });
    assertEquals(JSON.parse(await Deno.readTextFile(`${run.folder}/recipe.json`)), run.recipe);
    assertEquals(await isLocked(run.folder), true);
    await assertRejects(() => openRun(run.folder), InputError, `process ${Deno.pid}`);
    await assertRejects(() => removeRun(run.folder), InputError, "another process works on this run");
    run.release();
    assertEquals(await isLocked(run.folder), false);
    const again = await openRun(run.folder);
    assertEquals([again.manifest, again.recipe], [run.manifest, run.recipe]);
    again.release();
    await removeRun(run.folder);
    assertEquals(await runIds(`${folder}/runs`), []);
  }));

Deno.test("createRun() refuses an output folder that holds something", () =>
  withFolder(async (folder) => {
    const recipe = fakeRecipe(folder);
    recipe.output.folder = `${folder}/mine`;
    const run = await createRun({ recipe });
    run.release();
    await assertRejects(() => createRun({ recipe }), InputError, "a run already lives in this output folder");
    recipe.output.folder = `${folder}/data`;
    await assertRejects(() => createRun({ recipe }), InputError, "the output folder is not empty");
    recipe.output.folder = `${folder}/data/train.jsonl`;
    await assertRejects(() => createRun({ recipe }), InputError, "cannot be made");
    assertEquals(await findRun(`${folder}/mine`, `${folder}/runs`), `${folder}/mine`);
  }));

Deno.test("createRun() makes nothing when a path of the recipe is not there, and names them all", () =>
  withFolder(async (folder) => {
    await Deno.remove(`${folder}/data`, { recursive: true });
    const make = () => createRun({ recipe: fakeRecipe(folder), runsFolder: `${folder}/runs` });
    const { message } = await assertRejects(make, InputError, "teacher.model");
    assertEquals(message.split("\n").map((line) => line.split(":")[0]), ["teacher.model", "data.train"]);
    assertEquals(await runIds(`${folder}/runs`), []);
  }));

Deno.test("openRun() refuses a recipe that was changed and a folder without a run", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), runsFolder: `${folder}/runs` });
    run.release();
    const changed = { ...run.recipe, train: { ...run.recipe.train, learningRate: 1 } };
    await Deno.writeTextFile(`${run.folder}/recipe.json`, JSON.stringify(changed));
    await assertRejects(() => openRun(run.folder), InputError, "the recipe was changed");
    await Deno.writeTextFile(`${run.folder}/recipe.json`, "{");
    await assertRejects(() => openRun(run.folder), InputError, "not valid JSON");
    await assertRejects(() => openRun(`${folder}/data`), InputError, "there is no run here");
  }));

Deno.test("findRun() knows ids, their beginnings and the last one", () =>
  withFolder(async (folder) => {
    const runs = `${folder}/runs`;
    await assertRejects(() => findRun("last", runs), InputError, "there is no run");
    for (const id of ["20260101-000000-aaaa", "20260102-000000-bbbb", "20260102-000000-cccc"]) {
      await Deno.mkdir(`${runs}/${id}`);
    }
    await Deno.mkdir(`${runs}/notes`);
    assertEquals(await findRun("20260101", runs), `${runs}/20260101-000000-aaaa`);
    assertEquals(await findRun("last", runs), `${runs}/20260102-000000-cccc`);
    await assertRejects(() => findRun("20260102", runs), InputError, "the beginning of 2 runs");
    await assertRejects(() => findRun("notes", runs), InputError, "there is no run");
  }));

Deno.test("a run's lock ends with its process, however that ends", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), runsFolder: `${folder}/runs` });
    run.release();
    const holder = `import { openRun } from ${
      JSON.stringify(import.meta.resolve("../../src/runs/run_folder.ts"))
    };
      await openRun(${JSON.stringify(run.folder)}); console.log("held"); setTimeout(() => {}, 60_000);`;
    await Deno.writeTextFile(`${folder}/holder.ts`, holder);
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const args = ["run", "-A", `--config=${config}`, `${folder}/holder.ts`];
    const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    assertEquals(await isLocked(run.folder), true);
    child.kill("SIGKILL");
    await child.status;
    await reader.cancel();
    assertEquals(await isLocked(run.folder), false);
  }));
