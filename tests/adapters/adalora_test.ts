/**
 * AdaLoRA against PEFT 0.21.2. `fixtures/adalora.json` was made in f64 with `get_peft_model` on two linear layers, [5, 6] and [9, 7],
 * under the config it names: every lora_A, lora_B, lora_E was set by `randomArray(count, 10 * layer + n + 1, 0.5)` for n = 0, 1, 2;
 * at each step t its gradient by `randomArray(count, 1000 * t + 10 * layer + n + 1)`, the gradient times 0.1 taken off, and
 * `update_and_allocate(t)` called. It holds what `get_delta_weight` and the penalty in `AdaLoraModel.forward` gave at the start, and
 * the budget, the triplets' scores and lora_E after each step.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import adalora from "../../plugins/adapters/adalora.ts";
import { budgetAt } from "../../plugins/adapters/adalora_budget.ts";
import type { AdaptedLayer, AdapterValues, UpdateInputs } from "../../src/registry/contract.ts";
import { PluginError } from "../../src/registry/contract.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { stepScalar } from "../../src/tensor/expr/mod.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { assign } from "../../src/tensor/ops/assign.ts";
import { fillConstant } from "../../src/tensor/ops/fill.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, randomArray, run } from "../tensor/harness.ts";
import fixture from "./fixtures/adalora.json" with { type: "json" };

const { config } = fixture;
const settings = {
  rank: config.init_r,
  alpha: config.lora_alpha,
  dropout: 0,
  rslora: false,
  loraPlusRatio: 1,
  steps: config.total_step,
};
const options = adalora.options.parse({
  targetRank: config.target_r,
  tinit: config.tinit,
  tfinal: config.tfinal,
  deltaT: config.deltaT,
  beta1: config.beta1,
  beta2: config.beta2,
  orthRegWeight: config.orth_reg_weight,
}) as Record<string, unknown>;
const layers: readonly (AdaptedLayer & { path: "first" | "second" })[] = [
  { path: "first", inFeatures: 6, outFeatures: 5, rank: 4, alpha: 6 },
  { path: "second", inFeatures: 7, outFeatures: 9, rank: 4, alpha: 6 },
];
const MODEL = { hiddenSize: 8, sourceLayers: 1, keptLayers: [0] };
const NAMES = ["A", "B", "E"];

/** The parameters of all layers, with the seeds that PEFT's numbers came from. */
const parameters = layers.flatMap((layer, l) =>
  adalora.parameters(layer, settings, options, MODEL).map(({ name, shape }) => {
    const seed = 10 * l + NAMES.indexOf(name) + 1;
    const count = shape.reduce((a, b) => a * b);
    return { key: `${layer.path}.${name}`, shape, seed, count, begin: randomArray(count, seed, 0.5) };
  })
);
const begin = new Map(parameters.map((p) => [p.key, p.begin]));

function hostValues(layer: AdaptedLayer, values: ReadonlyMap<string, Float32Array>): AdapterValues {
  return {
    layer,
    settings,
    options,
    parameter: (name) => values.get(`${layer.path}.${name}`)!,
    shared: () => new Float32Array(),
  };
}

Deno.test("adalora: the budget falls as PEFT's does, and only what is due happens", () => {
  const schedule = { steps: 12, tinit: 2, tfinal: 3, deltaT: 2, initial: 8, target: 4 };
  const steps = fixture.steps.map((_, i) => budgetAt(i + 1, schedule));
  assertEquals(steps.map((s) => s.measure), fixture.steps.map((_, i) => i + 1 < 9));
  assertEquals(steps.map((s) => s.hold), fixture.steps.map((_, i) => i + 1 > 9));
  // A choice at every second step after the second, and at the last before the end.
  assertEquals(
    steps.map((s) => s.prune),
    fixture.steps.map(({ budget }, i) => [4, 6, 8, 9].includes(i + 1) ? 8 - budget : 0),
  );
  const every = { ...schedule, steps: 100, tinit: 10, tfinal: 20, deltaT: 1, initial: 1200, target: 800 };
  const budgets = Array.from({ length: 70 }, (_, i) => 1200 - budgetAt(11 + i, every).prune);
  assert(budgets.every((b, i) => i === 0 || b <= budgets[i - 1]!));
  // 800 + 400 (1 - 35 / 70)^3 halfway.
  assertEquals([budgets[34], budgets[69]], [850, 800]);
});

Deno.test("adalora: the merged weight is PEFT's", () => {
  for (const layer of layers) {
    const zero = new Float32Array(layer.inFeatures * layer.outFeatures);
    assertWithin(adalora.merge!(zero, hostValues(layer, begin)), fixture.delta[layer.path], 1e-7);
  }
});

