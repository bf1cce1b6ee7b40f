/** Every built-in loss: its kernels of both families against its f64 reference, and what must hold for any divergence. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertLess } from "@std/assert";
import adaptiveKl from "../../plugins/losses/adaptive_kl.ts";
import entropyGapKl from "../../plugins/losses/entropy_gap_kl.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import jensenShannon from "../../plugins/losses/jensen_shannon.ts";
import rankCorrelation from "../../plugins/losses/rank_correlation.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import skewKl from "../../plugins/losses/skew_kl.ts";
import skewReverseKl from "../../plugins/losses/skew_reverse_kl.ts";
import softCrossEntropy from "../../plugins/losses/soft_cross_entropy.ts";
import { builtins } from "../../plugins/mod.ts";
import taid from "../../plugins/losses/taid.ts";
import type { Divergence, RowLoss } from "../../src/registry/contract.ts";
import { type ResolvedLoss } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import { assertRow, hardRows, random, withGpu } from "./hard_rows.ts";
import { assertClose, atAnyTemperature, FAMILIES, reference, runKernel, term } from "./harness.ts";
import { assertNoticed, type Mistake } from "./mistakes.ts";

const losses = builtins.filter((p): p is Divergence | RowLoss =>
  p.kind === "divergence" || p.kind === "row-loss"
);

/** Options beside the defaults that make another kernel. */
const FURTHER: ResolvedLoss[] = [
  term(jensenShannon, { beta: 0 }),
  term(jensenShannon, { beta: 1 }),
  term(jensenShannon, { beta: 0.1, normalize: true }),
  term(skewReverseKl, { stopGradient: true }),
  term(entropyGapKl, { whenStudentIsFlatter: "forward", delta: 3 }),
  term(rankCorrelation, { union: "duplicated", epsilon: 4 }),
  term(adaptiveKl, { mu: 0.9 }),
];

/** Rows where rounding decides a sign or a branch: mirrored logits, whose probabilities are equal in pairs; sums of infinities. */
const SKIPPED: Readonly<Record<string, readonly string[]>> = {
  "centred-logit-mse": ["padded"],
  "total-variation": ["rising"],
  "sorted-top-k": ["rising"],
  "universal-logit": ["rising"],
};

for (const { family } of FAMILIES) {
  Deno.test(`${family} kernels of built-in losses agree with referenceRow() at vocabularies 1, 37, 2051 and 2052`, async () => {
    // One device for all: most kernels are the same text for every vocabulary.
    await withGpu(family!, async (gpu) => {
      // As universal_logit_test.ts has it, and so the same text: no multiple of four.
      for (const vocabulary of [1, 37, 2051, 2052]) {
        const rows = hardRows(vocabulary);
        // Wide rows in the other family: wide_rows_test.ts, universal_logit_test.ts.
        const isWide = ({ id, kind }: Divergence | RowLoss) =>
          family === "tiled" && kind === "row-loss" &&
          vocabulary === (id === "universal-logit" ? 2051 : 2052);
        const wanted = losses.filter((l) => vocabulary <= 37 || isWide(l));
        const terms = wanted.map((l) => term(l));
        // Kernels at any temperature: those of losses fixed at 1 are in row_loss_test.ts and wide_rows_test.ts.
        if (vocabulary === 37) {
          terms.push(...losses.map((l) => term(l, {}, { temperature: 1.7 })));
          // What a family makes of an expression is seen with the defaults.
          if (family === "subgroup8") terms.push(...FURTHER);
        }
        for (const one of terms) {
          const some = rows.filter((row) => !SKIPPED[one.loss.id]?.includes(row.name));
          const { values, gradient } = await runKernel(gpu, [atAnyTemperature(one)], some);
          some.forEach((row, r) => {
            const what = `${one.loss.id} ${
              JSON.stringify(one.options)
            }, vocabulary ${vocabulary}, ${row.name}`;
            assertRow([one], { ...row, name: what }, { values: values[r]!, gradient: gradient[r]! });
          });
        }
      }
    });
  });
}

/** Two rows of logits, f64. */
function twoRows(seed: number, size: number): [Float64Array, Float64Array] {
  const next = random(seed);
  const row = () => Float64Array.from({ length: size }, () => 6 * next() - 3);
  return [row(), row()];
}

function gradientOf(loss: Divergence | RowLoss, options = {}, rows = twoRows(5, 9)): number[] {
  return [...referenceRow([term(loss, options)], ...rows, 2).gradient];
}

Deno.test("the gradient of every built-in loss sums to zero over the vocabulary", () => {
  for (const loss of losses) {
    const sum = gradientOf(loss).reduce((a, b) => a + b, 0);
    assertAlmostEquals(sum, 0, 1e-12, loss.id);
  }
});

Deno.test("every loss towards the teacher has no gradient where both models agree", () => {
  const [same] = twoRows(8, 9);
  for (const loss of losses) {
    if (["cross-entropy", "entropy", "pairwise-ranking", "dpo", "kto-pair"].includes(loss.id)) continue;
    for (const g of gradientOf(loss, {}, [same, same])) assertLess(Math.abs(g), 1e-12, loss.id);
  }
});

