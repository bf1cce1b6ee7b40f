/** Universal logit distillation: whole rows sorted by the kernels of both families, against a sort in f64. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertLess } from "@std/assert";
import universalLogit from "../../plugins/losses/universal_logit.ts";
import { type ResolvedLoss } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import { assertRow, hardRows, random, withGpu } from "./hard_rows.ts";
import { assertClose, atAnyTemperature, FAMILIES, reference, type Row, runKernel, term } from "./harness.ts";
import { assertNoticed, type Mistake } from "./mistakes.ts";

/** At any temperature, as in builtins_test.ts: the texts are the same then. */
const LOSS = [atAnyTemperature(term(universalLogit))];

/** Rows whose signs are not decided by rounding: the probabilities of mirrored logits are equal in pairs. */
const rowsOf = (vocabulary: number) => hardRows(vocabulary).filter((row) => row.name !== "rising");

const softmax = (logits: ArrayLike<number>, temperature = 1): number[] => {
  const z = Array.from(logits);
  const highest = z.reduce((a, b) => Math.max(a, b));
  const e = z.map((x) => Math.exp((x - highest) / temperature));
  const sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
};

/** Compares a row of many entries, where a few differences are so small that f32 may see another sign; returns their share. */
function compareLarge(one: ResolvedLoss, row: Row, value: number, gradient: Float32Array): number {
  const { temperature } = one;
  const expected = reference([one], row);
  const [q, p] = [softmax(row.student, temperature), softmax(row.teacher, temperature).sort((a, b) => b - a)];
  const ids = q.keys().toArray().sort((a, b) => row.student[b]! - row.student[a]! || a - b);
  const unsure = new Set(ids.filter((v, i) => Math.abs(q[v]! - p[i]!) <= 1e-5 * q[v]!));
  const mass = [...unsure].reduce((sum, v) => sum + q[v]!, 0);
  assertClose([value], [expected.values[0]!], 2e-5, `${row.name}: value`);
  gradient.forEach((g, v) => {
    const allowed = (2 * q[v]! * (mass + Number(unsure.has(v))) + 1e-5 * q[v]!) / temperature + 1e-9;
    assertLess(Math.abs(g - expected.gradient[v]!), allowed, `${row.name}: gradient of entry ${v}`);
  });
  return unsure.size / q.length;
}

for (const { family } of FAMILIES) {
  for (const vocabulary of [1, 2, 65, 1025]) {
    Deno.test(`${family} universal-logit agrees with a sort in f64 at vocabulary ${vocabulary}`, async () => {
      const rows = rowsOf(vocabulary);
      await withGpu(family!, async (gpu) => {
        for (const temperature of [1, 2.5]) {
          const terms = [atAnyTemperature(term(universalLogit, {}, { temperature }))];
          const { values, gradient } = await runKernel(gpu, terms, rows);
          rows.forEach((row, r) => assertRow(terms, row, { values: values[r]!, gradient: gradient[r]! }));
        }
      });
    });
  }

  for (const vocabulary of [4099, 32_001, 150_001]) {
    Deno.test(`${family} universal-logit agrees with a sort in f64 at vocabulary ${vocabulary}`, async () => {
      const names = ["random", "tied", ...vocabulary > 100_000 ? [] : ["extreme", "padded", "one-hot"]];
      const rows = rowsOf(vocabulary).filter(({ name }) => names.includes(name));
      await withGpu(family!, async (gpu) => {
        const { values, gradient } = await runKernel(gpu, LOSS, rows);
        rows.forEach((row, r) => {
          const unsure = compareLarge(LOSS[0]!, row, values[r]![0]!, gradient[r]!);
          if (row.name === "random") assertLess(unsure, 0.05, "too little was compared");
        });
      });
    });
  }

  Deno.test(`${family} universal-logit gives exact zeros where p = q, and next to none where p is q in another order`, async () => {
    const [row] = hardRows(1025);
    const teacher = row!.student;
    const order = random(3);
    const shuffled = [...teacher].map((z) => ({ z, at: order() })).sort((a, b) => a.at - b.at);
    const rows = [
      { ...row!, teacher },
      { ...row!, teacher: Float32Array.from(shuffled, ({ z }) => z) },
    ];
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, LOSS, rows);
      assert([...values[0]!, ...gradient[0]!].every((x) => x === 0));
      assertLess(values[1]![0]!, 2e-6);
      // Which of two equal numbers is the larger one is then decided by rounding.
      const q = softmax(teacher);
      gradient[1]!.forEach((g, v) => assertLess(Math.abs(g), 2.0001 * q[v]!));
    });
  });

  Deno.test(`${family} universal-logit takes tied tokens in the order of their ids`, async () => {
    // Copies of three logits: of each half of the first copies one half lies below the teacher's, the other above. As many as share a text
    // with rows of 1025.
    const copies = 343;
    const make = (...p: number[]) =>
      Float32Array.from({ length: 3 * copies }, (_, v) => Math.log(p[v % 3]! / copies));
    const student = make(0.4, 0.4, 0.2);
    const row: Row = { name: "ties", student, teacher: make(0.5, 0.35, 0.15), label: 0 };
    const tied = [...student.keys()].filter((v) => v % 3 < 2);
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, LOSS, [row]);
      assertRow(LOSS, row, { values: values[0]!, gradient: gradient[0]! });
      assertEquals(
        tied.map((v) => Math.sign(gradient[0]![v]!)),
        tied.map((_, i) => i < copies ? -1 : 1),
      );
    });
  });
}

