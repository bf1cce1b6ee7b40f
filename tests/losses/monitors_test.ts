/** Monitors against counting by hand, on both kernel families. */
// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { MONITORS, withCalibrationError } from "../../src/distill/monitors.ts";
import { hardRows, random, withGpu } from "./hard_rows.ts";
import { assertClose, FAMILIES, reference, type Row, runKernel, term } from "./harness.ts";

const terms = MONITORS.map((loss) => term(loss, {}, { monitor: true, name: loss.id }));

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
  const e = [...z].map((x) => Math.exp(x - Math.max(...z)));
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
    "expected-calibration-error": error,
  };
}

for (const { family } of FAMILIES) {
  Deno.test(`${family} monitors agree with their definitions`, async () => {
    const list = rows(60, 37);
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
    for (const vocabulary of [1, 4, 513]) {
      const list = hardRows(vocabulary);
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
