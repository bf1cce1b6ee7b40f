/** Several teachers as one target: against an f64 oracle at odd sizes, and against an independent f64 implementation. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import type { DenseTarget } from "../../src/distill/objective/chunked_loss.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import { rowLossOp } from "../../src/distill/objective/row_loss.ts";
import {
  CHOICE,
  chosenTarget,
  mixedTarget,
  multipliedTarget,
  shareScalars,
} from "../../src/distill/objective/several_targets.ts";
import type { Combine } from "../../src/distill/recipe/recipe.ts";
import { courseAt } from "../../src/distill/recipe/schedule.ts";
import { leastChoice } from "../../src/distill/teacher/choose.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import { Registry } from "../../src/registry/registry.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Graph } from "../../src/tensor/graph.ts";
import { empty } from "../../src/tensor/ops/fill.ts";
import { rows } from "../../src/tensor/ops/views.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { tinySample } from "../distill/tiny_model.ts";
import { goldenArrays } from "../goldens/arrays.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { assertWithin, FAMILIES, gpuTest, maxDifference, randomArray, testGpu } from "../tensor/harness.ts";

const registry = new Registry().addAll(builtins);

/** Losses that look at the target, whose temperature may be any. */
const DIVERGENCES = ["forward-kl", "reverse-kl", "jensen-shannon"];
const objectiveOf = (losses: readonly string[], vocabulary: number, temperature: number) =>
  Objective.of(
    registry,
    losses.map((loss) => ({
      loss,
      weight: 1,
      temperature: loss === "cross-entropy" ? 1 : temperature,
      options: {},
    })),
    vocabulary,
    { oneTemperature: true },
  );

/** Rows of logits of a student and some teachers, and the program that compares them. */
class Rows {
  readonly #executable: Awaited<ReturnType<typeof compile>>;
  readonly #names: readonly string[];

  private constructor(executable: Awaited<ReturnType<typeof compile>>, names: readonly string[]) {
    [this.#executable, this.#names] = [executable, names];
  }

  /** @param atOne Makes the target for temperature 1, whatever that of the losses */
  static async of(
    gpu: Gpu,
    combine: Combine,
    teachers: number,
    [count, width]: readonly [number, number],
    losses: readonly string[] = DIVERGENCES,
    atOne = false,
  ): Promise<Rows> {
    const program = new Program();
    const graph = program.block("test");
    // Not 1, so that it is a step scalar.
    const objective = objectiveOf(losses, width, 2);
    const [set] = objective.passes;
    const row = objective.rowLosses(set!, graph);
    const members = Array.from({ length: teachers }, (_, i): DenseTarget => {
      const z = graph.input(`teacher ${i}`, [count, width], "f32");
      return { logits: (first, n) => rows(z, first, n) };
    });
    const target = targetOf(graph, combine, members, count, atOne ? undefined : set!.temperature);
    const values = empty(graph, [1, losses.length * count]);
    const student = graph.state("student", [count, width], "f32");
    const logits = target.logits(0, count);
    const [, gradient] = graph.add(rowLossOp, [
      graph.input("labels", [count], "i32"),
      student,
      values,
      logits,
    ], { losses: row, gradient: true });
    for (const [name, t] of Object.entries({ logits, values, gradient: gradient! })) graph.output(name, t);
    return new Rows(await compile(gpu, plan(program, gpu.description)), losses);
  }

  /**
   * @param weights Of the losses
   * @param scalars Further step scalars
   * @param temperature Of all losses but cross-entropy
   */
  async run(
    inputs: Readonly<Record<string, Float32Array | Int32Array>>,
    weights: readonly number[],
    scalars: readonly (readonly [string, number])[],
    temperature: number,
  ) {
    const executable = this.#executable;
    executable.poison();
    for (const [name, data] of Object.entries(inputs)) executable.write(name, data);
    executable.setScalars(scalars);
    this.#names.forEach((name, i) => {
      executable.setScalars([[`${name}.weight`, weights[i]!]]);
      if (name !== "cross-entropy") executable.setScalars([[`${name}.temperature`, temperature]]);
    });
    executable.run("test");
    const back = await executable.read(["logits", "values", "gradient"], "test");
    executable.gpu.check();
    const get = (name: string) => {
      const { data, shape } = back.get(name)!;
      return data.subarray(0, shape.reduce((a, b) => a * b)) as Float32Array;
    };
    return { logits: get("logits"), values: get("values"), gradient: get("gradient") };
  }

  destroy(): void {
    this.#executable.destroy();
  }
}

function targetOf(
  graph: Graph,
  combine: Combine,
  members: readonly DenseTarget[],
  count: number,
  temperature: string | undefined,
): DenseTarget {
  if (combine === "mixture") return mixedTarget(members, temperature);
  if (combine === "product") return multipliedTarget(members);
  return chosenTarget(graph, count, members);
}

