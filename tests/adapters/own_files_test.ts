/** What a run leaves of an adapter that no other program knows. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { z } from "zod";
import { summaryLines } from "../../src/cli/terminal/summary.ts";
import { readCheckpoint } from "../../src/distill/checkpoint/checkpoint.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { exportRun } from "../../src/distill/export/export_run.ts";
import { InputError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { builtins } from "../../plugins/mod.ts";
import { CONTRACT_VERSION, defineAdapter, tensor } from "../../src/registry/contract.ts";
import { Registry } from "../../src/registry/registry.ts";
import { runHere } from "../distill/tiny_run.ts";
import { tinyRecipe, tinySetup, withTiny } from "../distill/tiny_model.ts";

/** y = (1 + c g) W x with a trained c [out], and a g [1] that all layers share: its change is not of low rank. */
const rowScale = defineAdapter({
  id: "test/row-scale",
  version: "1.2.3",
  contract: CONTRACT_VERSION,
  options: z.strictObject({ start: z.number().default(0.5) }),
  suffixes: ["row_scale", "row_scale_gain", "row_scale_one"],
  parameters: ({ outFeatures }) => [
    {
      name: "c",
      suffix: "row_scale",
      shape: [outFeatures],
      initialisation: { kind: "constant", value: 0 },
    },
    {
      name: "one",
      suffix: "row_scale_one",
      shape: [outFeatures],
      initialisation: { kind: "constant", value: 1 },
      trainable: false,
    },
  ],
  shared: (_, __, { start }) => [{
    name: "g",
    suffix: "row_scale_gain",
    shape: [1],
    initialisation: { kind: "constant", value: start },
  }],
  forward: ({ base, parameter, shared }) =>
    tensor.pointwise(
      [base(), parameter("c"), parameter("one"), shared("g")],
      (y, c, one, g) => y!.mul(one!.add(c!.mul(g!))),
    ),
  merge: (weight, { parameter, shared, layer: { inFeatures } }) =>
    weight.map((w, i) => w * (1 + parameter("c")[Math.floor(i / inFeatures)]! * shared("g")[0]!)),
});

async function ownFiles(folder: string) {
  const file = await SafetensorsFile.open(await openFile(`${folder}/adapter_model.safetensors`));
  const tensors = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) tensors.set(name, (await file.read(name)).data as Float32Array);
  file.close();
  return { tensors, config: JSON.parse(await Deno.readTextFile(`${folder}/adapter_config.json`)) };
}

Deno.test("a run leaves the trained values, to the bit, of an adapter that nothing else knows", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files, {
      adapter: { type: rowScale.id, targets: ["q_proj", "up_proj"], options: { start: 0.25 } },
      train: { steps: 3, checkpointEvery: 0, evaluateEvery: 0 },
      output: { merged: false },
    });
    const folder = `${files.folder}/run`;
    const result = await runHere(recipe, folder, { plugins: [rowScale] });
    assertEquals([result.paths, result.adapterForm], [{ adapter: "adapter", base: "base" }, "limbeck"]);

    const { tensors, config } = await ownFiles(`${folder}/adapter`);
    const registry = new Registry().addAll(builtins).add(rowScale);
    using plain = await tinySetup(tinyRecipe(files));
    const { trainables } = setUp({ ...plain, recipe }, registry);
    const { flat } = await readCheckpoint(`${folder}/checkpoints/step-000003`, trainables);
    const trained = trainables.layout.gather(flat.parameters);
    assertEquals([...tensors.keys()].sort(), [...trained.keys()].sort());
    assertEquals(tensors.size, 5);
    for (const [name, values] of tensors) assertEquals(values, new Float32Array(trained.get(name)!), name);
    assert(tensors.get("model.layers.0.self_attn.q_proj.row_scale")!.some((v) => v !== 0));
    assert(tensors.has("shared.row_scale_gain"));
    assertEquals(config, {
      format: "limbeck-adapter",
      format_version: 1,
      adapter: {
        id: rowScale.id,
        version: "1.2.3",
        contract: CONTRACT_VERSION,
        rank: 4,
        alpha: recipe.adapter.alpha,
        dropout: 0,
        targets: ["q_proj", "up_proj"],
        rslora: false,
        loraPlusRatio: 1,
        rankPattern: {},
        alphaPattern: {},
        options: { start: 0.25 },
      },
      base_model_name_or_path: `${folder}/base`,
      seed: recipe.train.seed,
    });

    // Nothing takes it for an adapter of PEFT's, neither the reader nor the user.
    await assertRejects(() => readPeftAdapter(`${folder}/adapter`), InputError, "peft_type");
    const summary = summaryLines(folder, result, []).join("\n");
    assertStringIncludes(summary, "PEFT has no layout for it");
    assert(!summary.includes("AutoPeftModelForCausalLM"));

    const out = (name: string) => `${files.folder}/${name}`;
    await exportRun(folder, recipe, registry, out("again"), "limbeck");
    assertEquals(
      await Deno.readFile(`${out("again")}/adapter_model.safetensors`),
      await Deno.readFile(`${folder}/adapter/adapter_model.safetensors`),
    );
    await exportRun(folder, recipe, registry, out("merged"), "merged");
    for (const target of ["peft", "peft-plain", "gguf-adapter", "mlx"] as const) {
      await assertRejects(
        () => exportRun(folder, recipe, registry, out(target), target),
        InputError,
        `"${rowScale.id}"`,
      );
    }
  }));
