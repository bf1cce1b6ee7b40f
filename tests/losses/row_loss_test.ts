/** Row kernels against their f64 reference on rows that break naive ones; the reference against finite differences. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { initialScalars, type ResolvedLoss } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import { CONTRACT_VERSION, defineDivergence, noOptions, PluginError } from "../../src/registry/contract.ts";
import crossEntropy from "../../plugins/losses/cross_entropy.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import alphaBetaDivergence from "../../plugins/losses/alpha_beta_divergence.ts";
import alphaDivergence from "../../plugins/losses/alpha_divergence.ts";
import centredLogitMse from "../../plugins/losses/centred_logit_mse.ts";
import decoupledKd from "../../plugins/losses/decoupled_kd.ts";
import entropy from "../../plugins/losses/entropy.ts";
import jensenShannon from "../../plugins/losses/jensen_shannon.ts";
import pairwiseRanking from "../../plugins/losses/pairwise_ranking.ts";
import rankCorrelation from "../../plugins/losses/rank_correlation.ts";
import skewKl from "../../plugins/losses/skew_kl.ts";
import skewReverseKl from "../../plugins/losses/skew_reverse_kl.ts";
import softCrossEntropy from "../../plugins/losses/soft_cross_entropy.ts";
import sortedTopK from "../../plugins/losses/sorted_top_k.ts";
import totalVariation from "../../plugins/losses/total_variation.ts";
import universalLogit from "../../plugins/losses/universal_logit.ts";
import * as example from "./examples.ts";
import { assertRow, hardRows, random, withGpu } from "./hard_rows.ts";
import { assertClose, atAnyTemperature, FAMILIES, type Row, runKernel, term } from "./harness.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { compileRowLoss } from "../../src/losses/compile.ts";
import { LONG_ROW } from "../../src/losses/kernel/layout.ts";
import { freeing, testGpu } from "../tensor/harness.ts";
import { assertNoticed, type Mistake } from "./mistakes.ts";

/** Every kind of term: one temperature at 1, one that is not, options that change, a row loss. */
const EVERYTHING: ResolvedLoss[] = [
  term(crossEntropy, { labelSmoothing: 0.1 }, { weight: 0.5 }),
  term(forwardKl, {}, { weight: 0.25, temperature: 2 }),
  term(reverseKl, {}, { weight: 0.5 }),
  term(jensenShannon, { beta: 0.3 }, { weight: 2 }),
  term(skewKl, { lambda: 0.2 }, { temperature: 2 }),
  term(example.entangled, { strength: 0.01 }, { weight: 0.05 }),
  term(pairwiseRanking, { k: 4 }, { weight: 0.7 }),
  term(softCrossEntropy, {}, { monitor: true }),
];

const BASIC = [term(crossEntropy, {}, { weight: 0.5 }), term(forwardKl, {}, { weight: 0.5 })];
const KLS = [...BASIC, term(reverseKl)];