/** log softmax(z / tau) in f64. */
function logSoftmax(z: ArrayLike<number>, tau: number): number[] {
  const scaled = Array.from(z, (v) => v / tau);
  const largest = Math.max(...scaled);
  const sum = largest + Math.log(scaled.reduce((s, v) => s + Math.exp(v - largest), 0));
  return scaled.map((v) => v - sum);
}

/** What several teachers are together in a row, as log-probabilities at tau, in f64. */
function togetherInF64(
  combine: Combine,
  all: readonly ArrayLike<number>[],
  weights: readonly number[],
  tau: number,
) {
  const total = weights.reduce((a, b) => a + b);
  const shares = weights.map((w) => w / total);
  const logs = all.map((z) => logSoftmax(z, tau));
  if (combine === "mixture") {
    return logs[0]!.map((_, v) =>
      Math.log(logs.reduce((sum, log, i) => sum + shares[i]! * Math.exp(log[v]!), 0))
    );
  }
  return logSoftmax(logs[0]!.map((_, v) => logs.reduce((sum, log, i) => sum + shares[i]! * log[v]!, 0)), 1);
}

/** Widths that are no multiple of four, or of a workgroup. */
const SIZES = [[3, 1, 2], [5, 37, 3], [2, 130, 6]] as const;

for (const combine of ["mixture", "product"] as const) {
  gpuTest(`a ${combine} of teachers is that of f64, at any temperature and weights`, async (gpu) => {
    for (const [count, width, teachers] of SIZES) {
      const all = Array.from({ length: teachers }, (_, i) => randomArray(count * width, 10 + i, 30));
      const student = randomArray(count * width, 9, 3);
      const rows = await Rows.of(gpu, combine, teachers, [count, width]);
      try {
        const labels = new Int32Array(count);
        const inputs = { student, labels, ...Object.fromEntries(all.map((z, i) => [`teacher ${i}`, z])) };
        for (const [tau, first] of [[1, 1], [2.5, 0.1], [1, 0]] as const) {
          const weights = all.map((_, i) => (i === 0 ? first : i));
          const { logits, values, gradient } = await rows.run(
            inputs,
            [1, 0.5, 2],
            shareScalars(weights),
            tau,
          );
          const { terms } = objectiveOf(DIVERGENCES, width, tau).passes[0]!;
          for (let t = 0; t < count; t++) {
            const part = (z: Float32Array) => z.subarray(t * width, (t + 1) * width);
            const expected = togetherInF64(combine, all.map(part), weights, tau);
            const where = `row ${t} of ${width} at ${tau}, weights ${weights}`;
            const found = logSoftmax(part(logits), tau);
            // Logarithms of what is nearly nothing may be off by more.
            const seen = expected.map((e, v) => (e < -40 ? e : found[v]!));
            assertWithin(seen, expected, 2e-5, `${where}: log-probabilities`);
            const weighted = terms.map((term, i) => ({ ...term, weight: [1, 0.5, 2][i]! }));
            const reference = referenceRow(
              weighted,
              Float64Array.from(part(student)),
              Float64Array.from(expected, (e) => e * tau),
              0,
            );
            assertWithin(DIVERGENCES.map((_, k) => values[k * count + t]!), reference.values, 5e-5, where);
            assertWithin(part(gradient), reference.gradient, 1e-5, `${where}: gradient`);
          }
        }
      } finally {
        rows.destroy();
      }
    }
  });
}

gpuTest("a mixture made for one temperature is none at another, and the check sees it", async (gpu) => {
  const [count, width] = [5, 37];
  const inputs = {
    ...{ student: randomArray(count * width, 9, 3), labels: new Int32Array(count) },
    ...{ "teacher 0": randomArray(count * width, 10, 6), "teacher 1": randomArray(count * width, 11, 6) },
  };
  const values = async (atOne: boolean) => {
    const rows = await Rows.of(gpu, "mixture", 2, [count, width], DIVERGENCES, atOne);
    try {
      return (await rows.run(inputs, [1, 1, 1], shareScalars([1, 2]), 2)).values;
    } finally {
      rows.destroy();
    }
  };
  assertGreater(maxDifference(await values(true), await values(false)), 0.01);
});

