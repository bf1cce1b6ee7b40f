/** Monitors against counting by hand, on both kernel families. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  confidence,
  MONITORS,
  teacherFirstAmong,
  withCalibrationError,
} from "../../src/distill/objective/monitors.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import { hardRows, random, withGpu } from "./hard_rows.ts";
import { assertClose, FAMILIES, reference, type Row, runKernel, term } from "./harness.ts";

const measured = [...MONITORS, confidence, teacherFirstAmong(5)];
const terms = measured.map((loss) => term(loss, {}, { monitor: true, name: loss.id }));

/** Rows whose student is right now and then, from unsure to sure. */
function rows(count: number, vocabulary: number): Row[] {
  const next = random(21);
  return Array.from({ length: count }, (_, r) => {
    const teacher = Float32Array.from({ length: vocabulary }, () => 8 * next());
    const student = teacher.map((z) => (0.1 + r / count) * z + 2 * next());
    return { name: String(r), student, teacher, label: r % 2 ? student.indexOf(Math.max(...student)) : 3 };
  });
}

function softmax(z: Float32Array): number[] {
  const high = Math.max(...z);
  const e = [...z].map((x) => Math.exp(x - high));
  const sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
}

/** The same from the definitions; ECE with its bins' accuracies and confidences, as in Guo et al. */
function expected(list: readonly Row[]): Record<string, number> {
  const mean = (f: (row: Row, p: number[], q: number[]) => number) =>
    list.reduce((sum, row) => sum + f(row, softmax(row.teacher), softmax(row.student)), 0) / list.length;
  const top = (z: Float32Array, k: number) => [...z.keys()].sort((a, b) => z[b]! - z[a]!).slice(0, k);
  const entropy = (p: number[]) => -p.reduce((sum, x) => sum + x * Math.log(x), 0);
  const isRight = (row: Row) => Number(top(row.student, 1)[0] === row.label);
  let error = 0;
  for (let bin = 0; bin < 15; bin++) {
    const inside = list.filter((row) => Math.ceil(Math.max(...softmax(row.student)) * 15) - 1 === bin);
    if (inside.length === 0) continue;
    const average = (f: (row: Row) => number) => inside.reduce((sum, row) => sum + f(row), 0) / inside.length;
    const gap = Math.abs(average(isRight) - average((row) => Math.max(...softmax(row.student))));
    error += inside.length / list.length * gap;
  }
  return {
    "reverse-kl": mean((_, p, q) => q.reduce((sum, x, v) => sum + x * Math.log(x / p[v]!), 0)),
    "teacher-entropy": mean((_, p) => entropy(p)),
    "student-entropy": mean((_, __, q) => entropy(q)),
    "top-1-agreement": mean((row) => Number(top(row.student, 1)[0] === top(row.teacher, 1)[0])),
    "top-1-accuracy": mean(isRight),
    "top-5-overlap": mean((row) =>
      top(row.student, 5).filter((v) => top(row.teacher, 5).includes(v)).length / 5
    ),
    "top-5-consistency": mean((row) =>
      top(row.student, 5).filter((v, place) => v === top(row.teacher, 5)[place]).length / 5
    ),
    confidence: mean((_, __, q) => Math.max(...q)),
    "teacher-first-in-top-5": mean((row) => Number(top(row.student, 5).includes(top(row.teacher, 1)[0]!))),
    "expected-calibration-error": error,
  };
}

/** Rows of a dispatch. */
const COUNT = 60;
/** One text a family, as they take long to compile: a part of a turn, and whole turns with a part. */
const VOCABULARIES: Record<KernelFamily, readonly number[]> = { tiled: [1, 37], subgroup8: [261] };

for (const { family } of FAMILIES) {
  Deno.test(`${family} monitors agree with their definitions`, async () => {
    const list = rows(COUNT, VOCABULARIES[family!].at(-1)!);
    await withGpu(family!, async (gpu) => {
      const { values } = await runKernel(gpu, terms, list, { gradient: false });
      const losses = Object.fromEntries(
        terms.map(({ name }, k) => [name, values.reduce((sum, row) => sum + row[k]!, 0) / list.length]),
      );
      const found = withCalibrationError({ losses, tokens: list.length });
      const wanted = expected(list);
      assertEquals(Object.keys(found.losses), Object.keys(wanted));
      for (const [name, value] of Object.entries(wanted)) {
        assertAlmostEquals(found.losses[name]!, value, 2e-5, name);
      }
    });
  });

  Deno.test(`${family} monitors agree with referenceRow() on hard rows`, async () => {
    for (const vocabulary of VOCABULARIES[family!]) {
      // As many rows as above: for another number the software driver compiles this kernel again, a second or two.
      const hard = hardRows(vocabulary);
      const list = Array.from({ length: COUNT }, (_, r) => hard[r % hard.length]!);
      await withGpu(family!, async (gpu) => {
        const { values } = await runKernel(gpu, terms, list, { gradient: false });
        list.forEach((row, r) => {
          const { values: wanted } = reference(terms, row);
          terms.forEach(({ name }, k) =>
            assertClose([values[r]![k]!], [wanted[k]!], 1e-4, `${name}, ${row.name}, ${vocabulary}`)
          );
        });
      });
    }
  });
}

Deno.test("a loss's own monitors are measured beside it on held-out samples: RLKD's share of tokens with a gradient", async () => {
  const objective = Objective.of(
    new Registry().addAll(builtins),
    parseRecipe({
      ...{ teacher: { model: "t" }, student: { model: "s" }, data: { train: "d" } },
      objective: [{ loss: "forward-kl" }, { loss: "rank-correlation", options: { k: 3, epsilon: 1 } }],
    }).objective,
    37,
  );
  const name = "rank-correlation rank-gradient-share";
  assert(!objective.terms.some((t) => t.name === name), "it is no part of a training step");
  const share = objective.evaluation.terms.find((t) => t.name === name)!;
  assertEquals([share.options.k, share.monitor], [3, true]);
  // Favourites of both models are the tokens 0, 1 and 2. Apart by more than epsilon their ranks are hard, whatever the order.
  const row = (name: string, ...first: number[]): Row => {
    const logits = (some: number[]) => Float32Array.from({ length: 37 }, (_, v) => some[v] ?? -3);
    return { name, student: logits(first), teacher: logits([9, 7, 5]), label: 0 };
  };
  const list = [
    row("hard and wrong", 2, 9, 5),
    row("soft and wrong", 8, 8.5, 6),
    row("soft and right", 8.5, 8, 6),
    row("hard and right", 9, 7, 2),
  ];
  await withGpu("tiled", async (gpu) => {
    const { values } = await runKernel(gpu, [share], list, { gradient: false });
    assertEquals(values.map(([value]) => value), [0, 1, 1, 0]);
  });
  assertEquals(list.map((row) => reference([share], row).values[0]), [0, 1, 1, 0]);
});