gpuTest(
  "adalora: the penalty and its gradient are PEFT's, near the smallest it can be too",
  async (gpu) => {
    const shared = adalora.shared!(layers, settings, options, MODEL);
    assertEquals(shared.map((p) => p.name), ["I4"]);
    const { initialisation } = shared[0]!;
    const vectors = parameters.filter((p) => !p.key.endsWith("E"));
    const once = (values: readonly Float32Array[]) =>
      run(gpu, [
        ...vectors.map(({ shape }, i) => ({ shape, data: values[i]! })),
        {
          shape: [4, 4],
          data: initialisation.kind === "given" ? initialisation.values() : new Float32Array(16),
        },
      ], (graph, ...tensors) => {
        const penalty = adalora.penalty!({
          layers: layers.map((layer) => ({
            layer,
            parameter: (name) => tensors[vectors.findIndex((p) => p.key === `${layer.path}.${name}`)]!,
          })),
          shared: () => tensors.at(-1)!,
          settings,
          options,
        });
        const found = gradients(graph, [[penalty, fillConstant(graph, [1], 1)]], tensors.slice(0, -1));
        return [penalty, ...found.map((g) => g!)];
      });
    const { outputs: [value, ...found] } = await once(vectors.map((p) => p.begin));
    assertWithin(value!, [fixture.penalty.value], 1e-6);
    const wanted: Record<string, number[]> = fixture.penalty.gradients;
    vectors.forEach((p, i) => assertWithin(found[i]!, wanted[p.key]!, 1e-6, p.key));
    // Rows or columns of an identity: nothing to punish, and nothing that is not a number.
    const orthonormal = vectors.map(({ shape: [rows, columns], count }) =>
      Float32Array.from(
        { length: count },
        (_, i) => Number(Math.floor(i / columns!) === i % columns! && rows! > 0),
      )
    );
    const { outputs: [least, ...flat] } = await once(orthonormal);
    assertWithin(least!, [0], 1e-9);
    flat.forEach((gradient) => assertWithin(gradient, new Float32Array(gradient.length), 1e-9));
  },
);

/**
 * Trains as the fixture did and gives scores, E and the running means after each step.
 *
 * @param clippings What the gradients of each step count with; at 0 they are NaN
 * @param spoil A state that is set to 1 before each step
 */
async function allocate(gpu: Gpu, clippings?: readonly number[], spoil?: string) {
  const program = new Program();
  const graph = program.block("update");
  const own = new Map<string, Tensor>();
  const initial = new Map<string, Float32Array>();
  const state = (key: string, shape: readonly number[], value = 0) => {
    if (!own.has(key)) {
      own.set(key, graph.state(key, shape, "f32"));
      const count = shape.reduce((a, b) => a * b);
      initial.set(key, new Float32Array(count).fill(value));
    }
    return own.get(key)!;
  };
  for (const p of parameters) {
    const gradient = state(`gradient ${p.key}`, p.shape);
    assign(state(p.key, p.shape), [gradient], (w, g) => w!.sub(g!.mul(0.1)));
    initial.set(p.key, p.begin);
  }
  for (
    const [owner, list] of [
      ...layers.map((l) => [l.path, adalora.states!(l, settings, options)] as const),
      ["shared", adalora.sharedStates!(layers, settings, options)] as const,
    ]
  ) for (const s of list) state(`${owner} ${s.name}`, s.shape, s.initial);
  const inputs: UpdateInputs = {
    layers: layers.map((layer) => ({
      layer,
      parameter: (name) => own.get(`${layer.path}.${name}`)!,
      gradient: (name) => own.get(`gradient ${layer.path}.${name}`)!,
      state: (name) => own.get(`${layer.path} ${name}`)!,
    })),
    shared: () => assert(false) as never,
    sharedGradient: () => assert(false) as never,
    sharedState: (name) => own.get(`shared ${name}`)!,
    clipping: state("clipping", [1], 1),
    scalar: stepScalar,
    settings,
    options,
  };
  adalora.afterUpdate!(inputs);
  const executable = await compile(gpu, plan(program, gpu.description));
  try {
    executable.poison();
    for (const [key, data] of initial) executable.write(key, data);
    const steps = [];
    for (let t = 1; t <= settings.steps; t++) {
      for (const [name, value] of Object.entries(adalora.scalars!(t, layers, settings, options))) {
        executable.setScalar(name, value);
      }
      const clipping = clippings?.[t - 1] ?? 1;
      executable.write("clipping", new Float32Array([clipping]));
      for (const { key, seed, count } of parameters) {
        const gradient = randomArray(count, 1000 * t + seed);
        executable.write(`gradient ${key}`, clipping === 0 ? gradient.fill(NaN) : gradient);
      }
      if (spoil) executable.write(spoil, new Float32Array(initial.get(spoil)!.length).fill(1));
      executable.run("update");
      const names = ["shared scores", ...own.keys()];
      const back = await executable.read(names);
      const get = (key: string, count = 4, from = 0) =>
        (back.get(key)!.data as Float32Array).slice(from, from + count);
      steps.push({
        scores: { first: get("shared scores"), second: get("shared scores", 4, 64) },
        E: { first: get("first.E"), second: get("second.E") },
        means: names.filter((name) => /sensitivity|uncertainty/.test(name)).map((name) =>
          back.get(name)!.data
        ),
      });
    }
    gpu.check();
    return steps;
  } finally {
    executable.destroy();
  }
}