// What follows is in the loss's own text, the same for both families; these kernels compile sooner.
const FAMILY = "tiled";

/** Mistakes that the comparison above must notice. */
const MISTAKES: Record<string, Mistake> = {
  "the sign bit is not sorted": [/shift < 32u/g, "shift < select(32u, 24u, WRONG)"],
  "a sort that is not stable": [
    /\* loss0_SORTERS \+ lane;/g,
    "* loss0_SORTERS + select(lane, loss0_SORTERS - 1u - lane, WRONG);",
  ],
  "the end of a lane's share left out": [/i \+ 1u <= end/g, "i + select(1u, 2u, WRONG) <= end"],
  "one sign for all": [/sign\(q - p\)/, "select(sign(q - p), 1.0, WRONG)"],
  "slopes of other tokens": [/_slopes \+ id/, "_slopes + select(id, i, WRONG)"],
  "the mean of the slopes forgotten": [/ - loss0_mean\)/, " - select(loss0_mean, 0.0, WRONG))"],
};
Deno.test("universal-logit with planted mistakes fails", async () => {
  const rows = rowsOf(1025).filter(({ label }) => label >= 0);
  await withGpu(
    FAMILY,
    (gpu) => assertNoticed(gpu, LOSS, rows, MISTAKES, (row, got) => assertRow(LOSS, row, got)),
  );
});

Deno.test("universal-logit in f64 is the distance between sorted probabilities", () => {
  const logits = (...p: number[]) => Float64Array.from(p, Math.log);
  const [q, p] = [logits(0.1, 0.6, 0.3), logits(0.25, 0.05, 0.7)];
  const { values, gradient } = referenceRow(LOSS, q, p, 0);
  // Sorted: 0.6, 0.3, 0.1 beside 0.7, 0.25, 0.05; slopes -1, 1, 1, whose mean under q is -0.2.
  assertAlmostEquals(values[0]!, 0.2, 1e-12);
  assertClose(gradient, [0.1 * 1.2, 0.6 * -0.8, 0.3 * 1.2], 1e-12, "gradient");
});

Deno.test("universal-logit counts what -Infinity pads as probability 0, as the paper pads the shorter vocabulary", () => {
  const student = Float64Array.of(0.3, -1, 2, 0.7, -0.2);
  const teacher = Float64Array.of(1, 0, -0.5, -Infinity, -Infinity);
  const [q, p] = [student, teacher.subarray(0, 3)].map((z) => softmax(z).sort((a, b) => b - a));
  const expected = q!.reduce((sum, x, i) => sum + Math.abs(x - (p![i] ?? 0)), 0);
  assertAlmostEquals(referenceRow(LOSS, student, teacher, 0).values[0]!, expected, 1e-12);
});
