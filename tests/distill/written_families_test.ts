/** Folders of models of every family: whole, and with layers left out, read back as what they were. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { writeModelFolder } from "../../src/distill/export/exports.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { ARCHITECTURES, tinyConfig } from "../models/tiny_configs.ts";
import { writeTinyModel } from "./tiny_model.ts";

const VOCABULARY = 146;

Deno.test("numbers that transformers wants as floats are written as such", async () => {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    const config = { ...tinyConfig("Gemma2ForCausalLM", VOCABULARY), initializer_range: 1 };
    await writeTinyModel(`${folder}/model`, { config });
    const text = await Deno.readTextFile(`${folder}/model/config.json`);
    const found = text.match(/"(\w+_softcapping|initializer_range|rope_theta)": [\d.]+/g);
    assertEquals(found?.toSorted(), [
      '"attn_logit_softcapping": 3.0',
      '"final_logit_softcapping": 6.0',
      '"initializer_range": 1.0',
      '"rope_theta": 10000.0',
    ]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

for (const architecture of ARCHITECTURES) {
  Deno.test(`a folder of ${architecture} reads back, whole and without its first layer`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
    try {
      await writeTinyModel(`${folder}/model`, { config: tinyConfig(architecture, VOCABULARY) });
      for (const layers of [[0, 1], [1]]) {
        const model = await Model.open(`${folder}/model`, { layers, category: "weights" });
        await writeModelFolder(`${folder}/written`, model, { replace: true });
        const written = await Model.open(`${folder}/written`, { category: "weights" });
        assertEquals(written.config, model.config);
        for (const name of model.architecture.tensors.keys()) {
          assertEquals(await written.read(name), await model.read(name), name);
          const last = await model.read(name, 1);
          assertEquals(await written.read(name, 1), last, `rows of ${name}`);
        }
        model.close();
        written.close();
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
