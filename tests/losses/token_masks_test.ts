/** Row kernels with token masks: each loss counts only in the rows of its own mask. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { type ResolvedLoss } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import centredLogitMse from "../../plugins/losses/centred_logit_mse.ts";
import crossEntropy from "../../plugins/losses/cross_entropy.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import pairwiseRanking from "../../plugins/losses/pairwise_ranking.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import softCrossEntropy from "../../plugins/losses/soft_cross_entropy.ts";
import { assertRow, hardRows, withGpu } from "./hard_rows.ts";
import {
  assertClose,
  atAnyTemperature,
  FAMILIES,
  type Outcome,
  reference,
  type Row,
  runKernel,
  term,
} from "./harness.ts";
import { assertNoticed, type Mistake } from "./mistakes.ts";

/** Four masks; mask 31 is the sign of the word. The monitor has a mask that no trained loss has. */
const TERMS: readonly ResolvedLoss[] = [
  term(crossEntropy, {}, { weight: 0.5 }),
  term(forwardKl, {}, { weight: 0.3, tokenMask: 1 }),
  term(reverseKl, {}, { weight: 0.7, temperature: 2, tokenMask: 31 }),
  term(pairwiseRanking, { k: 3 }, { weight: 0.4, tokenMask: 1 }),
  term(softCrossEntropy, {}, { monitor: true, tokenMask: 5 }),
];
const BITS = [0, 1, 31, 5];

/** Every kind of row with every combination of the masks, and rows of other masks that nothing here counts by. */
function maskedRows(vocabulary: number): Row[] {
  const whole = hardRows(vocabulary).filter((row) => row.label >= 0);
  const combined = Array.from({ length: 2 ** BITS.length }, (_, c) => ({
    ...whole[c % whole.length]!,
    name: `${whole[c % whole.length]!.name}, masks ${c.toString(2)}`,
    masks: BITS.reduce((word, bit, i) => (c >> i) & 1 ? word | (1 << bit) : word, 1 << 2),
  }));
  const broken = hardRows(vocabulary).filter((row) => row.label < 0);
  return [...combined, ...broken.map((row) => ({ ...row, label: 0, masks: 1 << 2 }))];
}

const assertMaskedRow = (row: Row, got: { values: Float32Array; gradient: Float32Array }) =>
  assertRow(TERMS, row, got);
const assertRows = (rows: readonly Row[], { values, gradient }: Outcome) =>
  rows.forEach((row, r) => assertMaskedRow(row, { values: values[r]!, gradient: gradient[r]! }));

Deno.test("referenceRow() with token masks is the sum of the losses that count, each alone", () => {
  for (const row of maskedRows(7)) {
    const [student, teacher] = [Float64Array.from(row.student), Float64Array.from(row.teacher)];
    const { values, gradient } = referenceRow(TERMS, student, teacher, row.label, row.masks);
    const total = new Float64Array(7);
    TERMS.forEach((t, k) => {
      const counts = (row.masks! >>> (t.tokenMask ?? 0)) & 1;
      const alone = referenceRow([t], student, teacher, counts ? row.label : -100);
      assertClose([values[k]!], [alone.values[0]!], 1e-12, `${row.name}: ${t.loss.id}`);
      alone.gradient.forEach((g, v) => total[v]! += g);
    });
    assertClose(gradient, total, 1e-12, `${row.name}: gradient`);
  }
});

/** Mistakes that the comparison with f64 must notice. */
const MISTAKES: Record<string, Mistake> = {
  "masks of the row before": [/token_masks\[row\]/, "token_masks[select(row, max(row, 1u) - 1u, WRONG)]"],
  "one mask for another": [/token_mask >> 1u/, "token_mask >> select(1u, 0u, WRONG)"],
  "values not masked": [
    /select\(0\.0, (x\d+_\d+|stat\d+) \+ poison, (inMask\d+)\)/g,
    "select(0.0, $1 + poison, $2 || WRONG)",
  ],
  "row loss not masked": [
    /select\(vec4<f32>\(\), (scalar\d+ \* vec4<f32>\([^;]*?\)\)), inMask1\)/g,
    "select(vec4<f32>(), $1, inMask1 || WRONG)",
  ],
  "gradient not masked": [/let inMask31 = (.*);/, "let inMask31 = ($1) || WRONG;"],
  "rows of a mask skipped that some loss counts by": [/& (\d+u);/, "& select($1, 1u, WRONG);"],
};

