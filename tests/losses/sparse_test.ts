/** Losses with a cached target: kernels of both families against the f64 reference, and that against what it must be. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import type { KernelFamily } from "../../src/gpu/description.ts";
import { type ResolvedLoss } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import {
  CONTRACT_VERSION,
  defineDivergence,
  defineLoss,
  noOptions,
  PluginError,
} from "../../src/registry/contract.ts";
import { referenceSparseRow } from "../../src/losses/sparse_reference.ts";
import { cacheRefusal, type SparseTarget } from "../../src/losses/sparse_target.ts";
import { builtins } from "../../plugins/mod.ts";
import alphaBetaDivergence from "../../plugins/losses/alpha_beta_divergence.ts";
import alphaDivergence from "../../plugins/losses/alpha_divergence.ts";
import centredLogitMse from "../../plugins/losses/centred_logit_mse.ts";
import crossEntropy from "../../plugins/losses/cross_entropy.ts";
import decoupledKd from "../../plugins/losses/decoupled_kd.ts";
import entropy from "../../plugins/losses/entropy.ts";
import entropyGapKl from "../../plugins/losses/entropy_gap_kl.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import jensenShannon from "../../plugins/losses/jensen_shannon.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import skewKl from "../../plugins/losses/skew_kl.ts";
import skewReverseKl from "../../plugins/losses/skew_reverse_kl.ts";
import softCrossEntropy from "../../plugins/losses/soft_cross_entropy.ts";
import taid from "../../plugins/losses/taid.ts";
import totalVariation from "../../plugins/losses/total_variation.ts";
import { headWeighted } from "./examples.ts";
import { hardRows, random, withGpu } from "./hard_rows.ts";
import { assertClose, FAMILIES, type Row, runKernel, term } from "./harness.ts";
import { assertNoticed, type Mistake } from "./mistakes.ts";
import { assertSparseRow, cachedTop, topOf } from "./sparse_rows.ts";

const top = (entries: number, temperatures: readonly number[] = [1, 2]): SparseTarget => ({
  ...{ kind: "top-k", entries, temperatures },
});

/** A loss written in WGSL that does without the teacher: half the square of the label's logit. */
const labelSquare = defineLoss({
  ...{ id: "test/label-square", version: "1.0.0", contract: CONTRACT_VERSION, options: noOptions },
  needsTeacher: false,
  wgsl: () => `
    fn $value() -> f32 { return 0.5 * student(row_label) * student(row_label); }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 { return select(0.0, z, v == row_label); }`,
  reference({ student, label }) {
    const gradient = new Float64Array(student.length);
    gradient[label] = student[label]!;
    return { value: 0.5 * student[label]! ** 2, gradient };
  },
});

const BASIC = [term(crossEntropy, {}, { weight: 0.5 }), term(forwardKl, {}, { weight: 0.5 })];
const KLS = [...BASIC, term(reverseKl)];

/** Everything in one kernel: over the vocabulary and over a cache, both temperatures, statistics of statistics, a row loss. */
const EVERYTHING: ResolvedLoss[] = [
  term(crossEntropy, { labelSmoothing: 0.1 }, { weight: 0.5 }),
  term(forwardKl, {}, { weight: 0.25, temperature: 2 }),
  term(reverseKl, {}, { weight: 0.5 }),
  term(jensenShannon, { beta: 0.3 }, { weight: 2 }),
  term(skewKl, { lambda: 0.2 }, { temperature: 2 }),
  term(taid, { t: 0.3 }, { weight: 0.3 }),
  term(entropy, {}, { temperature: 2, weight: 0.1 }),
  term(decoupledKd, { others: 2 }, { temperature: 2 }),
  term(entropyGapKl, {}, { weight: 0.2 }),
  term(totalVariation, {}, { weight: 0.7 }),
  term(labelSquare, {}, { weight: 0.01 }),
  term(softCrossEntropy, {}, { monitor: true }),
];

/** Mistakes that the comparison must notice. */
const MISTAKES: Record<string, Mistake> = {
  "the K not taken out of the sweep": [/put_student\(id, -3\.0e38\);/, "if (!(WRONG)) { $& }"],
  "the learner's K logits lost": [
    /support_logits\[k\] = student\(id\);/,
    "support_logits[k] = select(student(id), 0.0, WRONG);",
  ],
  "the bucket's gradient not shared out": [
    /slope_of_bucket0 \* exp\(([^;]*?) - tail_q0\)/,
    "slope_of_bucket0 * exp(($1 - tail_q0) * select(1.0, 0.0, WRONG))",
  ],
  "the bucket left out of a sum": [/ \+ bucket_support0/, " + select(bucket_support0, 0.0, WRONG)"],
  "the target's tail forgotten": [/ \+ exp\(tail_p0\)/, " + select(exp(tail_p0), 0.0, WRONG)"],
  "another temperature's column": [
    /target_tails\[support_row \* 2u \+ 0u\]/,
    "target_tails[support_row * 2u + select(0u, 1u, WRONG)]",
  ],
  "the gradient of the K left as the sweep wrote it": [
    /put_student\(id, support_logits\[k\]\);(?![\s\S]*put_student)/,
    "if (!(WRONG)) { $& }",
  ],
  "another row's cache": [/support_row = row;/, "support_row = select(row, (row + 1u) % size.rows, WRONG);"],
};

