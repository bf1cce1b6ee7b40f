/** Small models to merge, made on the spot, and merges of them. */
import { builtins } from "../../plugins/mod.ts";
import { hostLinearAlgebra } from "../../src/distill/trained/linear_algebra.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { mergeModels, type MergeModelsOptions, type MergeResult } from "../../src/merge/merge_models.ts";
import { parseMergeRecipe } from "../../src/merge/recipe.ts";
import { withAbsolutePaths } from "../../src/merge/recipe_file.ts";
import { Registry } from "../../src/registry/registry.ts";
import { type TinyModelOptions, writeTinyModel } from "../distill/tiny_model.ts";

const registry = new Registry().addAll(builtins);

/** How tests merge. */
export const tinyOptions: MergeModelsOptions = {
  method: (id) => registry.get("merge", id),
  linalg: hostLinearAlgebra,
};

/** Calls `fn` with a folder that holds the models that are asked for, and removes it. */
export async function withModels(
  models: Readonly<Record<string, TinyModelOptions>>,
  fn: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "limbeck-merge-" }));
  try {
    for (const [name, options] of Object.entries(models)) {
      await writeTinyModel(`${folder}/${name}`, { layers: 2, hiddenSize: 16, ...options });
    }
    await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Merges as a recipe in a folder says. */
export function mergeTiny(
  folder: string,
  recipe: object,
  output = "merged",
  options: Partial<MergeModelsOptions> = {},
): Promise<MergeResult> {
  const parsed = withAbsolutePaths(parseMergeRecipe(recipe, "recipe"), folder);
  return mergeModels(parsed, `${folder}/${output}`, { ...tinyOptions, ...options });
}

/** All tensors of a model as f32. */
export async function valuesOf(path: string): Promise<Map<string, Float32Array>> {
  const model = await openModel(path);
  try {
    const values = new Map<string, Float32Array>();
    for (const name of model.tensors.keys()) {
      const { dtype, data } = await model.read(name);
      values.set(name, toFloat32(dtype, data));
    }
    return values;
  } finally {
    model.close();
  }
}

/** Names of what lies in a folder. */
export function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}
