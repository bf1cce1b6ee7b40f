/** A teacher whose tokenizer lies elsewhere. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { type RecipeChanges, type TinyFiles, tinyRecipe, withTiny, writeTinyModel } from "./tiny_model.ts";

/** A teacher without a tokenizer, whose files lie in a folder that holds nothing else. */
async function withBareTeacher(
  fn: (files: TinyFiles & { tokenizer: string; student: string }) => Promise<void>,
) {
  await withTiny(async (files) => {
    const [tokenizer, student] = [`${files.folder}/tokenizer`, `${files.folder}/student`];
    await writeTinyModel(student, { layers: 1, seed: 3 });
    await Deno.mkdir(tokenizer);
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
      await Deno.rename(`${files.teacher}/${name}`, `${tokenizer}/${name}`);
    }
    await fn({ ...files, tokenizer, student });
  }, { layers: 1 });
}

async function prepare(recipe: Recipe) {
  const prepared = await prepareRun(recipe);
  prepared.close();
  return prepared;
}

Deno.test("a teacher without a tokenizer is refused by the field that says where it is, and reads it from there", () =>
  withBareTeacher(async (files) => {
    const { tokenizer, student } = files;
    const recipe = (teacher: RecipeChanges["teacher"]) =>
      tinyRecipe(files, { teacher, student: { model: student } });
    const error = await assertRejects(() => prepare(recipe({})), InputError, "there is no tokenizer.json");
    assertEquals(error.where, files.teacher);
    assertStringIncludes(error.hint!, "in teacher.tokenizer");

    const prepared = await prepare(recipe({ tokenizer }));
    assertEquals(prepared.tokenizer.where, `${tokenizer}/tokenizer.json`);
    // The same as that of a teacher which has it.
    const own = await prepare(tinyRecipe({ ...files, teacher: student }, { student: { model: student } }));
    assertEquals(prepared.train, own.train);

    const members = [{ model: files.teacher }, { model: student, name: "other" }];
    const several = (first: Partial<typeof members[number] & { tokenizer: string }>) =>
      recipe({ combine: "mixture", teachers: [{ ...members[0]!, ...first }, members[1]!] });
    const named = await assertRejects(() => prepare(several({})), InputError);
    assertStringIncludes(named.hint!, "teacher.teachers.0.tokenizer");
    await prepare(several({ tokenizer }));

    const nowhere = await assertRejects(
      () => prepare(recipe({ tokenizer: student + "/config.json" })),
      InputError,
    );
    assertStringIncludes(nowhere.message, "config.json: is neither a folder nor a .gguf file");
    await Deno.remove(`${tokenizer}/tokenizer.json`);
    await assertRejects(
      () => prepare(recipe({ tokenizer })),
      InputError,
      `${tokenizer}: there is no tokenizer.json`,
    );
  }));

Deno.test("another vocabulary than the student's is found out before a server is asked", () =>
  withTiny(async (files) => {
    const other = `${files.folder}/other`;
    await writeTinyModel(other, { layers: 1, merges: [["t", "h"]] });
    const server = { url: "http://127.0.0.1:1/v1", model: "m" };
    const recipe = (tokenizer: string) =>
      tinyRecipe(files, {
        teacher: { model: "server", server, cache: { topK: 4 }, tokenizer },
        student: { model: files.teacher },
      });
    await prepare(recipe(files.teacher));
    const error = await assertRejects(
      () => prepare(recipe(other)),
      InputError,
      "have different vocabularies",
    );
    assertEquals(error.where, "recipe teacher.tokenizer");
  }, { layers: 1 }));

Deno.test("a student that teaches itself has its own tokenizer", () => {
  const files = { folder: "", teacher: "model", train: "train.jsonl", heldOut: "heldout.jsonl" };
  assertThrows(
    () => tinyRecipe(files, { teacher: { model: "student", tokenizer: "x" }, student: { model: "model" } }),
    RecipeError,
    "teacher.tokenizer: is the student's",
  );
});