/** Mistakes that the comparison with the reference must notice. */
const MISTAKES: Record<string, Mistake> = {
  "label off by one": [/vec4<u32>\(row_label\)/g, "vec4<u32>(select(row_label, row_label + 1u, WRONG))"],
  "value at the wrong entry": [/student\(row_label\)/g, "student(select(row_label, row_label / 2u, WRONG))"],
  "running sum not rescaled": [/part_q0 \* (exp\([^)]*\))/g, "part_q0 * select($1, 1.0, WRONG)"],
  "target's maximum forgotten": [/- m_p - l_p0/g, "- select(m_p, 0.0, WRONG) - l_p0"],
  "weight forgotten": [/scalar(\d) \* \(x/g, "select(scalar$1, 1.0, WRONG) * (x"],
  "end of the row left out": [
    /let vectors = \(size.vocabulary/g,
    "let vectors = (size.vocabulary - select(0u, 1u, WRONG)",
  ],
  "masked rows not skipped": [/label == -100/g, "label == select(-100, -101, WRONG)"],
};

for (const { family } of FAMILIES) {
  for (const vocabulary of [1, 5, 511, 513, 8200]) {
    Deno.test(`${family} kernel agrees with referenceRow() at vocabulary ${vocabulary}`, async () => {
      const rows = hardRows(vocabulary);
      await withGpu(family!, async (gpu) => {
        const { values, gradient } = await runKernel(gpu, KLS, rows);
        rows.forEach((row, r) => assertRow(KLS, row, { values: values[r]!, gradient: gradient[r]! }));
      });
    });
  }

  Deno.test(`${family} kernel of everything at once agrees with referenceRow()`, async () => {
    // A kernel that takes long to compile: one text a family. Mixtures in other layouts are in token_masks_test.ts and wide_rows_test.ts.
    for (const vocabulary of family === "tiled" ? [4096] : [5, 127]) {
      // `entangled` multiplies squares of log-probabilities: at 60 and more its rounding is beyond this bound.
      const rows = hardRows(vocabulary).filter(({ name }) => name !== "one-hot" && name !== "extreme");
      await withGpu(family!, async (gpu) => {
        const { values, gradient } = await runKernel(gpu, EVERYTHING, rows);
        rows.forEach((row, r) => assertRow(EVERYTHING, row, { values: values[r]!, gradient: gradient[r]! }));
      });
    }
  });

  Deno.test(`${family} kernel gives exact zeros where p = q and in masked rows`, async () => {
    const exact = (vocabulary: number) =>
      hardRows(vocabulary).filter((row) => row.name === "p = q" || row.label < 0);
    await withGpu(family!, async (gpu) => {
      for (const loss of [forwardKl, reverseKl]) {
        const one = atAnyTemperature(term(loss, {}, { temperature: 1.7 }));
        const { values, gradient } = await runKernel(gpu, [one], exact(37));
        for (const zeros of [...values, ...gradient]) assert(zeros.every((x) => x === 0), loss.id);
      }
      // The kernel of the other tests, with the cross-entropy's value, which is no zero, left out, and its gradient too.
      const scalars = { "objective.cross-entropy.weight": 0 };
      const { values, gradient } = await runKernel(gpu, KLS, exact(513), { scalars });
      for (const zeros of [...values.map((v) => v.subarray(1)), ...gradient]) {
        assert(zeros.every((x) => x === 0));
      }
    });
  });

  Deno.test(`${family} kernel without gradient gives the same values and leaves the logits alone`, async () => {
    const rows = hardRows(516);
    await withGpu(family!, async (gpu) => {
      const trained = await runKernel(gpu, KLS, rows);
      const measured = await runKernel(gpu, KLS, rows, { gradient: false });
      rows.forEach((row, r) => {
        assertEquals(measured.gradient[r], row.student);
        assertClose(
          measured.values[r]!,
          trained.values[r]!,
          1e-6 * Math.max(1, ...trained.values[r]!),
          row.name,
        );
      });
    });
  });

  Deno.test(`${family} kernel skips what pads the target's rows`, async () => {
    const rows = hardRows(20);
    await withGpu(family!, async (gpu) => {
      for (const teacherStride of [24, 23]) {
        const { values, gradient } = await runKernel(gpu, BASIC, rows, { teacherStride });
        rows.forEach((row, r) => assertRow(BASIC, row, { values: values[r]!, gradient: gradient[r]! }));
      }
    });
  });

  Deno.test(`${family} kernel gives the same bytes twice`, async () => {
    await withGpu(family!, async (gpu) => {
      const [a, b] = [await runKernel(gpu, KLS, hardRows(513)), await runKernel(gpu, KLS, hardRows(513))];
      assertEquals(a.values, b.values);
      assertEquals(a.gradient, b.gradient);
    });
  });

  Deno.test(`${family} kernel shows broken logits and labels outside the vocabulary as NaN`, async () => {
    const [row] = hardRows(130);
    const broken = (z: Float32Array, x: number) => z.with(77, x);
    const rows = [
      row!,
      { ...row!, student: broken(row!.student, NaN) },
      { ...row!, teacher: broken(row!.teacher, Infinity) },
      { ...row!, student: row!.student.map(() => -Infinity) },
      { ...row!, label: 130 },
      { ...row!, label: -1 },
    ];
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, BASIC, rows);
      rows.forEach((_, r) => {
        assertEquals(values[r]!.some(Number.isFinite), r === 0, `values of row ${r}`);
        assertEquals(gradient[r]!.every(Number.isFinite), r === 0, `gradient of row ${r}`);
      });
    });
  });

  Deno.test(`${family} kernel takes new weights, temperatures and options without a new plan`, async () => {
    const make = (weight: number, temperature: number, lambda: number) => [
      term(crossEntropy, {}, { weight: 1 - weight }),
      term(forwardKl, {}, { weight, temperature, temperatureVaries: true }),
      term(skewReverseKl, { lambda }, { weight }),
    ];
    const [planned, later] = [make(0.5, 1, 0.1), make(0.8, 3, 0.4)];
    const rows = hardRows(96).slice(0, 3);
    await withGpu(family!, async (gpu) => {
      const scalars = Object.fromEntries(initialScalars(later));
      const { values, gradient } = await runKernel(gpu, planned, rows, { scalars });
      rows.forEach((row, r) => assertRow(later, row, { values: values[r]!, gradient: gradient[r]! }));
    });
  });

  Deno.test(`${family} kernel folds more rows than a grid dimension holds`, async () => {
    // Workgroups of the tiled family are slow here, so it is told of a device whose grid has fewer.
    const [count, device] = family === "tiled"
      ? [250, await testGpu(family, { maxWorkgroupsPerDimension: 100 })]
      : [70_000, await testGpu(family!)];
    const limit = device.description.maxWorkgroupsPerDimension;
    const next = random(7);
    const rows = Array.from({ length: count }, (_, r): Row => ({
      name: `${r}`,
      student: Float32Array.from([next(), next(), next(), next()]),
      teacher: Float32Array.from([next(), next(), next(), next()]),
      label: r % 4,
    }));
    await freeing(device, async () => {
      const { values, gradient } = await runKernel(device, BASIC, rows);
      for (const r of [0, 1, limit - 1, limit, limit + 1, count - 1]) {
        assertRow(BASIC, rows[r]!, { values: values[r]!, gradient: gradient[r]! });
      }
    });
  });

  Deno.test(`${family} kernel with planted mistakes fails`, async () => {
    // Several turns of either family's main loop for long rows, and one entry more.
    await withGpu(
      family!,
      (gpu) =>
        assertNoticed(gpu, BASIC, hardRows(LONG_ROW + 1), MISTAKES, (row, got) => assertRow(BASIC, row, got)),
    );
  });
}

