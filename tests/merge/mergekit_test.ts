/** How files written for mergekit are read, and which are refused. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { parseMergekit } from "../../src/merge/recipe/mergekit.ts";
import { MergeRecipeError, parseMergeRecipe } from "../../src/merge/recipe/recipe.ts";

const plain = { merge_method: "task_arithmetic", base_model: "b", models: [{ model: "m" }] };

Deno.test("mergekit's fields come out in our words", () => {
  const recipe = parseMergekit({
    merge_method: "dare_ties",
    base_model: "base",
    slices: [{
      sources: [{ model: "a", layer_range: [0, 2], parameters: { weight: [0, 1] } }, {
        model: "base",
        layer_range: [0, 2],
      }],
      parameters: { density: 0.5 },
    }],
    parameters: { int8_mask: true, normalize: true },
    dtype: "float32",
    out_dtype: "bfloat16",
    tokenizer_source: "union",
  }, "m.yml");
  assertEquals([recipe.method, recipe.base, recipe.dtype, recipe.outDtype], [
    "dare-ties",
    "base",
    "f32",
    "bf16",
  ]);
  assertEquals(recipe.vocabulary, { of: "union" });
  assertEquals(recipe.options, { normalize: true });
  assertEquals(recipe.slices[0]!.options, { density: 0.5 });
  assertEquals(recipe.slices[0]!.sources[0], {
    model: "a",
    layers: [0, 2],
    options: { weight: [0, 1] },
    where: "slices.0.sources.0",
  });
  assertEquals(recipe.notes, ["int8_mask has no effect on the result, here as in mergekit"]);
});

Deno.test("a base that is not among mergekit's models is one more source", () => {
  const sources = (value: unknown) =>
    parseMergekit(value, "m.yml").slices[0]!.sources.map(({ model }) => model);
  assertEquals(sources(plain), ["m", "b"]);
  assertEquals(sources({ ...plain, models: [{ model: "b" }, { model: "m" }] }), ["b", "m"]);
});

const REFUSED: readonly [name: string, value: unknown, said: string][] = [
  ["modules", { merge_method: "linear", modules: { a: {} } }, "modules: models of several modules"],
  ["residual_weight", slice({ residual_weight: 1 }), "slices.0.residual_weight: is not supported"],
  ["a slice's base", slice({ base_model: "a" }), "slices.0.base_model: one base"],
  [
    "tokens",
    { ...plain, tokenizer: { source: "base", tokens: {} } },
    "tokenizer.tokens: embeddings of single tokens",
  ],
  [
    "pad_to_multiple_of",
    { ...plain, tokenizer: { source: "base", pad_to_multiple_of: 8 } },
    "are not padded",
  ],
  [
    "an adapter",
    { ...plain, models: [{ model: "m+lora" }] },
    'models.0.model: "m+lora" names a model with an',
  ],
  ["a dtype", { ...plain, dtype: "float8" }, "dtype: must be float32, float16 or bfloat16"],
  ["both kinds of input", { ...plain, ...slice({}) }, "models: give either models"],
  ["neither", { merge_method: "linear" }, "models: give either models"],
  [
    "two tokenizers",
    { ...plain, tokenizer_source: "base", tokenizer: { source: "base" } },
    "tokenizer: give",
  ],
  [
    "no base's tokens",
    { merge_method: "linear", models: [{ model: "m" }], tokenizer_source: "base" },
    "no base",
  ],
  ["a template by name", { ...plain, chat_template: "chatml" }, 'chat_template: "chatml" is no Jinja'],
  [
    "a misspelt field",
    { ...plain, base_modle: "b" },
    'base_modle: there is no such field; did you mean "base_',
  ],
  ["text gradients", { ...plain, parameters: { t: ["a", "b"] } }, "parameters.t"],
  ["an empty gradient", { ...plain, parameters: { t: [] } }, "parameters.t"],
];

function slice(more: object): object {
  return { merge_method: "linear", slices: [{ sources: [{ model: "a", layer_range: [0, 1] }], ...more }] };
}

for (const [name, value, said] of REFUSED) {
  Deno.test(`a file for mergekit with ${name} is refused by the field's name`, () => {
    const error = assertThrows(() => parseMergekit(value, "m.yml"), MergeRecipeError);
    assertStringIncludes(error.message, said);
    assertStringIncludes(error.message, "m.yml");
  });
}

Deno.test("our own recipe has options beside each model, and says what is wrong with its path", () => {
  const recipe = parseMergeRecipe({
    method: "ties",
    base: "b",
    models: [{ model: "m", weight: 0.5, density: [0.2, 0.8] }],
    options: { lambda: 0.9 },
    tokenizer: "./t",
  }, "r.yaml");
  assertEquals(recipe.slices[0]!.sources[0]!.options, { weight: 0.5, density: [0.2, 0.8] });
  assertEquals([recipe.vocabulary, recipe.seed], [{ of: "model", model: "./t" }, 0]);
  const refused = (value: unknown) =>
    assertThrows(() => parseMergeRecipe(value, "r.yaml"), MergeRecipeError).message;
  assertStringIncludes(
    refused({ methd: "ties", models: [{ model: "m" }] }),
    "methd: there is no such field; did",
  );
  assertStringIncludes(refused({ method: "ties", models: [{ weight: 1 }] }), "models.0.model: is missing");
  assertStringIncludes(
    refused({ method: "ties", models: [{ model: "m", weight: null }] }),
    "models.0.weight",
  );
  assertStringIncludes(refused({ method: "ties" }), "models: give either models");
  assertStringIncludes(
    refused({ method: "ties", slices: [{ sources: [{ model: "m" }] }] }),
    "slices.0.sources.0.layers: is missing",
  );
});