gpuTest("the target of a row is its own teacher's, whatever the others hold", async (gpu) => {
  const [count, width] = [5, 37];
  const rows = await Rows.of(gpu, "best", 3, [count, width]);
  try {
    const choice = [2, 0, 1, -1, 2];
    const all = [0, 1, 2].map((i) =>
      randomArray(count * width, 20 + i, 3).map((z, at) => {
        const chosen = Math.max(0, choice[Math.floor(at / width)]!);
        return chosen === i ? z : NaN;
      })
    );
    const inputs = {
      ...{ student: randomArray(count * width, 9, 3), labels: new Int32Array(count) },
      [CHOICE]: Float32Array.from(choice),
      ...Object.fromEntries(all.map((z, i) => [`teacher ${i}`, z])),
    };
    const { logits, values } = await rows.run(inputs, [1, 1, 1], [], 1);
    const expected = Float32Array.from(
      { length: count * width },
      (_, at) => all[Math.max(0, choice[Math.floor(at / width)]!)]![at]!,
    );
    assertEquals(logits, expected);
    assert(values.every(Number.isFinite));
  } finally {
    rows.destroy();
  }
});

const FOLDER = "goldens/teachers/many";
/** As the reference's README has them. */
const [VALUE, GRADIENT] = [1e-5, 1e-6];
const REFERENCE = { "forward-kl": "fkl", "reverse-kl": "rkl", "jensen-shannon": "js" } as const;

interface Described {
  readonly V: number;
  readonly tau: readonly number[];
  readonly w: readonly number[];
  readonly lengths: readonly number[];
}

function compareValues(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  for (let i = 0; i < expected.length; i++) {
    const allowed = VALUE + VALUE * Math.abs(expected[i]!);
    assert(
      Math.abs(actual[i]! - expected[i]!) <= allowed,
      `${what}, row ${i}: ${actual[i]}, not ${expected[i]}`,
    );
  }
}

for (const family of FAMILIES) {
  sharedTest(`mixtures and products of two teachers are the reference's [${family}]`, async () => {
    const gpu = await testGpu(family);
    const described = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}.json`)));
    const arrays = await goldenArrays(`${FOLDER}.safetensors`);
    for (const [name, { V, tau, w }] of Object.entries<Described>(described)) {
      const get = (what: string) => arrays.get(`${name}.${what}`) as Float32Array;
      const count = get("student").length / V;
      const inputs = {
        ...{ student: get("student"), labels: new Int32Array(count) },
        ...{ "teacher 0": get("teacher_a"), "teacher 1": get("teacher_b") },
      };
      for (const [combine, its] of [["mixture", "mixture"], ["product", "poe"]] as const) {
        const rows = await Rows.of(gpu, combine, 2, [count, V]);
        try {
          for (const temperature of tau) {
            for (const share of w) {
              for (const [k, loss] of DIVERGENCES.entries()) {
                const weights = DIVERGENCES.map((_, i) => Number(i === k));
                const shares = shareScalars([share, 1 - share]);
                const { values, gradient } = await rows.run(inputs, weights, shares, temperature);
                const key = `tau${temperature}.w${share}.${its}_${REFERENCE[loss as keyof typeof REFERENCE]}`;
                const where = `${name} ${key}`;
                compareValues(values.subarray(k * count, (k + 1) * count), get(`${key}.value`), where);
                assertWithin(gradient, get(`${key}.grad`), GRADIENT, `${where}: gradient`);
                if (k > 0 || combine === "product") continue;
                const sum = get(`tau${temperature}.w${share}.sum_of_fkl.grad`);
                assertWithin(gradient, sum, GRADIENT, `${where}: gradient of the sum of divergences`);
                const other = await rows.run(inputs, weights, shareScalars([1 - share, share]), temperature);
                if (share !== 0.5) {
                  assertGreater(maxDifference(other.gradient, sum), 100 * GRADIENT, "the other way round");
                }
              }
            }
          }
        } finally {
          rows.destroy();
        }
      }
    }
  });
}

sharedTest(
  "a sum of divergences to two teachers is not the divergence to their mixture, as in the reference",
  async () => {
    const described = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}.json`)));
    const arrays = await goldenArrays(`${FOLDER}.safetensors`);
    for (const [name, { V, tau, w }] of Object.entries<Described>(described)) {
      const get = (what: string) => arrays.get(`${name}.${what}`)!;
      const count = get("student").length / V;
      for (const temperature of tau) {
        const { terms } = objectiveOf(["forward-kl"], V, temperature).passes[0]!;
        const to = (teacher: string, t: number) => {
          const part = (what: string) => Float64Array.from(get(what).subarray(t * V, (t + 1) * V));
          return referenceRow(terms, part("student"), part(teacher), 0).values[0]!;
        };
        for (const share of w) {
          const key = `tau${temperature}.w${share}`;
          const sums = Array.from(
            { length: count },
            (_, t) => share * to("teacher_a", t) + (1 - share) * to("teacher_b", t),
          );
          const expected = get(`${key}.sum_of_fkl.value`);
          compareValues(sums, expected, `${name} ${key}`);
          if (share > 0 && share < 1) {
            assertGreater(
              maxDifference(get(`${key}.mixture_fkl.value`), expected),
              100 * VALUE,
              "another value",
            );
          }
        }
      }
    }
  },
);