Deno.test("a loss with memory shares a kernel with itself at another temperature", async () => {
  const terms = [
    term(example.mirrored, {}, { name: "a", weight: 0.5 }),
    term(forwardKl, {}, { weight: 0.25 }),
    term(example.mirrored, {}, { name: "b", temperature: 2, weight: 2 }),
  ];
  const rows = hardRows(516);
  await withGpu("tiled", async (gpu) => {
    const { values, gradient } = await runKernel(gpu, terms, rows);
    rows.forEach((row, r) => assertRow(terms, row, { values: values[r]!, gradient: gradient[r]! }));
    const again = await runKernel(gpu, terms, rows);
    assertEquals([again.values, again.gradient], [values, gradient]);
  });
});

/** Losses without detached parts, whose gradient is therefore the derivative of the value. */
const DIFFERENTIABLE: ResolvedLoss[] = [
  term(crossEntropy),
  term(crossEntropy, { labelSmoothing: 0.2 }),
  term(forwardKl, {}, { temperature: 2 }),
  term(reverseKl, {}, { temperature: 0.5 }),
  term(jensenShannon, { beta: 0.2, normalize: true }),
  term(skewKl, { lambda: 0.3 }, { temperature: 1.5 }),
  term(skewReverseKl, { lambda: 0.3 }),
  term(softCrossEntropy),
  term(entropy, {}, { temperature: 2 }),
  term(totalVariation),
  term(alphaDivergence, { alpha: 0.3 }),
  term(alphaBetaDivergence, { alpha: 0.2, beta: 0.7 }),
  term(decoupledKd, {}, { temperature: 2 }),
  term(centredLogitMse),
  term(example.entangled),
  term(example.mirrored, {}, { temperature: 2 }),
  term(pairwiseRanking, { k: 3 }),
  term(rankCorrelation, { k: 4, epsilon: 3 }),
  term(rankCorrelation, { k: 3, epsilon: 2, union: "duplicated" }),
  term(sortedTopK, { k: 3 }, { temperature: 2 }),
  term(universalLogit, {}, { temperature: 2 }),
];