/**
 * Sizes of rows and of what is kept of them. The number of entries is in the text, so each is one to compile: the ends of what can be kept in
 * both families, and loops whose last turn is whole or not in one, as kernels of other tests here have the rest.
 */
const SIZES: Record<KernelFamily, readonly (readonly [vocabulary: number, entries: number])[]> = {
  tiled: [[5, 1], [5, 5], [516, 200], [4096, 256]],
  subgroup8: [[5, 4], [5, 5], [513, 7], [516, 200]],
};

for (const { family } of FAMILIES) {
  for (const [vocabulary, entries] of SIZES[family!]) {
    Deno.test(`${family} kernel with a cache of ${entries} of ${vocabulary} agrees with referenceSparseRow()`, async () => {
      const target = top(entries);
      const rows = cachedTop(hardRows(vocabulary), target);
      await withGpu(family!, async (gpu) => {
        const { values, gradient } = await runKernel(gpu, KLS, rows, { sparseTarget: target });
        rows.forEach((row, r) =>
          assertSparseRow(KLS, row, target, { values: values[r]!, gradient: gradient[r]! })
        );
      });
    });
  }

  Deno.test(`${family} kernel with a cache and everything at once agrees with referenceSparseRow()`, async () => {
    // It takes long to compile, so one text a family: with a last turn that is not whole, and with whole turns.
    const [vocabulary, entries] = family === "tiled" ? [4096, 256] : [513, 7];
    const target = top(entries);
    // At +-60 the branches that entropies and signs choose between are decided by rounding.
    const rows = cachedTop(hardRows(vocabulary), target)
      .filter(({ name }) => !["one-hot", "extreme", "rising", "p = q"].includes(name));
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, EVERYTHING, rows, { sparseTarget: target });
      rows.forEach((row, r) =>
        assertSparseRow(EVERYTHING, row, target, { values: values[r]!, gradient: gradient[r]! })
      );
    });
  });

  Deno.test(`${family} kernel with a cache leaves the logits alone where no gradient is wanted`, async () => {
    const target = top(200);
    const rows = cachedTop(hardRows(516), target);
    await withGpu(family!, async (gpu) => {
      const trained = await runKernel(gpu, KLS, rows, { sparseTarget: target });
      const measured = await runKernel(gpu, KLS, rows, { sparseTarget: target, gradient: false });
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

  Deno.test(`${family} kernel with a cache gives the same bytes twice, and NaN for broken logits`, async () => {
    const target = top(9);
    const [row] = cachedTop(hardRows(130), target);
    const [inside, outside] = [Number(row!.cached!.ids[2]), topOf(row!.teacher, 130, [1]).ids[100]!];
    const logits = Array.from(row!.cached!.logits);
    const rows: Row[] = [
      row!,
      { ...row!, student: row!.student.with(inside, NaN) },
      { ...row!, student: row!.student.with(outside, NaN) },
      { ...row!, student: row!.student.map(() => -Infinity) },
      { ...row!, cached: { ...row!.cached!, logits: logits.with(3, NaN) } },
      { ...row!, cached: { ...row!.cached!, tails: [NaN, NaN] } },
      { ...row!, label: 130 },
    ];
    await withGpu(family!, async (gpu) => {
      const a = await runKernel(gpu, BASIC, rows, { sparseTarget: target });
      const b = await runKernel(gpu, BASIC, rows, { sparseTarget: target });
      assertEquals([a.values, a.gradient], [b.values, b.gradient]);
      rows.forEach((_, r) => {
        assertEquals(a.values[r]!.some(Number.isFinite), r === 0, `values of row ${r}`);
        assertEquals(a.gradient[r]!.every(Number.isFinite), r === 0, `gradient of row ${r}`);
      });
    });
  });

  Deno.test(`${family} kernel with a cache and planted mistakes fails`, async () => {
    const target = top(6);
    const rows = cachedTop(hardRows(513).slice(0, 3), target);
    const compare = (row: Row, got: { values: Float32Array; gradient: Float32Array }) =>
      assertSparseRow(BASIC, row, target, got);
    await withGpu(
      family!,
      (gpu) => assertNoticed(gpu, BASIC, rows, MISTAKES, compare, { sparseTarget: target }),
    );
  });
}

/** Losses without detached parts. */
const DIFFERENTIABLE: ResolvedLoss[] = [
  term(crossEntropy),
  term(forwardKl, {}, { temperature: 2 }),
  term(reverseKl, {}, { temperature: 2 }),
  term(jensenShannon, { beta: 0.2, normalize: true }),
  term(skewKl, { lambda: 0.3 }, { temperature: 2 }),
  term(skewReverseKl, { lambda: 0.3 }),
  term(softCrossEntropy),
  term(entropy, {}, { temperature: 2 }),
  term(totalVariation),
  term(alphaDivergence, { alpha: 0.3 }),
  term(alphaBetaDivergence, { alpha: 0.2, beta: 0.7 }),
  term(decoupledKd, {}, { temperature: 2 }),
];

for (const loss of DIFFERENTIABLE) {
  const what = `${loss.loss.id} ${JSON.stringify(loss.options)} at temperature ${loss.temperature}`;
  Deno.test(`referenceSparseRow() gradient of ${what} agrees with finite differences`, () => {
    const next = random(11);
    const [student, teacher] = [0, 1].map(() => Float64Array.from({ length: 9 }, () => 4 * next() - 2));
    const target = top(3);
    const cached = topOf(teacher!, 3, [1, 2]);
    for (const label of [Number(cached.ids[1]), topOf(teacher!, 9, [1]).ids[7]!]) {
      const run = (z: Float64Array) => referenceSparseRow([loss], z, cached, target, label);
      const { gradient } = run(student!);
      for (let v = 0; v < 9; v++) {
        const at = (h: number) => run(student!.with(v, student![v]! + h)).values[0]!;
        assertAlmostEquals(gradient[v]!, (at(1e-5) - at(-1e-5)) / 2e-5, 1e-8);
      }
      assertAlmostEquals(gradient.reduce((a, b) => a + b), 0, 1e-12);
    }
  });

  Deno.test(`referenceSparseRow() of ${what} with all but one token, and with all, is referenceRow()`, () => {
    const next = random(5);
    const [student, teacher] = [0, 1].map(() => Float64Array.from({ length: 8 }, () => 6 * next() - 3));
    const dense = referenceRow([loss], student!, teacher!, 4);
    for (const entries of [7, 8]) {
      const cached = topOf(teacher!, entries, [1, 2]);
      const found = referenceSparseRow([loss], student!, cached, top(entries), 4);
      assertAlmostEquals(found.values[0]!, dense.values[0]!, 1e-6);
      assertClose(found.gradient, dense.gradient, 1e-6, "gradient");
    }
  });
}

Deno.test("referenceSparseRow() treats detached weights as constants, over the buckets", () => {
  const next = random(3);
  const [student, teacher] = [0, 1].map(() => Float64Array.from({ length: 9 }, () => 6 * next() - 3));
  const cached = topOf(teacher!, 4, [1]);
  const target = top(4, [1]);
  const at = (loss: typeof forwardKl) => referenceSparseRow([term(loss)], student!, cached, target, 0);
  const [forward, reverse, both] = [at(forwardKl), at(reverseKl), at(headWeighted)];
  const head = (both.values[0]! - reverse.values[0]!) / (forward.values[0]! - reverse.values[0]!);
  assert(head > 0 && head < 1);
  const mixed = forward.gradient.map((g, v) => head * g + (1 - head) * reverse.gradient[v]!);
  assertClose(both.gradient, mixed, 1e-9, "gradient");
});

Deno.test("cacheRefusal() names what needs every logit, and takes the rest", () => {
  const refused = (kind: SparseTarget["kind"]) =>
    builtins.flatMap((p) => {
      if (p.kind !== "divergence" && p.kind !== "row-loss") return [];
      return cacheRefusal(p, p.options.parse({}), { kind, entries: 64 }) ? [p.id] : [];
    }).sort();
  const always = [
    "adaptive-kl",
    "centred-logit-mse",
    "pairwise-ranking",
    "rank-correlation",
    "sorted-top-k",
    "universal-logit",
  ];
  assertEquals(refused("top-k"), always);
  // Those of pairs look at the label's probabilities alone; that no cache gives them for a pair is the objective's to say.
  const served = ["cross-entropy", "dpo", "entropy", "forward-kl", "kto-pair", "soft-cross-entropy"];
  const all = builtins.filter((p) => p.kind === "divergence" || p.kind === "row-loss").map((p) => p.id);
  assertEquals(refused("samples"), all.filter((id) => !served.includes(id)).sort());
  assertThrows(
    () =>
      referenceSparseRow(
        [term(centredLogitMse)],
        new Float64Array(3),
        topOf([1, 2, 3], 2, [1]),
        top(2, [1]),
        0,
      ),
    PluginError,
    'plugin "centred-logit-mse": it needs every logit of the teacher; a cache holds 2',
  );
  assertThrows(
    () =>
      referenceSparseRow(
        [term(forwardKl, {}, { temperature: 3 })],
        new Float64Array(3),
        topOf([1, 2, 3], 2, [1]),
        top(2, [1]),
        0,
      ),
    PluginError,
    "its temperature is 3; the cache was made for 1",
  );
  const counts = defineDivergence({
    ...{ id: "test/counts", version: "1.0.0", contract: CONTRACT_VERSION, options: noOptions },
    value: ({ sum, p, logQ, vocabulary }) => sum(p.mul(logQ)).div(vocabulary),
  });
  assert(cacheRefusal(counts, {}, { kind: "top-k", entries: 3 })!.includes("counts the entries"));
});
