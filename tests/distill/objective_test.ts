/** The objective as a recipe describes it: courses of weights, temperatures and options, and what is refused. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import type { ObjectiveTermInput } from "../../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import { type Course, courseAt } from "../../src/distill/recipe/schedule.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { InputError } from "../../src/base/errors.ts";
import { Registry } from "../../src/registry/registry.ts";
import { tinyRecipe, withTiny } from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

const registry = new Registry().addAll(builtins);

function recipe(...objective: ObjectiveTermInput[]) {
  return parseRecipe({ teacher: { model: "t" }, student: { model: "s" }, data: { train: "d" }, objective });
}

const objective = (...terms: ObjectiveTermInput[]) => Objective.of(registry, recipe(...terms).objective, 64);

Deno.test("courseAt() holds both ends and is straight, or slow at both ends, or at once, between them", () => {
  const course = (shape: Course["shape"]): Course => ({ from: 4, to: 0, steps: [10, 20], shape });
  const at = (shape: Course["shape"]) => [0, 10, 12.5, 15, 19, 20, 21].map((s) => courseAt(s, course(shape)));
  assertEquals(at("linear"), [4, 4, 3, 2, 0.4, 0, 0].map((x, i) => i === 4 ? at("linear")[4]! : x));
  assertAlmostEquals(at("linear")[4]!, 0.4, 1e-12);
  assertEquals(at("constant"), [4, 4, 4, 4, 4, 0, 0]);
  const cosine = [4, 4, 2 + Math.SQRT2, 2];
  at("cosine").slice(0, 4).forEach((x, i) => assertAlmostEquals(x, cosine[i]!, 1e-12));
  assertEquals([5, 7].map((s) => courseAt(s, { ...course("linear"), steps: [6, 6] })), [4, 0]);
  assertEquals(courseAt(Infinity, course("linear")), 0);
});

Deno.test("Objective.at() is a function of the step, temperature^2 included", () => {
  const { terms, evaluation, at } = (() => {
    const made = objective(
      { loss: "forward-kl", weight: 0.5, temperature: 3, squareTemperature: true },
      {
        loss: "taid",
        schedule: {
          t: { from: 0.4, to: 1, steps: [0, 6] },
          temperature: { from: 4, to: 2, steps: [0, 2], shape: "constant" },
          weight: { from: 0, to: 2, steps: [2, 4] },
        },
        squareTemperature: true,
      },
    );
    return { terms: made.passes[0]!.terms, evaluation: made.evaluation, at: made.at.bind(made) };
  })();
  assertEquals(terms.map((t) => t.weight), [4.5, 0]);
  assertEquals(terms[1]!.temperatureVaries, true);
  const numbers = [0, 3, 9].map((step) => {
    const { weight, temperature, options } = at(step)[1]!;
    return [weight, temperature, Math.round(1e9 * Number(options.t)) / 1e9];
  });
  assertEquals(numbers, [[0, 4, 0.4], [4, 2, 0.7], [8, 2, 1]]);
  const measured = evaluation.terms.find((t) => t.name === "taid")!;
  assertEquals([measured.temperature, measured.options.t, measured.monitor], [2, 1, true]);
  assert(evaluation.names.includes("forward-kl at 3"));
});

Deno.test("Objective measures each monitor once, also where the objective has it", () => {
  const { names } = objective({ loss: "reverse-kl" }, { loss: "cross-entropy" }).evaluation;
  assertEquals(names.filter((n) => n === "reverse-kl").length, 1);
  assertEquals(new Set(names).size, names.length);
  const { terms } = objective({ loss: "reverse-kl", temperature: 2 }).evaluation;
  const found = terms.filter((t) => t.name.startsWith("reverse-kl")).map((t) => [t.name, t.temperature]);
  assertEquals(found, [["reverse-kl at 2", 2], ["reverse-kl", 1]]);
});

Deno.test("a schedule of something that cannot change, or leaves what is allowed, is refused by its path", () => {
  const steps: [number, number] = [0, 5];
  const error = assertThrows(
    () => objective({ loss: "jensen-shannon", schedule: { beta: { from: 0, to: 1, steps } } }),
    InputError,
  );
  assert(`${error.where} ${error.hint}`.includes("objective.0.schedule.beta"), String(error.where));
  assertThrows(
    () => objective({ loss: "taid", schedule: { t: { from: 0, to: 2, steps } } }),
    InputError,
    "objective.0.options",
  );
  assertThrows(
    () => objective({ loss: "forward-kl", schedule: { temperature: { from: 1, to: 0, steps } } }),
    InputError,
    "temperature",
  );
  assertThrows(
    () => recipe({ loss: "taid", schedule: { t: { from: 0, to: 1, steps: [9, 5] } } }),
    RecipeError,
    "objective.0.schedule.t.steps",
  );
});

Deno.test("a weight of 0 that rises is a weight", () => {
  recipe({ loss: "forward-kl", weight: 0, schedule: { weight: { from: 0, to: 1, steps: [0, 5] } } });
  assertThrows(() => recipe({ loss: "forward-kl", weight: 0 }), RecipeError);
});

Deno.test("a run follows the courses of its objective, and one that does not change is as none", async () => {
  await withTiny(async (files) => {
    const run = async (name: string, ...terms: ObjectiveTermInput[]) => {
      const events: RunEventBody[] = [];
      const changes = { objective: terms, train: { steps: 4 } };
      await runHere(tinyRecipe(files, changes), `${files.folder}/${name}`, {}, events);
      return heldMetrics(events);
    };
    const steps: [number, number] = [2, 2];
    const ce = { loss: "cross-entropy", weight: 0.5 };
    const course = (name: string, from: number, to: number) => ({ [name]: { from, to, steps } });
    const changing = await run("a", ce, {
      loss: "forward-kl",
      squareTemperature: true,
      schedule: { ...course("weight", 0.5, 0.25), ...course("temperature", 1, 2) },
    });
    const metrics = changing.filter((row) => row.type === "metrics");
    assertEquals(metrics.length, 4);
    metrics.forEach((row, step) => {
      const losses = row.losses as Record<string, number>;
      const weight = step < 2 ? 0.5 : 0.25 * 4;
      const expected = 0.5 * losses["cross-entropy"]! + weight * losses["forward-kl"]!;
      assertAlmostEquals(Number(row.loss), expected, 1e-9);
    });
    const fixed = await run("b", ce, { loss: "forward-kl", weight: 0.5, temperature: 2 });
    const still = await run("c", ce, {
      loss: "forward-kl",
      weight: 0.5,
      schedule: course("temperature", 2, 2),
    });
    assertEquals(still, fixed);
    assert(JSON.stringify(fixed) !== JSON.stringify(changing));
    const evaluation = fixed.find((row) => row.type === "evaluation" && row.model === "student")!;
    for (const name of ["top-1-agreement", "expected-calibration-error", "forward-kl at 2"]) {
      assert(Number.isFinite((evaluation.losses as Record<string, number>)[name]), name);
    }
  });
});