for (const { family } of FAMILIES) {
  // Of the layouts those that other tests of this file share; the others differ in what row_loss_test.ts shows.
  for (const vocabulary of family === "tiled" ? [5, 516] : [5, 513]) {
    Deno.test(`${family} kernel with token masks agrees with f64 at vocabulary ${vocabulary}`, async () => {
      const rows = maskedRows(vocabulary);
      await withGpu(family!, async (gpu) => {
        assertRows(rows, await runKernel(gpu, TERMS, rows));
        if (vocabulary > 5) return;
        const measured = await runKernel(gpu, TERMS, rows, { gradient: false });
        rows.forEach((row, r) => {
          assertEquals(measured.gradient[r], row.student);
          assertRow(TERMS, row, {
            values: measured.values[r]!,
            gradient: Float32Array.from(reference(TERMS, row).gradient),
          });
        });
      });
    });
  }

  Deno.test(`${family} kernel with token masks writes exact zeros where a loss does not count`, async () => {
    const rows = maskedRows(130);
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, TERMS, rows);
      rows.forEach(({ masks }, r) => {
        TERMS.forEach(({ tokenMask = 0 }, k) =>
          assert(((masks! >>> tokenMask) & 1) === 1 || values[r]![k] === 0, `row ${r}, value ${k}`)
        );
        if ((masks! & (1 | 2 | (1 << 31))) === 0) assert(gradient[r]!.every((x) => x === 0), `row ${r}`);
      });
    });
  });

  Deno.test(`${family} kernel with token masks gives what unmasked kernels give one by one`, async () => {
    // One by one they are kernels that builtins_test.ts has too: at any temperature, the monitor with a gradient that nobody looks at.
    const rows = maskedRows(37);
    await withGpu(family!, async (gpu) => {
      const together = await runKernel(gpu, TERMS, rows);
      const total = rows.map(() => new Float64Array(37));
      for (const [k, t] of TERMS.entries()) {
        const own = rows.map(({ masks, label, ...row }) => ({
          ...row,
          label: (masks! >>> (t.tokenMask ?? 0)) & 1 ? label : -100,
        }));
        const alone = await runKernel(gpu, [atAnyTemperature({ ...t, monitor: false })], own);
        rows.forEach((row, r) => {
          assertClose(
            [together.values[r]![k]!],
            [alone.values[r]![0]!],
            1e-5 * Math.max(1, alone.values[r]![0]!),
            `${row.name}: ${t.loss.id}`,
          );
          if (!t.monitor) alone.gradient[r]!.forEach((g, v) => total[r]![v]! += g);
        });
      }
      rows.forEach((row, r) => assertClose(together.gradient[r]!, total[r]!, 1e-5, row.name));
    });
  });

  Deno.test(`${family} kernel: what is infinite under a mask does not reach the other losses`, async () => {
    const padded = hardRows(20).find((row) => row.name === "padded")!;
    const terms = [term(forwardKl), term(centredLogitMse, {}, { tokenMask: 1 })];
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, terms, [{ ...padded, masks: 1 }, {
        ...padded,
        masks: 3,
      }]);
      const expected = reference([terms[0]!], padded);
      assertClose(values[0]!, [expected.values[0]!, 0], 1e-5, "values");
      assertClose(gradient[0]!, expected.gradient, 1e-5, "gradient");
      assert(!Number.isFinite(values[1]![1]!), "the row would show it if it counted");
    });
  });

  Deno.test(`${family} kernel with token masks needs a label only in the vocabulary, or none`, async () => {
    const [row] = hardRows(20);
    const terms = [term(forwardKl)];
    const rows = [-100, 3, -1, 20].map((label) => ({ ...row!, label, masks: 1 }));
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, terms, rows);
      const expected = reference(terms, { ...row!, masks: 1 });
      for (const r of [0, 1]) {
        assertClose(values[r]!, expected.values, 1e-5, "values");
        assertClose(gradient[r]!, expected.gradient, 1e-5, "gradient");
      }
      for (const r of [2, 3]) assert([...values[r]!, ...gradient[r]!].every(Number.isNaN), `row ${r}`);
    });
  });

  Deno.test(`${family} kernel with token masks and planted mistakes fails`, async () => {
    // Rows that are a part of a turn, so that the text is short: masks do not depend on the loops.
    await withGpu(family!, (gpu) => assertNoticed(gpu, TERMS, maskedRows(37), MISTAKES, assertMaskedRow));
  });
}
