/**
 * Tensors that are trained beside an adapter, and adapters on the head, in files. `fixtures/modules_to_save.json` holds configs, keys and
 * shapes as PEFT 0.21.2 saves them.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { type AdapterForm, runForm, writeAdapter } from "../../src/distill/export/adapter_files.ts";
import { adapterOrigin, writeMerged } from "../../src/distill/export/exports.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { unsavable } from "../../src/distill/export/modules_to_save.ts";
import { valuesOf } from "../../src/distill/trained/trained_student.ts";
import { InputError } from "../../src/base/errors.ts";
import { exists, openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { Reader } from "../distill/logits.ts";
import {
  type RecipeChanges,
  type TinyFiles,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
} from "../distill/tiny_model.ts";
import { modelTest, randomArray } from "../tensor/harness.ts";

const layouts = JSON.parse(
  await Deno.readTextFile(new URL("fixtures/modules_to_save.json", import.meta.url)),
) as Record<string, { config: Record<string, unknown>; tensors: Record<string, number[]> }>;

const ADAPTER = { rank: 4, alpha: 8, targets: ["q_proj", "down_proj"] };

const CASES: Readonly<Record<string, { train?: string[]; adapter: RecipeChanges["adapter"] }>> = {
  "lora": { train: ["norms", "head"], adapter: ADAPTER },
  "lora of one norm": { train: ["model.norm", "k_proj"], adapter: ADAPTER },
  "lora on the head": { adapter: { ...ADAPTER, targets: ["q_proj", "lm_head"] } },
  "miss": { train: ["model.norm"], adapter: { ...ADAPTER, type: "miss" } },
};

/** A setup of a whole student, and values for all that is trained, as if after training. */
async function trainedBeside(
  files: TinyFiles,
  { train, adapter }: { train?: string[]; adapter: RecipeChanges["adapter"] },
) {
  const student = { model: "teacher", ...(train ? { train } : {}) };
  const recipe = tinyRecipe(files, { student, adapter });
  const setup = await tinySetup(recipe);
  const { layout } = setup.trainables;
  const { trained: flat } = await setup.trainables.initialValues(1);
  flat.forEach((v, i) => flat[i] = v + randomArray(1, i + 1, 0.1)[0]!);
  const values = await valuesOf(setup, layout.gather(flat), 1);
  return { setup, recipe, flat, values, origin: adapterOrigin(files.folder, setup.student, setup) };
}

async function tensorsOf(folder: string): Promise<Map<string, { shape: number[]; data: Float32Array }>> {
  const file = await SafetensorsFile.open(await openFile(`${folder}/adapter_model.safetensors`));
  const all = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const name of file.tensors.keys()) {
    const { shape, data } = await file.read(name);
    all.set(name, { shape: [...shape], data: data as Float32Array });
  }
  file.close();
  return all;
}

for (const [name, wanted] of Object.entries(CASES)) {
  Deno.test(`${name}: config, keys and shapes are those that PEFT saves`, () =>
    withTiny(async (files) => {
      const { setup, values, origin } = await trainedBeside(files, wanted);
      using _ = setup;
      assertEquals(runForm(setup.adapter, setup.tensors), "peft");
      const path = `${files.folder}/adapter`;
      await writeAdapter(path, setup.adapter, values, origin);
      const { config, tensors } = layouts[name]!;
      assertEquals(JSON.parse(await Deno.readTextFile(`${path}/adapter_config.json`)), {
        ...config,
        base_model_name_or_path: setup.student.path,
      });
      const written = await tensorsOf(path);
      assertEquals(Object.fromEntries([...written].map(([key, { shape }]) => [key, shape])), tensors);
      for (const { name: tensor } of setup.tensors?.trained ?? []) {
        assertEquals(written.get(`base_model.model.${tensor}`)!.data, new Float32Array(values.get(tensor)!));
      }
    }, { layers: 1, vocabularySize: 199 }));
}