interface Fused {
  readonly candidates: readonly string[];
  readonly ce_per_sequence: Readonly<Record<string, readonly number[]>>;
  readonly picked: readonly string[];
  readonly clm: number;
  readonly loss: Readonly<Record<string, number>>;
}

/** 0.9 + 0.1 step / 10, as an objective's schedule has it. */
const DECAY = { from: 0.9, to: 1, steps: [0, 10], shape: "linear" } as const;

for (const family of FAMILIES) {
  sharedTest(
    `the teacher of least cross-entropy, and what is learnt of it, are the reference's [${family}]`,
    async () => {
      const gpu = await testGpu(family);
      const described = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}.json`)));
      const arrays = await goldenArrays(`${FOLDER}.safetensors`);
      for (
        const [name, { V, mince }] of Object.entries<Described & { mince: Record<string, Fused> }>(described)
      ) {
        const get = (what: string) => arrays.get(`${name}.${what}`)!;
        const [student, labels, sequence] = [
          get("student") as Float32Array,
          get("labels") as Int32Array,
          get("sequence"),
        ];
        const count = labels.length;
        const counted = Array.from({ length: count }, (_, t) => t).filter((t) => labels[t] !== -100);
        const ofCandidate = (who: string) => get(who === "base" ? "base" : `teacher_${who}`) as Float32Array;
        for (const [form, loss] of [["soft_ce", "soft-cross-entropy"], ["kl", "forward-kl"]] as const) {
          const rows = await Rows.of(gpu, "best", 3, [count, V], ["cross-entropy", loss]);
          try {
            for (const fused of Object.values(mince)) {
              const { candidates } = fused;
              const where = `${name}, ${candidates}, ${form}`;
              const teachers = Object.fromEntries(
                [0, 1, 2].map((i) => [`teacher ${i}`, ofCandidate(candidates[i] ?? candidates[0]!)]),
              );
              const run = (own: Float32Array, weights: readonly number[], choice: readonly number[]) =>
                rows.run(
                  { ...teachers, student: own, labels, [CHOICE]: Float32Array.from(choice) },
                  weights,
                  [],
                  1,
                );
              // Each candidate's own cross-entropy, summed up over the supervised rows of each sequence.
              const samples = fused.picked.map((_, i) => tinySample(3, 1, i + 1));
              const sums = await Promise.all(candidates.map(async (who) => {
                const { values } = await run(ofCandidate(who), [1, 0], Array(count).fill(0));
                const own = new Float64Array(samples.length);
                for (const t of counted) own[sequence[t]!]! += values[t]!;
                return own;
              }));
              const tokens = samples.map((_, i) => counted.filter((t) => sequence[t] === i).length);
              for (const [c, who] of candidates.entries()) {
                compareValues(
                  [...sums[c]!].map((sum, i) => sum / tokens[i]!),
                  fused.ce_per_sequence[who]!,
                  where,
                );
              }
              const choice = leastChoice(samples, sums);
              assertEquals(samples.map((sample) => candidates[choice.get(sample)!]), fused.picked);

              const chosen = Array.from(sequence, (i) => choice.get(samples[Number(i)]!)!);
              for (
                const [key, step] of [["hard", 0], ["decay_step3_of_10", 3], [
                  "decay_step10_of_10",
                  10,
                ]] as const
              ) {
                const share = courseAt(step, DECAY);
                const { values, gradient } = await run(student, [share, 1 - share], chosen);
                const mean = (k: number) =>
                  counted.reduce((sum, t) => sum + values[k * count + t]!, 0) / counted.length;
                compareValues([mean(0)], [fused.clm], `${where}: cross-entropy`);
                const total = share * mean(0) + (1 - share) * mean(1);
                compareValues([total], [fused.loss[`${form}.${key}`]!], `${where}, ${key}`);
                const expected = arrays.get(`${name}.mince_${candidates.length}.${form}.${key}.grad`);
                if (!expected) continue;
                assertWithin(
                  gradient.map((g) => g / counted.length),
                  expected,
                  GRADIENT,
                  `${where}, ${key}: gradient`,
                );
              }
            }
          } finally {
            rows.destroy();
          }
        }
      }
    },
  );
}

Deno.test("of equal teachers the first is the best", () => {
  const samples = [tinySample(3, 1, 1), tinySample(3, 1, 2), tinySample(3, 1, 3)];
  const choice = leastChoice(
    samples,
    [[2, 1, 3], [1, 1, 3], [1, 0.5, 3]].map((own) => Float64Array.from(own)),
  );
  assertEquals(samples.map((sample) => choice.get(sample)), [1, 2, 0]);
});
