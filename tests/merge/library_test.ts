/** Merging as a program does it. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { InputError, merge, parseMergeRecipe } from "../../mod.ts";
import { valuesOf, withModels } from "./tiny_merge.ts";

Deno.test("merge() takes a recipe or its file", async () => {
  await withModels({ a: {}, b: { seed: 2 } }, async (folder) => {
    await Deno.writeTextFile(`${folder}/r.yaml`, "method: linear\nmodels: [{model: a}, {model: b}]\n");
    await merge(`${folder}/r.yaml`, `${folder}/from-file`);
    const recipe = parseMergeRecipe({
      method: "linear",
      models: [{ model: `${folder}/a` }, { model: `${folder}/b` }],
    });
    const { files } = await merge(recipe, `${folder}/from-value`);
    assertEquals(Object.keys(files), ["model.safetensors"]);
    assertEquals(await valuesOf(`${folder}/from-file`), await valuesOf(`${folder}/from-value`));
    await assertRejects(() => merge(recipe, `${folder}/from-file`), InputError, "is already there");
  });
});