Deno.test("a bias is saved with its module's weight; where that has an adapter, only as one's own values", () =>
  withTiny(async (files) => {
    const free = await trainedBeside(files, { train: ["k_proj.bias"], adapter: ADAPTER });
    using _ = free.setup;
    const path = `${files.folder}/adapter`;
    await writeAdapter(path, free.setup.adapter, free.values, free.origin);
    const saved = [...(await tensorsOf(path)).keys()].filter((key) => key.includes("k_proj")).sort();
    assertEquals(
      saved,
      ["bias", "weight"].map((t) => `base_model.model.model.layers.0.self_attn.k_proj.${t}`),
    );

    const both = await trainedBeside(files, { train: ["q_proj.bias"], adapter: ADAPTER });
    using __ = both.setup;
    const { adapter, tensors } = both.setup;
    assertEquals(runForm(adapter, tensors), "limbeck");
    assert(
      /q_proj has an adapter, and .*q_proj.bias is trained too/.test(unsavable(adapter, tensors!)!.message),
    );
    await assertRejects(
      () => writeAdapter(path, adapter, both.values, both.origin),
      InputError,
      "PEFT keeps a module whole or gives it an adapter",
    );
    await writeAdapter(path, adapter, both.values, both.origin, "limbeck");
    const own = await tensorsOf(path);
    assertEquals([...own.keys()].sort(), [...both.values.keys()].sort());
    const config = JSON.parse(await Deno.readTextFile(`${path}/adapter_config.json`));
    assertEquals(config.trained_tensors, ["model.layers.0.self_attn.q_proj.bias"]);
  }, { layers: 1, biases: true }));

Deno.test("forms without a place for trained tensors, or for the head, are refused by name", () =>
  withTiny(async (files) => {
    const refused = async (
      wanted: Parameters<typeof trainedBeside>[1],
      forms: readonly AdapterForm[],
      says: string,
    ) => {
      const { setup, values, origin } = await trainedBeside(files, wanted);
      using _ = setup;
      for (const form of forms) {
        const path = `${files.folder}/refused.gguf`;
        const error = await assertRejects(
          () => writeAdapter(path, setup.adapter, values, origin, form),
          InputError,
          says,
        );
        assert(`${error.hint}`.includes("--target merged"), error.hint);
        assertEquals(await exists(path), false);
      }
    };
    await refused(
      { train: ["norms"], adapter: ADAPTER },
      ["peft-plain", "gguf-adapter", "mlx"],
      "has a place for tensors that were trained themselves (model.layers.0.input_layernorm.weight",
    );
    await refused({ adapter: { targets: ["lm_head"] } }, ["mlx"], "lm_head");
  }, { layers: 1 }));

for (const tiedHead of [false, true]) {
  modelTest(
    `the merged student is the student as trained, its head ${tiedHead ? "once tied" : "its own"}`,
    (gpu) =>
      withTiny(async (files) => {
        const { setup, flat, values } = await trainedBeside(files, {
          train: ["norms", "biases", "head", "k_proj"],
          adapter: { ...ADAPTER, targets: ["q_proj"] },
        });
        using _ = setup;
        const path = `${files.folder}/merged`;
        await writeMerged(path, setup.student, setup, values);
        const merged = await Model.open(path, { category: "weights" });
        assertEquals(merged.source.config.tie_word_embeddings, false);
        const original = await Model.open(files.teacher, { category: "weights" });
        const { ids } = tinySample(30, 0, 77);
        const logits = async (...[model, trained]: [Model, { parameters: Float32Array }?]) => {
          using reader = await Reader.open(gpu, model, 32, trained);
          return (await reader.logits(ids)).slice();
        };
        const [own, exported, before] = [
          await logits(setup.student, { ...setup, parameters: flat }),
          await logits(merged),
          await logits(original),
        ];
        const distance = (a: Float32Array, b: Float32Array) =>
          Math.max(...a.map((v, i) => Math.abs(v - b[i]!)));
        assert(distance(own, exported) < 1e-4, `${distance(own, exported)}`);
        assertGreater(distance(own, before), 0.1);
        merged.close();
        original.close();
      }, { layers: 2, biases: true, tiedHead }),
  );
}
