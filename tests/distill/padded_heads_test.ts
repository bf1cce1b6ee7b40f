/** Teacher and student of one vocabulary whose heads have other numbers of rows beyond it. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { writeModelFolder } from "../../src/distill/export/exports.ts";
import { dataWarnings } from "../../src/distill/inputs/data_warnings.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { modelTest } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import { TINY_VOCABULARY, tinyRecipe, withTiny, writeTinyModel } from "./tiny_model.ts";

const [TEACHER, STUDENT] = [TINY_VOCABULARY + 8, TINY_VOCABULARY + 3];

modelTest(
  "heads of two sizes are cut to the tokens of their vocabulary, and written whole",
  (gpu) =>
    withTiny(async (files) => {
      const student = `${files.folder}/student`;
      await writeTinyModel(student, { vocabularySize: STUDENT, tiedHead: true, seed: 3 });
      const recipe = tinyRecipe(files, { student: { model: student } });
      const prepared = await prepareRun(recipe);
      assertEquals(
        [prepared.teacher, prepared.student].map((model) => model.config.vocabularySize),
        [TINY_VOCABULARY, TINY_VOCABULARY],
      );
      const said = dataWarnings(prepared).filter(({ code }) => code === "heads_cut");
      assertEquals(said.length, 1);
      assertStringIncludes(
        said[0]!.message,
        `have ${TEACHER} and ${STUDENT} rows for a vocabulary of ${TINY_VOCABULARY}`,
      );

      const tokens = Int32Array.from([1, 40, 7, 99, TINY_VOCABULARY - 1]);
      for (const cut of [prepared.teacher, prepared.student]) {
        const whole = await Model.open(cut.path, { category: "weights" });
        using reader = await Reader.open(gpu, cut, tokens.length);
        using wide = await Reader.open(gpu, whole, tokens.length);
        const [some, all] = [await reader.logits(tokens), await wide.logits(tokens)];
        const width = whole.config.vocabularySize;
        some.forEach((value, i) => {
          const [t, v] = [Math.floor(i / TINY_VOCABULARY), i % TINY_VOCABULARY];
          assert(Math.abs(value - all[t * width + v]!) < 1e-5);
        });
        whole.close();
      }

      await writeModelFolder(`${files.folder}/written`, prepared.student);
      const written = await Model.open(`${files.folder}/written`, { category: "weights" });
      assertEquals(written.config.vocabularySize, STUDENT);
      written.close();
      prepared.close();
    }, { vocabularySize: TEACHER }),
);

Deno.test("a head that is cut can be neither trained nor adapted", () =>
  withTiny(async (files) => {
    const student = `${files.folder}/student`;
    await writeTinyModel(student, { vocabularySize: STUDENT });
    const refused: [Parameters<typeof tinyRecipe>[1], string][] = [
      [{ student: { model: student, train: ["head"] } }, '"head" means the head, which is cut'],
      [{ student: { model: student }, adapter: { targets: ["lm_head", "q_proj"] } }, "the head is cut"],
    ];
    for (const [changes, says] of refused) {
      const recipe = tinyRecipe(files, changes);
      await assertRejects(
        async () => {
          const prepared = await prepareRun(recipe);
          try {
            setUp(prepared, new Registry().addAll(builtins));
          } finally {
            prepared.close();
          }
        },
        InputError,
        says,
      );
    }
  }, { vocabularySize: TEACHER }));
