/** Small models to merge, made on the spot, and merges of them. */
import { builtins } from "../../plugins/mod.ts";
import { exactLinearAlgebra } from "../../src/linalg/host.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import { openModel } from "../../src/formats/open_model.ts";
import {
  mergeModels,
  type MergeModelsOptions,
  type MergeResult,
} from "../../src/merge/engine/merge_models.ts";
import { parseMergeRecipe } from "../../src/merge/recipe/recipe.ts";
import { withAbsolutePaths } from "../../src/merge/recipe/recipe_file.ts";
import { Registry } from "../../src/registry/registry.ts";
import { type TinyModelOptions, writeTinyModel } from "../distill/tiny_model.ts";

const registry = new Registry().addAll(builtins);

/** How tests merge. */
export const tinyOptions: MergeModelsOptions = {
  method: (id) => registry.get("merge", id),
  linalg: exactLinearAlgebra,
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

/** Gives a tiny model's tokenizer two tokens in each other's place and a new one, whose row is a copy of the first rows. */
export async function exchangeTokens(path: string, first: string, second: string, added: string) {
  const model = await openModel(path);
  const files = await model.tokenizer();
  const json = structuredClone(files.tokenizerJson) as {
    added_tokens: object[];
    model: { vocab: Record<string, number> };
  };
  const { vocab } = json.model;
  const ids = { first: vocab[first]!, second: vocab[second]!, added: Object.keys(vocab).length };
  [vocab[first], vocab[second]] = [ids.second, ids.first];
  json.added_tokens.push({ id: ids.added, content: added, special: true, normalized: false });
  const tensors = new Map(
    [...model.tensors].map(([name, { shape }]): [string, number[]] => [name, [...shape]]),
  );
  const widened = ["model.embed_tokens.weight", "lm_head.weight"];
  for (const name of widened) tensors.get(name)![0]!++;
  const read = async (name: string) => {
    const tensor = await model.read(name);
    if (!widened.includes(name)) return tensor;
    const data = new Float32Array(tensor.data.length + 16);
    data.set(tensor.data);
    data.set(tensor.data.subarray(0, 16), tensor.data.length);
    return { ...tensor, shape: tensors.get(name)!, data };
  };
  await writeHuggingFaceFolder(path, {
    config: { ...model.config, vocab_size: ids.added + 1 },
    tokenizer: { tokenizerJson: json, tokenizerConfig: files.tokenizerConfig },
    tensors,
    read,
  }, { dtype: "f32", replace: true });
  model.close();
  return ids;
}
