/**
 * Merges written for mergekit, run from their YAML to a folder, against what mergekit itself made of them
 * (`../shared/goldens/mergekit`). Random choices are handed in, since they depend on its generator.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { exactLinearAlgebra } from "../../src/linalg/host.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { mergeModels, previewMerge } from "../../src/merge/engine/merge_models.ts";
import type { Draw } from "../../src/merge/engine/merge_tensors.ts";
import { loadMergeRecipe } from "../../src/merge/recipe/recipe_file.ts";
import { Registry } from "../../src/registry/registry.ts";
import { hasShared, sharedPath, sharedTest } from "../shared.ts";

const SET = "goldens/mergekit";

interface Case {
  readonly saved: string;
  readonly dtypes: readonly string[];
  readonly tensors: number;
  readonly config: Readonly<Record<string, unknown>>;
}

const registry = new Registry().addAll(builtins);
const cases: Record<string, Case> = hasShared
  ? JSON.parse(await Deno.readTextFile(sharedPath(`${SET}/cases.json`))).cases
  : {};

/** Entries of every tensor of a file, as bytes or f32; undefined where there is no such file. */
async function readArrays(path: string): Promise<Map<string, ArrayLike<number>> | undefined> {
  if (!await Deno.stat(path).then(() => true, () => false)) return undefined;
  const file = await SafetensorsFile.open(await openFile(path));
  const arrays = new Map<string, ArrayLike<number>>();
  for (const [name, { dtype }] of file.tensors) {
    if (dtype === "U8") arrays.set(name, (await file.readArray(name)).data as Uint8Array);
    else {
      const { dtype, data } = await file.read(name);
      arrays.set(name, toFloat32(dtype, data));
    }
  }
  file.close();
  return arrays;
}

/** Uniform numbers that choose what the masks chose. Tensors without a mask are not compared, so theirs do not matter. */
function drawsOf(masks: ReadonlyMap<string, ArrayLike<number>>, models: readonly string[]): Draw {
  return (tensor, parent, first, count) => {
    const mask = masks.get(`${models[parent]}.${tensor}`);
    return Float32Array.from({ length: count }, (_, i) => mask && !mask[first + i] ? 1 - 2 ** -24 : 0);
  };
}

for (const [name, golden] of Object.entries(cases)) {
  sharedTest(`mergekit's ${name} comes out as mergekit's own`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      const recipe = await loadMergeRecipe(sharedPath(`${SET}/yaml/${name}.yml`), { cwd: sharedPath(SET) });
      const base = recipe.base?.split("/").at(-1);
      const models = recipe.slices[0]!.sources.map(({ model }) => model.split("/").at(-1)!)
        .filter((model) => model !== base);
      const masks = await readArrays(sharedPath(`${SET}/masks/${name}.safetensors`));
      const output = `${folder}/merged`;
      await mergeModels({ ...recipe, like: "mergekit" }, output, {
        method: (id) => registry.get("merge", id),
        linalg: exactLinearAlgebra,
        ...(masks ? { draw: drawsOf(masks, models) } : {}),
        // Small enough for several pieces a tensor.
        piece: 1000,
      });
      await compare(output, name, golden);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

sharedTest("mergekit's files are taken as they are without --like, too", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (const name of Object.keys(cases)) {
      const recipe = await loadMergeRecipe(sharedPath(`${SET}/yaml/${name}.yml`), { cwd: sharedPath(SET) });
      const options = { method: (id: string) => registry.get("merge", id), linalg: exactLinearAlgebra };
      // What looks at whole models first is found out only by doing it.
      if (recipe.method === "ties") await mergeModels(recipe, `${folder}/${name}`, options);
      else await previewMerge(recipe, options);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

async function compare(output: string, name: string, golden: Case): Promise<void> {
  const merged = await openModel(output);
  try {
    assertEquals(merged.tensors.size, golden.tensors);
    for (const key of ["num_hidden_layers", "vocab_size", "tie_word_embeddings", "intermediate_size"]) {
      assertEquals(merged.config[key], golden.config[key], key);
    }
    const expected = await readArrays(sharedPath(`${SET}/expected/${name}.safetensors`));
    const undecided = await readArrays(sharedPath(`${SET}/undecided/${name}.safetensors`));
    const yaml = await Deno.readTextFile(sharedPath(`${SET}/yaml/${name}.yml`));
    const half = /dtype: bfloat16/.test(yaml) || name.startsWith("bf16_slerp");
    const stored = new Set([...merged.tensors.values()].map(({ dtype }) => dtype));
    const wanted = golden.dtypes.map((dtype) => dtype === "float32" ? "F32" : "BF16");
    assertEquals([...stored], wanted);
    for (const [tensor, values] of expected!) {
      const { dtype, data } = await merged.read(tensor);
      const ours = toFloat32(dtype, data);
      assertEquals(ours.length, values.length, tensor);
      for (let i = 0; i < ours.length; i++) {
        if (undecided?.get(tensor)?.[i]) continue;
        const allowed = half ? 0.03 * Math.max(Math.abs(values[i]!), 1 / 64) : 2e-6;
        const difference = Math.abs(ours[i]! - values[i]!);
        assert(difference <= allowed, `${tensor} [${i}]: ${ours[i]}, mergekit has ${values[i]}`);
      }
    }
  } finally {
    merged.close();
  }
}
