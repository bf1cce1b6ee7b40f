/** The merges of examples/merges run as they are. */
// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl } from "@std/path";
import { toFloat32 } from "../../src/formats/dtype.ts";
import type { ModelSource } from "../../src/formats/model_source.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { mergeModels } from "../../src/merge/engine/merge_models.ts";
import { loadMergeRecipe } from "../../src/merge/recipe/recipe_file.ts";
import { tinyOptions } from "../merge/tiny_merge.ts";

const root = fromFileUrl(new URL("../..", import.meta.url));

/** Calls `fn` with what an example makes and what it is made of. */
async function merged(name: string, fn: (result: ModelSource, original: ModelSource) => Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    const recipe = await loadMergeRecipe(`${root}/examples/merges/${name}`, { cwd: root });
    await mergeModels(recipe, `${folder}/out`, tinyOptions);
    const [result, original] = [
      await openModel(`${folder}/out`),
      await openModel(`${root}/examples/stories/stories15M-q8_0.gguf`),
    ];
    await fn(result, original);
    result.close();
    original.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function values(model: ModelSource, name: string): Promise<Float32Array> {
  const { dtype, data } = await model.read(name);
  return toFloat32(dtype, data);
}

Deno.test("examples/merges/shallower.yaml has half the layers, attention weighted by filter", async () => {
  await merged("shallower.yaml", async (result, original) => {
    assertEquals(result.config.num_hidden_layers, 3);
    for (const [part, first] of [["self_attn.v_proj", 2 / 3], ["mlp.up_proj", 1 / 2]] as const) {
      const [ours, a, b] = [
        await values(result, `model.layers.2.${part}.weight`),
        await values(original, `model.layers.4.${part}.weight`),
        await values(original, `model.layers.5.${part}.weight`),
      ];
      for (const i of [0, 1, 777]) assertAlmostEquals(ours[i]!, first * a[i]! + (1 - first) * b[i]!, 1e-3);
    }
  });
});

Deno.test("examples/merges/deeper.yml adds layers that add nothing", async () => {
  await merged("deeper.yml", async (result, original) => {
    assertEquals(result.config.num_hidden_layers, 8);
    for (const layer of [3, 7]) {
      for (const part of ["self_attn.o_proj", "mlp.down_proj"]) {
        assertEquals(
          (await values(result, `model.layers.${layer}.${part}.weight`)).some((x) => x !== 0),
          false,
        );
      }
    }
    const [ours, theirs] = [
      await values(result, "model.layers.7.mlp.up_proj.weight"),
      await values(original, "model.layers.5.mlp.up_proj.weight"),
    ];
    for (const i of [0, 1, 777]) assertAlmostEquals(ours[i]!, theirs[i]!, 1e-3);
  });
});
