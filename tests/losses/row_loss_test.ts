/** Row kernels against their f64 reference on rows that break naive ones; the reference against finite differences. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { initialScalars, referenceRow, type ResolvedLoss } from "../../src/registry/divergence.ts";
import { CONTRACT_VERSION, defineDivergence, noOptions, PluginError } from "../../src/registry/contract.ts";
import crossEntropy from "../../plugins/losses/cross_entropy.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import * as example from "./examples.ts";
import { assertClose, FAMILIES, reference, type Row, runKernel, term } from "./harness.ts";

/** Numbers in [0, 1) that are the same in every run. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Rows of every kind that a kernel must survive. */
function hardRows(vocabulary: number): Row[] {
  const next = random(vocabulary);
  const logits = (f: (v: number) => number) => Float32Array.from({ length: vocabulary }, (_, v) => f(v));
  const normal = () => logits(() => 3 * (next() + next() + next() - 1.5));
  const label = () => Math.floor(next() * vocabulary);
  const padded = (z: Float32Array) =>
    z.map((x, v) => v > 0 && v >= vocabulary - vocabulary / 3 ? -Infinity : x);
  const same = normal();
  const hot = (at: number) => logits((v) => v === at % vocabulary ? 40 : next());
  return [
    { name: "random", student: normal(), teacher: normal(), label: label() },
    { name: "label at the end", student: normal(), teacher: normal(), label: vocabulary - 1 },
    {
      name: "tied",
      student: normal().map(Math.round),
      teacher: normal().map(Math.round),
      label: label(),
    },
    {
      name: "extreme",
      student: logits((v) => v % 3 ? 120 * next() - 60 : 60),
      teacher: logits((v) => v % 2 ? 120 * next() - 60 : -60),
      label: label(),
    },
    { name: "padded", student: padded(normal()), teacher: padded(normal()), label: 0 },
    { name: "p = q", student: same, teacher: same.slice(), label: label() },
    { name: "one-hot", student: hot(1), teacher: hot(vocabulary - 1), label: label() },
    { name: "rising", student: logits((v) => v / 64), teacher: logits((v) => -v / 64), label: label() },
    { name: "masked", student: normal(), teacher: normal(), label: -100 },
    {
      name: "masked, broken",
      student: normal().fill(NaN, 0, 1),
      teacher: normal().fill(Infinity),
      label: -100,
    },
  ];
}

/** An objective with every kind of term: one temperature at 1, one that is not, options that change, a row loss. */
function everything(vocabulary: number): ResolvedLoss[] {
  return [
    term(crossEntropy, { labelSmoothing: 0.1 }, { weight: 0.5 }),
    term(forwardKl, {}, { weight: 0.25, temperature: 2 }),
    term(reverseKl, {}, { weight: 0.5 }),
    term(example.jensenShannon, { beta: 0.3 }, { weight: 2 }),
    term(example.skewForward, { lambda: 0.2 }, { temperature: 2 }),
    term(example.entangled, { strength: 0.01 }, { weight: 0.05 }),
    term(example.pairwise, { k: Math.max(2, Math.min(4, vocabulary)) }, { weight: 0.7 }),
    term(example.softCrossEntropy, {}, { monitor: true }),
  ];
}

/** What f32 can reach: rounding of the logits' differences, times what the loss makes of them. */
function assertRow(
  terms: readonly ResolvedLoss[],
  row: Row,
  got: { values: Float32Array; gradient: Float32Array },
) {
  const expected = reference(terms, row);
  const spread = Math.max(
    1,
    ...[...row.student, ...row.teacher].filter(Number.isFinite).map(Math.abs),
  );
  terms.forEach((t, k) => {
    const tolerance = 1e-5 + 2e-6 * Math.abs(expected.values[k]!) + 2e-6 * spread;
    assertClose([got.values[k]!], [expected.values[k]!], tolerance, `${row.name}: value of ${t.loss.id}`);
  });
  const scale = Math.max(1, ...terms.map((t) => t.monitor ? 0 : t.weight));
  assertClose(got.gradient, expected.gradient, scale * 1e-6 * spread, `${row.name}: gradient`);
}

async function withGpu(family: "subgroup8" | "tiled", run: (gpu: Gpu) => Promise<void>): Promise<void> {
  const gpu = await openGpu({ describe: { family } });
  try {
    await run(gpu);
  } finally {
    gpu.destroy();
  }
}

const BASIC = [term(crossEntropy, {}, { weight: 0.5 }), term(forwardKl, {}, { weight: 0.5 })];
const KLS = [...BASIC, term(reverseKl)];