gpuTest("adalora: scores and pruned triplets are PEFT's at every step", async (gpu) => {
  const steps = await allocate(gpu);
  const worst = (steps: Awaited<ReturnType<typeof allocate>>) =>
    Math.max(
      ...fixture.steps.flatMap(({ scores }, t) =>
        layers.map(({ path }) => maxDifference(steps[t]!.scores[path], scores[path]))
      ),
    );
  assert(worst(steps) < 1e-7, `${worst(steps)}`);
  let pruned = 0;
  for (const [t, { E }] of fixture.steps.entries()) {
    for (const { path } of layers) {
      const found = steps[t]!.E[path];
      assertEquals(Array.from(found, (e) => e === 0), E[path].map((e) => e === 0), `step ${t + 1}`);
      pruned += E[path].filter((e) => e === 0).length;
      assertWithin(found, E[path], 1e-6);
    }
  }
  assert(pruned > 0);
  // A mean that does not start at zero would be noticed.
  assert(worst(await allocate(gpu, undefined, "first sensitivity.B")) > 1e-4);
});

gpuTest("adalora: a step whose gradient is not finite leaves importance as it was", async (gpu) => {
  const steps = await allocate(gpu, [1, 1, 0]);
  assertEquals(steps[2]!.scores, steps[1]!.scores);
  assertEquals(steps[2]!.means, steps[1]!.means);
  assertEquals(steps[2]!.means.length, 12);
});

gpuTest("adalora: the clipped gradient counts", async (gpu) => {
  const [whole, half] = [await allocate(gpu), await allocate(gpu, new Array(12).fill(0.5))];
  // Sensitivity and uncertainty are both proportional to the gradient.
  assertWithin(half[0]!.scores.first.map((s) => 4 * s), whole[0]!.scores.first, 1e-7);
});

Deno.test("adalora: what was pruned is in no file, but one triplet stays", () => {
  const [first, second] = layers as [AdaptedLayer, AdaptedLayer];
  const pruned = new Map(begin).set("first.E", Float32Array.of(0, 0.5, 0, -2)).set(
    "second.E",
    new Float32Array(4),
  );
  const layout = adalora.peft!(settings, options);
  const values = [first, second].map((l) => hostValues(l, pruned));
  assertEquals(layout.trainedConfig!(values), {
    rank_pattern: {
      "first.*": [false, true, false, true],
      "second.*": [true, false, false, false],
    },
  });
  assertEquals(layout.trainedConfig!([hostValues(first, begin)]), { rank_pattern: null });
  // PEFT resizes the module that stands before a key's last dot, and warns of keys that do not match one as it matches patterns.
  const { rank_pattern: patterns } = layout.trainedConfig!(values) as { rank_pattern: object };
  assertEquals(Object.keys(patterns).map((key) => key.split(".").slice(0, -1).join(".")), [
    "first",
    "second",
  ]);
  for (const [i, key] of Object.keys(patterns).entries()) {
    assertMatch(layers[i]!.path, new RegExp(`^(.*\\.)?(${key})$`));
  }
  const tensors = layout.layer!(values[0]!);
  assertEquals(Object.values(tensors).map((t) => t.shape), [[2, 6], [5, 2], [2, 1]]);
  assertEquals(tensors.lora_A!.data.slice(6), begin.get("first.A")!.slice(18));
  assertEquals(tensors.lora_B!.data[2], begin.get("first.B")![5]);
  for (const v of values) {
    const { rank, scale, a, b } = adalora.plainLora!(v);
    assertEquals(rank, v.layer === first ? 2 : 1);
    const { inFeatures, outFeatures } = v.layer;
    const zero = new Float32Array(inFeatures * outFeatures);
    const product = zero.map((_, i) => {
      let sum = 0;
      for (let k = 0; k < rank; k++) {
        sum += b[Math.floor(i / inFeatures) * rank + k]! * a[k * inFeatures + i % inFeatures]!;
      }
      return scale * sum;
    });
    assertWithin(product, adalora.merge!(zero, v), 1e-6);
  }
});

Deno.test("adalora: a schedule with nothing to prune, or no time to, is refused", () => {
  const check = (rank: number, given: Record<string, unknown>) =>
    adalora.sharedStates!(
      layers.map((l) => ({ ...l, rank })),
      { ...settings, rank },
      adalora.options.parse(given) as Record<string, unknown>,
    );
  check(2, {});
  check(4, { tinit: 5, tfinal: 6 });
  assertThrows(() => check(1, {}), PluginError, "begin with a rank of 1 on average and shall end with 1");
  assertThrows(() => check(4, { targetRank: 4 }), PluginError, "shall end with 4");
  assertThrows(() => check(4, { tinit: 5, tfinal: 7 }), PluginError, "leave none of the run's 12");
});
