/** What each tensor of a merge is made of, and with which options. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes } from "@std/assert";
import { openModel } from "../../src/formats/open_model.ts";
import { previewMerge } from "../../src/merge/engine/merge_models.ts";
import { parseMergekit } from "../../src/merge/recipe/mergekit.ts";
import type { MergePlan } from "../../src/merge/engine/plan.ts";
import { type MergeRecipe, parseMergeRecipe } from "../../src/merge/recipe/recipe.ts";
import { withAbsolutePaths } from "../../src/merge/recipe/recipe_file.ts";
import { mergeTiny, tinyOptions, valuesOf, withModels } from "./tiny_merge.ts";

const MODELS = { base: { layers: 3 }, a: { layers: 3, seed: 2 }, b: { layers: 3, seed: 3 } };

function planned(folder: string, recipe: MergeRecipe): Promise<MergePlan> {
  return previewMerge(withAbsolutePaths(recipe, folder), tinyOptions);
}

const ours = (value: object) => parseMergeRecipe(value, "recipe");

/** An option of the first parent of a tensor, or of the method. */
function optionsOf({ tensors }: MergePlan, name: string) {
  const { options, parents } = tensors.find((tensor) => tensor.name === `model.${name}.weight`)!;
  return { method: options, parents: parents.map(({ options }) => options) };
}

Deno.test("a model's option comes before its slice's, and that before the recipe's", async () => {
  await withModels(MODELS, async (folder) => {
    const plan = await planned(
      folder,
      ours({
        method: "ties",
        base: "base",
        slices: [
          {
            sources: [{ model: "a", layers: [0, 1], density: 0.1 }, { model: "b", layers: [0, 1] }],
            options: { density: 0.2, lambda: 0.7 },
          },
          { sources: [{ model: "a", layers: [1, 3], weight: 3 }, { model: "b", layers: [1, 3] }] },
        ],
        options: { density: 0.3, lambda: 0.8, weight: 2 },
      }),
    );
    const first = optionsOf(plan, "layers.0.mlp.up_proj");
    assertEquals(first.parents, [{ density: 0.1, weight: 2 }, { density: 0.2, weight: 2 }]);
    assertEquals(first.method.lambda, 0.7);
    const second = optionsOf(plan, "layers.2.mlp.up_proj");
    assertEquals(second.parents, [{ density: 0.3, weight: 3 }, { density: 0.3, weight: 2 }]);
    assertEquals(second.method.lambda, 0.8);
    assertEquals(optionsOf(plan, "embed_tokens"), first);
    assertEquals(optionsOf(plan, "norm"), second);
    // The base has the layers of the others.
    assertEquals(
      plan.tensors.map(({ name, base }) => [name, base!.name]).filter(([a, b]) => a !== b),
      [],
    );
  });
});

Deno.test("filters of models see the names of their own tensors, those of the method the result's", async () => {
  await withModels(MODELS, async (folder) => {
    const filtered = (filter: string, value: unknown) => [{ filter, value }];
    const plan = await planned(
      folder,
      ours({
        method: "linear",
        slices: [{
          sources: [
            { model: "a", layers: [1, 2], weight: filtered("layers.1.", 5) },
            { model: "b", layers: [2, 3], weight: filtered("layers.0.", 7) },
          ],
        }],
        options: { normalize: filtered("layers.0.", false) },
      }),
    );
    const { method, parents } = optionsOf(plan, "layers.0.mlp.up_proj");
    assertEquals(parents, [{ weight: 5 }, { weight: 1 }]);
    assertEquals(method, { normalize: false });
    assertEquals(optionsOf(plan, "norm"), {
      method: { normalize: true },
      parents: [{ weight: 1 }, { weight: 1 }],
    });
  });
});

Deno.test("a gradient is read at its end where a slice has one layer, and at its start outside of layers", async () => {
  await withModels(MODELS, async (folder) => {
    const source = (model: string) => ({ model, layers: [0, 1] });
    const plan = await planned(
      folder,
      ours({
        method: "slerp",
        slices: [{ sources: [source("a"), source("b")], options: { t: [0.25, 0.5, 0.75] } }],
      }),
    );
    assertEquals(optionsOf(plan, "layers.0.mlp.up_proj").method.t, 0.75);
    assertEquals(optionsOf(plan, "embed_tokens").method.t, 0.25);
    assertEquals(optionsOf(plan, "norm").method.t, 0.25);
  });
});

Deno.test("the base of slerp is its first model whatever the order, and of linear one like any other", async () => {
  await withModels(MODELS, async (folder) => {
    const sources = async (method: string, ...models: string[]) => {
      const recipe = parseMergekit({
        merge_method: method,
        base_model: "base",
        models: models.map((model) => ({ model })),
        parameters: { t: 0.5 },
      }, "m.yml");
      const { tensors: [{ base, parents }] } = await planned(folder, recipe) as never as {
        tensors: { base?: { parent: string }; parents: { parent: string }[] }[];
      };
      return [base?.parent, ...parents.map(({ parent }) => parent)].map((path) => path?.split("/").at(-1));
    };
    assertEquals(await sources("slerp", "a", "base"), [undefined, "base", "a"]);
    assertEquals(await sources("slerp", "a"), [undefined, "base", "a"]);
    assertEquals(await sources("linear", "a", "base"), [undefined, "a", "base"]);
    assertEquals(await sources("linear", "a"), [undefined, "a", "base"]);
    assertEquals(await sources("task_arithmetic", "a", "base", "b"), ["base", "a", "b"]);
    assertEquals(await sources("nuslerp", "a", "b"), ["base", "a", "b"]);
    assertEquals(await sources("task_arithmetic", "./base/", "./a"), ["base", "a"]);
  });
});

Deno.test("what mergekit's file varies by tensor is not looked for in whole models", async () => {
  await withModels(MODELS, async (folder) => {
    const plan = (density: unknown, like?: string) =>
      planned(folder, {
        ...parseMergekit({
          merge_method: "ties",
          base_model: "base",
          models: [{ model: "a", parameters: { density } }, { model: "b", parameters: { density: 0.5 } }],
        }, "m.yml"),
        like,
      });
    const trim = ({ tensors }: MergePlan) => tensors[0]!.options.trim;
    assertEquals(trim(await plan(0.5)), "model");
    const varied = await plan([0.2, 0.8]);
    assertEquals(trim(varied), "tensor");
    assertStringIncludes(varied.notes.join(), "so ties goes by tensor, as mergekit does");
    assertEquals(trim(await plan(0.5, "mergekit")), "tensor");
  });
});

Deno.test("rows that stand for no token stay with the base's tokens, and make way for new ones", async () => {
  await withModels({ a: { vocabularySize: 220 }, b: { seed: 2 } }, async (folder) => {
    const models = [{ model: "a" }, { model: "b" }];
    await mergeTiny(folder, { method: "linear", base: "a", tokenizer: "base", models });
    const [a, merged] = await Promise.all(["a", "merged"].map((name) => valuesOf(`${folder}/${name}`)));
    const last = (values: Map<string, Float32Array>) =>
      values.get("model.embed_tokens.weight")!.slice(219 * 16);
    assertEquals(last(merged!), last(a!));
    const model = await openModel(`${folder}/merged`);
    assertEquals(model.config.vocab_size, 220);
    model.close();
    const plan = await planned(folder, ours({ method: "linear", tokenizer: "union", models }));
    assertEquals(plan.vocabulary.rows, 220, "there is nothing new, so nothing makes way");
    assertStringIncludes(String(plan.config.vocab_size), "220");
  });
});
