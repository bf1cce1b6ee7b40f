/** The values of the built-in losses over inner values, against their definitions in f64; and what `plugin check` says of them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import attentionRelation from "../../plugins/losses/attention_relation.ts";
import hiddenStateCosine from "../../plugins/losses/hidden_state_cosine.ts";
import hiddenStateMse from "../../plugins/losses/hidden_state_mse.ts";
import { layerPairs } from "../../plugins/losses/layer_map.ts";
import relationDistillation from "../../plugins/losses/relation_distillation.ts";
import { builtins } from "../../plugins/mod.ts";
import { hostLinearAlgebra } from "../../src/linalg/host.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { checkPlugin, type CheckResult } from "../../src/registry/check/check_plugin.ts";
import { type FeatureLoss, type ModelShape, tensor } from "../../src/registry/contract.ts";
import { featureProgramText } from "../../src/registry/feature_program.ts";
import { pluginIdentity } from "../../src/registry/identity.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { assertWithin, gpuTest, randomArray, run, type Value } from "../tensor/harness.ts";
import { indices } from "../tensor/oracle.ts";

const STUDENT: ModelShape = {
  ...{ layers: 2, hiddenSize: 12, vocabularySize: 9 },
  ...{ queryWidth: 16, keyValueWidth: 8 },
};
const TEACHER: ModelShape = {
  ...{ layers: 4, hiddenSize: 20, vocabularySize: 9 },
  ...{ queryWidth: 24, keyValueWidth: 12 },
};

/** Two samples of 7 and 4 positions, and one of filler. */
const STREAM = {
  segments: [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, -1],
  start: [0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 11],
  end: [7, 7, 7, 7, 7, 7, 7, 11, 11, 11, 11, 12],
  supervised: [0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0],
  prompt: [1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0],
};
const T = STREAM.segments.length;

type Rows = readonly Float64Array[];
type Inner = (name: string) => Rows;

function width(tap: string, shape: ModelShape): number {
  const part = tap.split(".").at(-1)!;
  return part === "queries" ? shape.queryWidth : part === "output" ? shape.hiddenSize : shape.keyValueWidth;
}

/** The loss of each position on the GPU, and the values it was given. */
async function onGpu(gpu: Gpu, loss: FeatureLoss, given: Record<string, unknown>, student = STUDENT) {
  const models = { student, teacher: TEACHER };
  const options = loss.options.parse(given);
  const taps = loss.taps(models, options);
  const names: string[] = [];
  const values: Value[] = [];
  const put = (name: string, shape: readonly number[], size = 1) => {
    if (names.includes(name)) return;
    const count = shape.reduce((a, b) => a * b, 1);
    values.push({ shape, data: randomArray(count, names.push(name), size) });
  };
  for (const model of ["student", "teacher"] as const) {
    for (const tap of taps[model]) put(`${model} ${tap}`, [T, width(tap, models[model])]);
  }
  for (const p of loss.parameters?.(models, options) ?? []) put(p.name, p.shape, 0.4);
  const count = names.length;
  const { outputs } = await run(gpu, [...values, ...Object.values(STREAM).map(indices)], (_, ...tensors) => {
    const tensor = (name: string) => tensors[names.indexOf(name)]!;
    const [segments, start, end, supervised, prompt] = tensors.slice(count) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    return loss.program({
      student: (tap) => tensor(`student ${tap}`),
      teacher: (tap) => tensor(`teacher ${tap}`),
      parameter: tensor,
      sample: { start, end },
      ...{ segments, supervised, prompt, models, options },
    });
  });
  const rows: Inner = (name) => {
    const { shape, data } = values[names.indexOf(name)]!;
    const columns = shape[1]!;
    return Array.from(
      { length: shape[0]! },
      (_, t) => Float64Array.from(data.subarray(t * columns, (t + 1) * columns)),
    );
  };
  return { actual: outputs[0]!, rows };
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);
const cosine = (a: ArrayLike<number>, b: ArrayLike<number>) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const positions = Array.from({ length: T }, (_, t) => t);
const output = (layer: number) => `model.layers.${layer}.output`;

/** W h of each row. */
const projected = (rows: Rows, weight: Rows): Rows =>
  rows.map((h) => Float64Array.from(weight, (w) => dot(w, h)));

gpuTest(
  "hidden-state losses are the mean over pairs of layers of the distance of projected states",
  async (gpu) => {
    const distances: [FeatureLoss, (s: Float64Array, t: Float64Array) => number][] = [
      [hiddenStateMse, (s, t) => mean(Array.from(t, (x, i) => (s[i]! - x) ** 2))],
      [hiddenStateCosine, (s, t) => 1 - cosine(s, t)],
    ];
    const cut = { ...TEACHER, layers: 2, originals: [0, 2] };
    for (const [loss, distance] of distances) {
      const cases: [ModelShape, Record<string, unknown>, [number, number][], boolean][] = [
        [STUDENT, {}, [[0, 1], [1, 3]], true],
        [STUDENT, { layers: [[1, 2]] }, [[1, 2]], true],
        [cut, {}, [[0, 0], [1, 2]], false],
        [cut, { layers: "last", projector: "always" }, [[1, 3]], true],
      ];
      for (const [student, options, pairs, projects] of cases) {
        const { actual, rows } = await onGpu(gpu, loss, options, student);
        const expected = positions.map((t) =>
          mean(pairs.map(([s, of], pair) => {
            const own = rows(`student ${output(s)}`);
            const states = projects ? projected(own, rows(`${pair}`)) : own;
            return distance(states[t]!, rows(`teacher ${output(of)}`)[t]!);
          }))
        );
        assertWithin(actual, expected, 1e-5, `${loss.id} ${JSON.stringify(options)}`);
      }
    }
  },
);

