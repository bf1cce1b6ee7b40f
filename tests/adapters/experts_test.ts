/** LoRA on the experts of a mixture: trained, resumed, written as PEFT has it, merged, and refused where it cannot be. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { writeAdapter } from "../../src/distill/export/adapter_files.ts";
import { writeMerged } from "../../src/distill/export/exports.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { openFile } from "../../src/formats/files.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { writeAdaptedModel } from "../../src/merge/adapters/adapted_model.ts";
import { writeMergedAdapter } from "../../src/merge/adapters/adapters.ts";
import { Reader } from "../distill/logits.ts";
import {
  type RecipeChanges,
  TINY_VOCABULARY,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
} from "../distill/tiny_model.ts";
import { runHere } from "../distill/tiny_run.ts";
import { readArrays } from "../goldens/family_goldens.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { assertWithin, maxDifference, modelTest } from "../tensor/harness.ts";
import { trained } from "./trained_adapter.ts";

const EXPERTS = "model.layers.0.mlp.experts";
/** Three experts in the first of two layers; of widths that `subgroup8` has kernels for. */
const TINY = { config: tinyConfig("Qwen3MoeForCausalLM", TINY_VOCABULARY) };
/** Of that layer alone: files of llama.cpp have no dense layers beside experts. */
const ALONE = { config: { ...TINY.config, num_hidden_layers: 1, mlp_only_layers: [] } };

function recipeOf(files: Parameters<typeof tinyRecipe>[0], changes: RecipeChanges = {}) {
  const adapter = { targets: ["q_proj", "experts"], rankPattern: { gate_up_proj: 8 }, ...changes.adapter };
  return tinyRecipe(files, { student: { model: "teacher" }, ...changes, adapter });
}

async function shapesOf(path: string): Promise<Record<string, readonly number[]>> {
  const file = await SafetensorsFile.open(await openFile(path));
  const shapes = Object.fromEntries([...file.tensors].map(([name, { shape }]) => [name, shape]));
  file.close();
  return shapes;
}

modelTest(
  "experts with an adapter are those of the merged model, and of the files",
  (gpu) =>
    withTiny(async (files) => {
      const recipe = recipeOf(files);
      const { setup, adapter, student, flat, values, origin } = await trained(recipe);
      using _ = setup;
      const tokens = tinySample(23, 1, 5).ids;
      const parameters = flat;
      const logits = async (model: Model, adapted?: Parameters<typeof Reader.open>[3]) => {
        using reader = await Reader.open(gpu, model, 32, adapted);
        return (await reader.logits(tokens)).slice();
      };
      const adapted = await logits(student, { adapter, parameters });
      assert(maxDifference(adapted, await logits(student)) > 0.1, "the adapter changes nothing");

      await writeMerged(`${files.folder}/merged`, student, setup, values);
      const merged = await Model.open(`${files.folder}/merged`, { category: "weights" });
      try {
        assertWithin(await logits(merged), adapted, 2e-4, "logits of the merged model");
      } finally {
        merged.close();
      }

      await writeAdapter(`${files.folder}/adapter`, adapter, values, origin);
      const { tensors, experts, settings } = await readPeftAdapter(
        `${files.folder}/adapter`,
        student.architecture.tensors,
        student.architecture.expertLayers,
      );
      assertEquals(settings.targetParameters, ["experts.down_proj", "experts.gate_up_proj"]);
      assertEquals(experts, new Map([[`${EXPERTS}.gate_up_proj`, 3], [`${EXPERTS}.down_proj`, 3]]));
      assertEquals(new Map([...tensors].map(([name, { data }]) => [name, data as Float32Array])), values);
      const shapes = await shapesOf(`${files.folder}/adapter/adapter_model.safetensors`);
      const of = (name: string) => shapes[`base_model.model.${EXPERTS}.${name}.weight`];
      const merge = { adapters: [{ path: `${files.folder}/adapter`, weight: 1 }], method: "cat" } as const;
      await writeAdaptedModel(files.teacher, merge, `${files.folder}/adapted`);
      await writeMergedAdapter(merge, `${files.folder}/same`);
      const same = await readPeftAdapter(`${files.folder}/same`);
      assertEquals([same.tensors, same.experts], [tensors, experts]);
      const half = { adapters: [...merge.adapters, { ...merge.adapters[0], weight: -0.5 }] };
      await writeMergedAdapter({ ...half, method: "svd", rank: 99 }, `${files.folder}/half`);
      await writeAdaptedModel(files.teacher, {
        adapters: [{ path: `${files.folder}/half`, weight: 2 }],
        method: "cat",
      }, `${files.folder}/twice`);
      const [ours, theirs, twice] = await Promise.all(
        ["merged", "adapted", "twice"].map((name) => readArrays(`${files.folder}/${name}/model.safetensors`)),
      );
      for (const [name, values] of ours!) {
        assertWithin(theirs!.get(name)!, values, 1e-6, name);
        assertWithin(twice!.get(name)!, values, 1e-5, `${name} of a sum by singular values`);
      }

      // Both modules of the first parameter have the same A; all have the largest rank.
      await writeAdapter(`${files.folder}/adapter.gguf`, adapter, values, origin, "gguf-adapter");
      const gguf = await GgufFile.open(await openFile(`${files.folder}/adapter.gguf`));
      const scale = Number(gguf.metadata.get("adapter.lora.alpha")) / 8;
      const [up, down] = ["up", "down"].map((name) => `blk.0.ffn_${name}_exps.weight`);
      assertEquals(gguf.tensors.get(`${up}.lora_a`)!.shape, [3, 8, 32]);
      assertEquals(gguf.tensors.get(`${up}.lora_b`)!.shape, [3, 20, 8]);
      for (const [stack, module] of [[up!, "up_proj"], [down!, "down_proj"]] as const) {
        const [a, b] = await Promise.all(
          ["a", "b"].map(async (side) => (await gguf.read(`${stack}.lora_${side}`)).data as Float32Array),
        );
        for (let e = 0; e < 3; e++) {
          const name = `${EXPERTS}.${e}.${module}.weight`;
          const [out, width] = student.architecture.tensors.get(name) as [number, number];
          const before = (await student.read(name)).data as Float32Array;
          const update = Float32Array.from(before, (w, i) => {
            const [o, k] = [Math.floor(i / width), i % width];
            let sum = 0;
            for (let r = 0; r < 8; r++) sum += b![(e * out + o) * 8 + r]! * a![(e * 8 + r) * width + k]!;
            return w + scale * sum;
          });
          assertWithin(update, ours!.get(name)!, 1e-5, name);
        }
      }
      gguf.close();

      // The outermost wrapper is that of the last parameter.
      assertEquals(of("lora_A"), [3 * 4, 20]);
      assertEquals(of("lora_B"), [32, 4 * 3]);
      assertEquals(of("base_layer.lora_A"), [3 * 8, 32]);
      assertEquals(of("base_layer.lora_B"), [40, 8 * 3]);
    }, ALONE),
);