for (const { family } of FAMILIES) {
  for (const vocabulary of [1, 5, 511, 513, 4096]) {
    Deno.test(`${family} kernel agrees with referenceRow() at vocabulary ${vocabulary}`, async () => {
      const rows = hardRows(vocabulary);
      // The ranking loss needs two entries, and a maximum of logits that are all masked has no gradient.
      const terms = everything(vocabulary).filter((t) => vocabulary > 1 || t.loss !== example.pairwise);
      await withGpu(family!, async (gpu) => {
        const basic = await runKernel(gpu, KLS, rows);
        rows.forEach((row, r) =>
          assertRow(KLS, row, { values: basic.values[r]!, gradient: basic.gradient[r]! })
        );
        // `entangled` multiplies squares of log-probabilities: at 60 and more its rounding is beyond this bound.
        const moderate = rows.filter((row) => row.name !== "one-hot" && row.name !== "extreme");
        const all = await runKernel(gpu, terms, moderate);
        moderate.forEach((row, r) =>
          assertRow(terms, row, { values: all.values[r]!, gradient: all.gradient[r]! })
        );
      });
    });
  }

  Deno.test(`${family} kernel gives exact zeros where p = q and in masked rows`, async () => {
    const terms = [term(forwardKl), term(reverseKl, {}, { temperature: 1.7 })];
    const rows = hardRows(513).filter((row) => row.name === "p = q" || row.label < 0);
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, terms, rows);
      for (const zeros of [...values, ...gradient]) assert(zeros.every((x) => x === 0));
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
      term(example.skewReverse, { lambda }, { weight }),
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
    const next = random(7);
    const rows = Array.from({ length: 70_000 }, (_, r): Row => ({
      name: `${r}`,
      student: Float32Array.from([next(), next(), next(), next()]),
      teacher: Float32Array.from([next(), next(), next(), next()]),
      label: r % 4,
    }));
    await withGpu(family!, async (gpu) => {
      const { values, gradient } = await runKernel(gpu, BASIC, rows);
      for (const r of [0, 1, 65_534, 65_535, 65_536, 69_999]) {
        assertRow(BASIC, rows[r]!, { values: values[r]!, gradient: gradient[r]! });
      }
    });
  });

  /** Mistakes that the comparison above must notice; each is an edit of the kernel's source. */
  const MISTAKES: Record<string, [RegExp, string]> = {
    "label off by one": [/vec4<u32>\(row_label\)/g, "vec4<u32>(row_label + 1u)"],
    "value at the wrong entry": [/student\(row_label\)/g, "student(row_label / 2u)"],
    "running sum not rescaled": [/part_q0 \* exp\([^)]*\)/g, "part_q0"],
    "target's maximum forgotten": [/- m_p - l_p0/g, "- l_p0"],
    "weight forgotten": [/scalar(\d) \* \(x/g, "(x"],
    "end of the row counted twice": [
      /let vectors = \(size.vocabulary/g,
      "let vectors = (size.vocabulary - 1u",
    ],
    "masked rows not skipped": [/label == -100/g, "label == -101"],
  };
  for (const [name, [pattern, replacement]] of Object.entries(MISTAKES)) {
    Deno.test(`${family} kernel with a planted mistake fails: ${name}`, async () => {
      // Several turns of either family's main loop, and one entry more.
      const rows = hardRows(3073);
      await withGpu(family!, async (gpu) => {
        const edit = (wgsl: string) => {
          const edited = wgsl.replace(pattern, replacement);
          assert(edited !== wgsl, "the mistake has nothing to change");
          return edited;
        };
        const { values, gradient } = await runKernel(gpu, BASIC, rows, { edit });
        await assertRejects(async () => {
          await Promise.resolve();
          rows.forEach((row, r) => assertRow(BASIC, row, { values: values[r]!, gradient: gradient[r]! }));
        });
      });
    });
  }
}

/** Losses without detached parts, whose gradient is therefore the derivative of the value. */
const DIFFERENTIABLE: ResolvedLoss[] = [
  term(crossEntropy),
  term(crossEntropy, { labelSmoothing: 0.2 }),
  term(forwardKl, {}, { temperature: 2 }),
  term(reverseKl, {}, { temperature: 0.5 }),
  term(example.jensenShannon, { beta: 0.2, normalize: true }),
  term(example.skewForward, { lambda: 0.3 }, { temperature: 1.5 }),
  term(example.skewReverse, { lambda: 0.3 }),
  term(example.softCrossEntropy),
  term(example.entropy, {}, { temperature: 2 }),
  term(example.totalVariation),
  term(example.alpha, { alpha: 0.3 }),
  term(example.alphaBeta, { alpha: 0.2, beta: 0.7 }),
  term(example.decoupled, {}, { temperature: 2 }),
  term(example.centredMse),
  term(example.entangled),
  term(example.pairwise, { k: 3 }),
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