gpuTest("attention-relation is the KL of attention relations, causal within the sample", async (gpu) => {
  for (const heads of [1, 2, 4]) {
    for (const relations of [["queries", "keys", "values"], ["values"]]) {
      const { actual, rows } = await onGpu(gpu, attentionRelation, { heads, relations });
      const log = (x: Rows, i: number, h: number) => {
        const d = x[0]!.length / heads;
        const part = (t: number) => x[t]!.subarray(h * d, (h + 1) * d);
        const scores = positions.slice(STREAM.start[i]!, i + 1).map((j) =>
          dot(part(i), part(j)) / Math.sqrt(d)
        );
        const total = Math.log(scores.reduce((sum, s) => sum + Math.exp(s), 0));
        return scores.map((s) => s - total);
      };
      const expected = positions.map((i) =>
        mean(relations.map((r) =>
          mean(Array.from({ length: heads }, (_, h) => {
            const q = log(rows(`student model.layers.1.${r}`), i, h);
            const p = log(rows(`teacher model.layers.3.${r}`), i, h);
            return p.reduce((sum, p, j) => sum + Math.exp(p) * (p - q[j]!), 0);
          }))
        ))
      );
      assertWithin(actual, expected, 5e-6, `${heads} heads, ${relations}`);
      assertGreater(Math.max(...expected), 0.05);
    }
  }
});

gpuTest("relation-distillation compares similarities to the span in the sample", async (gpu) => {
  for (const span of ["all", "supervised", "prompt"] as const) {
    const { actual, rows } = await onGpu(gpu, relationDistillation, { span });
    const expected = positions.map((i) => {
      const keys = positions.slice(STREAM.start[i]!, STREAM.end[i]!)
        .filter((j) => span === "all" || STREAM[span][j] === 1);
      const similarities = (x: Rows) => keys.map((j) => cosine(x[i]!, x[j]!));
      const [own, wanted] = [rows(`student ${output(1)}`), rows(`teacher ${output(3)}`)].map(similarities);
      return keys.length === 0 ? 0 : 1 - cosine(own!, wanted!);
    });
    assertWithin(actual, expected, 5e-6, span);
    assertGreater(Math.max(...expected), 0.05);
  }
});

Deno.test("layer maps pair layers as they say", () => {
  const of = (
    map: Parameters<typeof layerPairs>[0],
    student: number,
    teacher: number,
    originals?: number[],
  ) => {
    const shape = (layers: number) => ({ ...STUDENT, layers });
    const cut = originals ? { originals } : {};
    return layerPairs(map, { student: { ...shape(student), ...cut }, teacher: shape(teacher) });
  };
  assertEquals(of("even", 3, 12), [[0, 3], [1, 7], [2, 11]]);
  assertEquals(of("auto", 4, 6), [[0, 1], [1, 2], [2, 4], [3, 5]]);
  assertEquals(of("auto", 2, 6, [1, 4]), [[0, 1], [1, 4]]);
  assertEquals(of("even", 4, 2), [[0, 0], [1, 0], [2, 1], [3, 1]]);
  assertEquals(of("last", 4, 2), [[3, 1]]);
  assertEquals(of([[1, 0]], 4, 2), [[1, 0]]);
});

Deno.test("the identity of a feature loss changes with what its functions call", () => {
  const scaled = (factor: number): FeatureLoss => ({
    ...hiddenStateMse,
    program: (inputs) => tensor.scale(hiddenStateMse.program(inputs), factor),
  });
  assertEquals(pluginIdentity(scaled(2)), pluginIdentity(scaled(2)));
  assert(pluginIdentity(scaled(2)) !== pluginIdentity(scaled(3)));
  for (const [loss, options] of VARIANTS) {
    assertMatch(featureProgramText(loss, loss.options.parse(options)) ?? "", /pointwise|relations/, loss.id);
  }
  // An expression is part of it.
  const powers = (power: number): FeatureLoss => ({
    ...hiddenStateMse,
    program: ({ student, models }) => {
      const x = student(output(models.student.layers - 1));
      const sums = tensor.sumColumns(tensor.pointwise([x], (v) => v!.mul(power)));
      return tensor.reshape(sums, [sums.dim(0)]);
    },
  });
  assert(pluginIdentity(powers(2)) !== pluginIdentity(powers(3)));
});

/** Options with which a built-in is another program. */
const VARIANTS: readonly [FeatureLoss, Record<string, unknown>][] = [
  [hiddenStateMse, {}],
  [hiddenStateMse, { layers: "last", projector: "always" }],
  [hiddenStateCosine, { layers: [[0, 1], [1, 3]] }],
  [attentionRelation, { heads: 4, layers: "auto", relations: ["keys", "values"] }],
  [relationDistillation, {}],
  [relationDistillation, { span: "supervised" }],
];

for (const [loss, options] of VARIANTS) {
  Deno.test({
    name: `plugin check passes ${loss.id} with ${JSON.stringify(options)}`,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const results: CheckResult[] = [];
      await checkPlugin({
        ...{ plugin: loss, options, linalg: hostLinearAlgebra },
        others: builtins.filter((p) => p !== loss),
      }, { begin: () => {}, result: (r) => void results.push(r) });
      assertEquals(results.filter((r) => r.outcome !== "pass"), []);
      assert(results.some((r) => r.check.startsWith("gradients against finite differences, a student cut")));
    },
  });
}