modelTest("a run on experts goes on after a stop as if there had been none", () =>
  withTiny(async (files) => {
    const recipe = recipeOf(files, {
      objective: [{ loss: "cross-entropy", weight: 1 }],
      train: { steps: 4, checkpointEvery: 2, evaluateEvery: 100 },
      output: { merged: true },
    });
    const whole = `${files.folder}/whole`;
    await runHere(recipe, whole);
    const parts = `${files.folder}/parts`;
    await runHere(recipe, parts, { control: (step) => step === 2 ? "stop" : "run" });
    await runHere(recipe, parts, { resume: true });
    for (const file of ["adapter/adapter_model.safetensors", "merged/model.safetensors"]) {
      assertEquals(await Deno.readFile(`${parts}/${file}`), await Deno.readFile(`${whole}/${file}`), file);
    }
    const { tensors } = await readPeftAdapter(`${whole}/adapter`);
    for (const [name, { data }] of tensors) {
      assert((data as Float32Array).some((v) => v !== 0), `${name} has learnt nothing`);
    }
    const state = JSON.parse(await Deno.readTextFile(`${whole}/checkpoints/step-000004/state.json`));
    assert("adapter lora on experts" in state.identity, Object.keys(state.identity).join());
  }, TINY));

Deno.test("experts are adapted where a recipe names them, each or all, and no others", () =>
  withTiny(async (files) => {
    const pathsOf = async (targets: string[] | "all-linear") => {
      using setup = await tinySetup(recipeOf(files, { adapter: { targets, rankPattern: {} } }));
      return setup.adapter.layers.map(({ path }) => path).filter((path) => path.includes("mlp"));
    };
    const dense = ["gate_proj", "up_proj", "down_proj"].map((name) => `model.layers.1.mlp.${name}`);
    assertEquals(await pathsOf("all-linear"), dense);
    assertEquals(await pathsOf(["down_proj"]), dense.slice(2));
    assertEquals(await pathsOf(["mlp.experts"]), [`${EXPERTS}.gate_up_proj`, `${EXPERTS}.down_proj`]);
    assertEquals(await pathsOf(["experts.down_proj"]), [`${EXPERTS}.down_proj`]);
    assertEquals(await pathsOf([`${EXPERTS}.gate_up_proj`, "down_proj"]), [
      dense[2],
      `${EXPERTS}.gate_up_proj`,
    ]);
  }, TINY));

Deno.test("adapters that experts cannot have are refused by name", () =>
  withTiny(async (files) => {
    const setUp = async (adapter: RecipeChanges["adapter"]) => {
      using _ = await tinySetup(recipeOf(files, { adapter: { rankPattern: {}, ...adapter } }));
    };
    const refused = async (adapter: RecipeChanges["adapter"], says: string) => {
      await assertRejects(() => setUp(adapter), InputError, says);
    };
    await refused({ type: "dora" }, '"dora" is of linear layers, and cannot be on experts');
    await refused({ type: "pissa" }, '"pissa" is of linear layers');
    await refused({ dropout: 0.1 }, "an adapter on experts cannot have dropout");
    await refused({ targets: ["expert"] }, '"expert" names no linear layer');
    await refused({ targets: ["gate_up_proj"] }, 'did you mean "experts.gate_up_proj"?');

    const { setup, adapter, values, origin } = await trained(recipeOf(files));
    using _ = setup;
    for (const form of ["peft-plain", "mlx"] as const) {
      const write = () => writeAdapter(`${files.folder}/no`, adapter, values, origin, form);
      await assertRejects(write, InputError, "the adapter is on experts of a mixture");
    }
    await assertRejects(() => Deno.stat(`${files.folder}/no`));
    await writeAdapter(`${files.folder}/own`, adapter, values, origin, "limbeck");
    const own = await shapesOf(`${files.folder}/own/adapter_model.safetensors`);
    assertEquals(own[`${EXPERTS}.down_proj.lora_B.weight`], [3 * 32, 4]);
  }, TINY));
