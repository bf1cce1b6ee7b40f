/** Tasks of a comparison: means over seeds, and differences over items and over seeds, by hand. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Measurement } from "../../src/evaluation/results/measurement.ts";
import { comparedTasks } from "../../src/runs/compare/compared_tasks.ts";
import { fineTuningTwin } from "../../src/runs/compare/twin.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";

/** A measurement of right and wrong answers, and of a figure that is no mean over them. */
function measured(right: readonly number[], error: number): Measurement {
  const share = right.reduce((sum, one) => sum + one, 0) / right.length;
  return {
    figures: [
      { key: "accuracy", title: "accuracy", better: "higher", value: share, values: right },
      { key: "error", title: "error", better: "lower", value: error },
    ],
    ...{ unit: "questions", items: right.length, counts: {} },
  };
}

Deno.test("seeds are paired, and are no further items", () => {
  const run = (seed: number | null, right: readonly number[], error = 0.1) => ({
    seed,
    measurements: [measured(right, error)],
  });
  const [task] = comparedTasks([{ name: "t", kind: "multiple-choice" }], [
    { name: "a", measured: [run(1, [1, 0, 0, 0]), run(2, [1, 1, 0, 0])] },
    // Its second seed is not done; seed 3 has no pair.
    { name: "b", measured: [run(1, [1, 1, 1, 0], 0.3), run(3, [0, 0, 0, 0])] },
    { name: "base", measured: [run(null, [0, 0, 0, 0])] },
    { name: "nothing", measured: [] },
    { name: "longer", measured: [run(1, [1, 1, 1, 1, 1])] },
  ]);
  const [accuracy, error] = task!.figures;
  assertEquals(Object.keys(accuracy!.values), ["a", "b", "base", "longer"]);
  assertEquals([accuracy!.values.a!.mean, accuracy!.values.a!.n], [0.375, 2]);
  const [b, base, longer] = accuracy!.differences;
  assertEquals([b!.other, b!.runs, b!.overItems!.difference, b!.overSeeds], ["b", 1, 0.5, null]);
  assertEquals([b!.overItems!.items, b!.overItems!.low, b!.overItems!.high], [4, 0, 1]);
  // One model against both runs: of each question the mean over them.
  assertEquals([base!.runs, base!.overItems!.difference, base!.overItems!.items], [2, -0.375, 4]);
  assertAlmostEquals((base!.overSeeds!.low + base!.overSeeds!.high) / 2, -0.375, 1e-12);
  // Other items cannot be paired.
  assertEquals([longer!.runs, longer!.overItems], [1, null]);
  assertEquals(error!.differences[0]!.overItems, null);
  assertEquals(comparedTasks([{ name: "t", kind: "rouge" }], []), []);
});

Deno.test("the twin of a recipe learns by the next token alone, and by nothing else otherwise", () => {
  const recipe = parseRecipe({
    teacher: { model: "t", cache: { topK: 8 } },
    student: { model: "teacher", layers: [0] },
    data: { train: "d" },
    objective: [{ loss: "cross-entropy" }, { loss: "taid", temperature: 2, tokens: "all" }],
  });
  const named = (name: string, objective = recipe.objective) => ({
    name,
    file: "r.yaml",
    recipe: { ...recipe, objective },
  });
  const twin = fineTuningTwin([named("fine-tuning")])!;
  assertEquals(twin.name, "fine-tuning-2");
  assertEquals(twin.recipe.objective, [{ loss: "cross-entropy", weight: 1, temperature: 1, options: {} }]);
  const { objective: _own, teacher: kept, ...rest } = twin.recipe;
  const { objective: _its, teacher, ...others } = recipe;
  assertEquals([rest, kept], [others, teacher]);
  assertEquals(fineTuningTwin([named("a"), named("b", twin.recipe.objective)]), undefined);
  assert(fineTuningTwin([named("a"), named("b")]) !== undefined);
});
