/** Runs whose training rows stay on the disk: what they learn, where they stop and go on, and what they cannot have. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { dataWarnings } from "../../src/distill/inputs/data_warnings.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { trainingIdentity } from "../../src/distill/inputs/training_batches.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import type { RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";
import { type TinyFiles, tinyRecipe, withTiny } from "./tiny_model.ts";

const recipeOf = (files: TinyFiles, data: Partial<RecipeInput["data"]>) =>
  tinyRecipe(files, {
    data: data as RecipeInput["data"],
    train: { steps: 6, evaluateEvery: 3, checkpointEvery: 2 },
  });
const adapterOf = (folder: string) => Deno.readFile(`${folder}/adapter/adapter_model.safetensors`);

Deno.test("a run whose rows stay on the disk learns what one from memory learns, and continues bit for bit", () =>
  withTiny(async (files) => {
    const [memory, disk, parts]: RunEventBody[][] = [[], [], []];
    const folder = (name: string) => `${files.folder}/${name}`;
    await runHere(recipeOf(files, {}), folder("memory"), {}, memory);
    await runHere(recipeOf(files, { streaming: true }), folder("disk"), {}, disk);
    assertEquals(await adapterOf(folder("disk")), await adapterOf(folder("memory")));
    assertEquals(heldMetrics(disk!), heldMetrics(memory!));
    const plans = [memory!, disk!].map((events) => events.find((event) => event.type === "plan")!.data);
    assertEquals(plans[1], plans[0]);

    const control = (step: number) => step === 3 ? "stop" as const : "run" as const;
    const recipe = recipeOf(files, { streaming: true });
    await runHere(recipe, folder("parts"), { control }, parts);
    await runHere(recipe, folder("parts"), { resume: true }, parts);
    assertEquals(await adapterOf(folder("parts")), await adapterOf(folder("disk")));
    assertEquals(heldMetrics(parts!), heldMetrics(disk!));
    // Other rows are noticed, also those that are not among the ones that figures are told of.
    await Deno.writeTextFile(files.train, (await Deno.readTextFile(files.train)).replace("h", "s"));
    await assertRejects(
      () => runHere(recipe, folder("parts"), { resume: true }),
      InputError,
      "training data",
    );
    await assertRejects(
      () => runHere(recipeOf(files, {}), folder("parts"), { resume: true }),
      InputError,
      "recipe",
    );
  }));

Deno.test("rows on the disk are held out, left out and checked as rows in memory are", () =>
  withTiny(async (files) => {
    const lines = Array.from({ length: 3000 }, (_, i) => JSON.stringify({ text: `row ${i % 2500}` }));
    await Deno.writeTextFile(files.train, lines.join("\n"));
    const open = async (data: Partial<RecipeInput["data"]>) => {
      const prepared = await prepareRun(recipeOf(files, data));
      prepared.close();
      return prepared;
    };
    const data = { heldOut: undefined, deduplicate: true } as unknown as Partial<RecipeInput["data"]>;
    const [memory, disk] = [await open(data), await open({ ...data, streaming: true })];
    // Their order is that of the file.
    assertEquals(disk.heldOutRows, memory.heldOutRows);
    assertEquals(disk.sets.train[0]!.streamed!.count, memory.train.length);
    assertEquals(disk.train.length, 1024);
    assert(Math.abs(disk.trainReport.tokens / memory.trainReport.tokens - 1) < 0.02);
    assertEquals(disk.trainReport.samples, memory.trainReport.samples);
    assertEquals(dataWarnings(disk), dataWarnings(memory));
    assertNotEquals(
      trainingIdentity(disk),
      trainingIdentity(await open({ ...data, streaming: true, limit: 2000 })),
    );

    await Deno.writeTextFile(files.heldOut, lines.slice(0, 9).join("\n"));
    const shared = dataWarnings(await open({ streaming: true })).map(({ code }) => code);
    assertEquals(shared, ["held_out_seen"]);
    assertEquals((await open({ streaming: true, deduplicate: true })).sets.train[0]!.duplicates, 500 + 9);

    const cache = { topK: 4, seed: 1, precision: "f32" as const };
    const cached = tinyRecipe(files, {
      data: { train: files.train, streaming: true } as RecipeInput["data"],
      teacher: { cache },
    });
    await assertRejects(
      () => prepareRun(cached),
      InputError,
      "recipe teacher.cache: a cached teacher needs all",
    );
  }));
