/** An adapter with random values for everything that is trained, as exports get it. */
import type { AdapterOrigin } from "../../src/distill/export/adapter_files.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { tinySetup } from "../distill/tiny_model.ts";
import { randomArray } from "../tensor/harness.ts";

/** `setup` is to be disposed of; `origin` names "base" as the model that the adapter belongs on. */
export async function trained(recipe: Recipe) {
  const setup = await tinySetup(recipe);
  const { adapter, student, trainables: { layout } } = setup;
  const flat = new Float32Array(layout.total);
  const random = new Map(layout.parameters.map((p, i) => [p.name, randomArray(p.count, i + 1, 0.2)]));
  layout.scatter(flat, random);
  const { seed } = recipe.train;
  const origin: AdapterOrigin = {
    baseModel: "base",
    recipe: adapter.recipe,
    seed,
  };
  return { setup, adapter, student, flat, values: await adapter.namedValues(random, seed), origin };
}