for (const loss of DIFFERENTIABLE) {
  const what = `${loss.loss.id} ${JSON.stringify(loss.options)} at temperature ${loss.temperature}`;
  Deno.test(`referenceRow() gradient of ${what} agrees with finite differences`, () => {
    const next = random(11);
    const [student, teacher] = [0, 1].map(() => Float64Array.from({ length: 7 }, () => 4 * next() - 2));
    const { gradient } = referenceRow([loss], student!, teacher!, 3);
    for (let v = 0; v < 7; v++) {
      const at = (h: number) =>
        referenceRow([loss], student!.with(v, student![v]! + h), teacher!, 3).values[0]!;
      assertAlmostEquals(gradient[v]!, (at(1e-5) - at(-1e-5)) / 2e-5, 1e-8);
    }
  });
}

Deno.test("referenceRow() treats detached weights as constants", () => {
  const next = random(3);
  const [student, teacher] = [0, 1].map(() => Float64Array.from({ length: 9 }, () => 6 * next() - 3));
  const softmax = (z: Float64Array) => {
    const e = z.map(Math.exp);
    const sum = e.reduce((a, b) => a + b);
    return e.map((x) => x / sum);
  };
  const [q, p] = [softmax(student!), softmax(teacher!)];
  const gaps = p.map((x, v) => Math.abs(x - q[v]!));
  const isHead = p.map((x) => Number(Math.log(x) > Math.log(Math.max(...p)) - 1));
  const head = gaps.reduce((sum, g, v) => sum + g * isHead[v]!, 0) / (gaps.reduce((a, b) => a + b) + 1e-6);
  const gradientOf = (loss: typeof forwardKl) => referenceRow([term(loss)], student!, teacher!, 0).gradient;
  const [forward, reverse] = [gradientOf(forwardKl), gradientOf(reverseKl)];
  assertClose(
    gradientOf(example.headWeighted),
    forward.map((g, v) => head * g + (1 - head) * reverse[v]!),
    1e-12,
    "gradient",
  );
});

Deno.test("compileRowLoss() refuses a value() made from single entries, by the plugin's name", () => {
  const wrong = defineDivergence({
    id: "test/wrong",
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: noOptions,
    value: ({ logQ }) => logQ,
  });
  const row = Float64Array.from([0, 1]);
  assertThrows(() => referenceRow([term(wrong)], row, row, 0), PluginError, '"test/wrong"');
});

Deno.test("no loop around the values of a row loss ends by a uniform alone, for which a driver compiles at every launch", () => {
  const device = { ...DEFAULT_DEVICE, family: "subgroup8", subgroupSize: 8 } as const;
  const { wgsl } = compileRowLoss([term(pairwiseRanking, { k: 4 })], { vocabulary: 96 }, device);
  const ends = [...wgsl.matchAll(/for \(var turn = 0u; turn < ([^;]*);/g)].map(([, end]) => end!);
  assert(ends.length > 0, "there is no such loop");
  for (const end of ends) assert(/\brow\b/.test(end), end);
});