Deno.test("skew KLs with a small share, TAID at 1 and a symmetric Jensen-Shannon are what they should be", () => {
  const close = (a: number[], b: number[], tolerance: number) => assertClose(a, b, tolerance, "gradient");
  close(gradientOf(skewKl, { lambda: 1e-9 }), gradientOf(forwardKl), 1e-6);
  close(gradientOf(skewReverseKl, { lambda: 1e-9 }), gradientOf(reverseKl), 1e-6);
  close(gradientOf(taid, { t: 1 }), gradientOf(softCrossEntropy), 1e-12);
  const [a, b] = twoRows(5, 9);
  const value = (x: Float64Array, y: Float64Array) => referenceRow([term(jensenShannon)], x, y, 0).values[0]!;
  assertAlmostEquals(value(a, b), value(b, a), 1e-12);
});

Deno.test("adaptiveKl weighs by the gaps of head and tail, constant in the gradient", () => {
  const logits = (...p: number[]) => Float64Array.from(p, Math.log);
  const [p, q] = [logits(0.4, 0.3, 0.2, 0.1), logits(0.25, 0.25, 0.25, 0.25)];
  // Head: the first alone, for 0.4 + 0.3 is above 0.5. Gaps 0.15 against 0.05 + 0.05 + 0.15.
  const [wf, wr] = [0.15 / 0.4, 0.25 / 0.4];
  const [f, r] = [gradientOf(forwardKl, {}, [q, p]), gradientOf(reverseKl, {}, [q, p])];
  assertClose(gradientOf(adaptiveKl, {}, [q, p]), f.map((x, v) => wf * x + wr * r[v]!), 1e-12, "gradient");
});

Deno.test("entropyGapKl gives the stronger weight to the KL that was asked for", () => {
  const [flat, sharp] = [Float64Array.of(0, 0.1, 0.2), Float64Array.of(0, 3, 0)];
  for (const [student, teacher, isFlatter] of [[flat, sharp, true], [sharp, flat, false]] as const) {
    for (const whenStudentIsFlatter of ["reverse", "forward"]) {
      const strongReverse = (whenStudentIsFlatter === "reverse") === isFlatter;
      const f = gradientOf(forwardKl, {}, [student, teacher]);
      const r = gradientOf(reverseKl, {}, [student, teacher]);
      assertClose(
        gradientOf(entropyGapKl, { delta: 3, whenStudentIsFlatter }, [student, teacher]),
        f.map((x, v) => (strongReverse ? 1 : 3) * x + (strongReverse ? 3 : 1) * r[v]!),
        1e-12,
        "gradient",
      );
    }
  }
});

Deno.test("rankCorrelation has no gradient where logits are far apart, and is Pearson's where all ranks pool", () => {
  const rows: [Float64Array, Float64Array] = [
    Float64Array.of(2, 9, 7, 5, 3.7),
    Float64Array.of(9, 7, 5.5, 4, 2),
  ];
  const at = (epsilon: number) => referenceRow([term(rankCorrelation, { epsilon })], ...rows, 0);
  assertAlmostEquals(at(1).values[0]!, 1, 1e-12);
  assertEquals([...at(1).gradient], [0, 0, 0, 0, 0]);
  const centre = (x: Float64Array) => x.map((y) => y - x.reduce((a, b) => a + b) / 5);
  const [a, b] = rows.map(centre) as [Float64Array, Float64Array];
  const dot = (x: Float64Array, y: Float64Array) => x.reduce((sum, v, i) => sum + v * y[i]!, 0);
  const pearson = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  assertAlmostEquals(at(100).values[0]!, 1 - pearson, 1e-12);
  assert(at(100).gradient.some((g) => Math.abs(g) > 1e-3));
});

Deno.test("a row loss with a planted mistake fails the comparison with referenceRow()", async () => {
  const plants: [ResolvedLoss, Record<string, Mistake>][] = [
    [term(adaptiveKl), {
      "the head left out": [
        /<= vec4<f32>\(depth\)/,
        "<= select(vec4<f32>(depth), vec4<f32>(-1.0), WRONG)",
      ],
    }],
    [term(rankCorrelation, { epsilon: 8 }), {
      "blocks that do not pool": [
        /if \((.*) > (loss0_total\[last\].*)\) \{ break; \}/,
        "if (select($1 > $2, $1 < $2, WRONG)) { break; }",
      ],
    }],
    [term(rankCorrelation, { epsilon: 0.3 }), {
      "a slope without its mean": [/mean - loss0_target/, "select(mean, 0.0, WRONG) - loss0_target"],
    }],
  ];
  await withGpu("subgroup8", async (gpu) => {
    for (const [one, mistakes] of plants) {
      await assertNoticed(gpu, [one], hardRows(37).slice(0, 2), mistakes, (row, got) => {
        const off = reference([one], row).gradient.map((g, v) => Math.abs(g - got.gradient[v]!));
        assertLess(Math.max(...off), 1e-4, row.name);
      });
    }
  });
});

Deno.test("every built-in loss is described in docs/methods.md, and has a description and a source", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/methods.md", import.meta.url));
  for (const { id, description, source } of losses) {
    assert(text.includes(`| \`${id}\``) && text.includes(`**\`${id}\`**`), id);
    assert(description && source, id);
  }
});
