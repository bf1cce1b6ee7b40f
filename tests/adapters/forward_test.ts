/** Each built-in adapter on one layer: its forward pass and gradients against the weight it merges to. */
// @ts-types="../../types/std_assert.d.ts"
import { assert } from "@std/assert";
import { adapters as all } from "../../plugins/adapters/mod.ts";
import { hostLinearAlgebra } from "../../src/linalg/host.ts";
import type {
  AdaptedLayer,
  Adapter,
  AdapterValues,
  ParameterDefinition,
} from "../../src/registry/contract.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { assertWithin, maxDifference, modelTest, randomArray, run } from "../tensor/harness.ts";

const adapters = all.filter((a): a is Adapter & Required<Pick<Adapter, "merge">> => a.merge !== undefined);
type Mergeable = (typeof adapters)[number];

const T = 5;
const MODEL = { hiddenSize: 12, sourceLayers: 4, keptLayers: [0, 2], shapes: 3, shape: 1 };
const settings = { rank: 3, alpha: 5, dropout: 0, rslora: false, loraPlusRatio: 1, steps: 10 };

interface Case {
  readonly values: AdapterValues;
  readonly own: readonly ParameterDefinition[];
  readonly shared: readonly ParameterDefinition[];
  readonly data: Map<string, Float32Array>;
  readonly weight: Float32Array;
  readonly x: Float32Array;
}

/** A layer with its parameters; those that are trained have moved from where they began, unless `begun`. */
function prepare(adapter: Adapter, layer: AdaptedLayer, begun = false): Case {
  const options = adapter.options.parse({}) as Record<string, unknown>;
  const wider = {
    ...layer,
    path: "wider",
    inFeatures: layer.inFeatures + 3,
    outFeatures: layer.outFeatures + 2,
  };
  const own = adapter.parameters(layer, settings, options, MODEL);
  const shared = adapter.shared?.([layer, wider], settings, options, MODEL) ?? [];
  const weight = randomArray(layer.outFeatures * layer.inFeatures, 3, 0.5);
  const data = new Map<string, Float32Array>();
  [...own, ...shared].forEach((p, i) => {
    const { initialisation: init } = p;
    const count = p.shape.reduce((a, b) => a * b, 1);
    const first = init.kind === "fromWeight"
      ? init.compute(weight, layer, hostLinearAlgebra)
      : init.kind === "given"
      ? init.values()
      : init.kind === "constant"
      ? new Float32Array(count).fill(init.value)
      : randomArray(count, 20 + i, init.kind === "uniform" ? init.bound : init.deviation);
    const moved = randomArray(count, 40 + i, 0.3);
    data.set(p.name, p.trainable === false || begun ? first : first.map((v, k) => v + moved[k]!));
  });
  const get = (name: string) => data.get(name)!;
  return {
    values: { layer, settings, options, parameter: get, shared: get },
    own,
    shared,
    data,
    weight,
    x: randomArray(T * layer.inFeatures, 5),
  };
}

/** x W^T in f64. */
function product(x: Float32Array, weight: ArrayLike<number>, inFeatures: number): Float64Array {
  const outFeatures = weight.length / inFeatures;
  return Float64Array.from({ length: T * outFeatures }, (_, k) => {
    const [t, o] = [Math.floor(k / outFeatures), k % outFeatures];
    let sum = 0;
    for (let i = 0; i < inFeatures; i++) sum += x[t * inFeatures + i]! * weight[o * inFeatures + i]!;
    return sum;
  });
}

/**
 * The weight that the gradient believes in: DoRA's norms are constants to it, so they stay those of `at`.
 */
function believed(adapter: Mergeable, moved: Case, at: Case): ArrayLike<number> {
  const merged = adapter.merge(moved.weight, moved.values);
  if (adapter.id !== "dora") return merged;
  const norms = (c: Case) => {
    const [a, b, { inFeatures, rank, alpha }] = [c.data.get("A")!, c.data.get("B")!, c.values.layer];
    const sums = new Float64Array(c.values.layer.outFeatures);
    c.weight.forEach((w, k) => {
      const [o, i] = [Math.floor(k / inFeatures), k % inFeatures];
      let v = w;
      for (let r = 0; r < rank; r++) v += alpha / rank * b[o * rank + r]! * a[r * inFeatures + i]!;
      sums[o]! += v * v;
    });
    return sums.map(Math.sqrt);
  };
  const [now, then] = [norms(moved), norms(at)];
  return Float64Array.from(merged, (v, k) => {
    const o = Math.floor(k / moved.values.layer.inFeatures);
    return v * now[o]! / then[o]!;
  });
}

for (const adapter of adapters) {
  for (const [inFeatures, outFeatures] of [[13, 7], [16, 8], [8, 20]] as const) {
    const layer = { path: "layer", inFeatures, outFeatures, rank: 3, alpha: 5 };
    modelTest(
      `${adapter.id}: forward and gradients are those of the merged weight [${outFeatures}, ${inFeatures}]`,
      async (gpu) => {
        const c = prepare(adapter, layer);
        const all = [...c.own, ...c.shared];
        const trained = c.own.filter((p) => p.trainable !== false);
        const dy = randomArray(T * outFeatures, 9);
        const { outputs } = await run(gpu, [
          { shape: [T, inFeatures], data: c.x },
          { shape: [outFeatures, inFeatures], data: c.weight, kind: "weight" },
          { shape: [T, outFeatures], data: dy },
          ...all.map((p) => ({ shape: p.shape, data: c.data.get(p.name)!, kind: "state" as const })),
        ], (graph, x, weight, dy, ...parameters) => {
          const find = (name: string) => parameters[all.findIndex((p) => p.name === name)]!;
          const y = adapter.forward({
            ...c.values,
            x: x!,
            weight: weight!,
            base: () => linear(x!, weight!),
            parameter: find,
            shared: find,
            dropout: (t) => t,
            noise: (t) => t,
            prompt: () => graph.input("prompt", [T, MODEL.hiddenSize], "f32"),
            once: (_, trace) => trace(),
          });
          return [
            y,
            ...gradients(graph, [[y, dy!]], [x!, ...trained.map((p) => find(p.name))]).map((g) => g!),
          ];
        });
        const merged = adapter.merge(c.weight, c.values);
        const [y, dx, ...found] = outputs;
        assertWithin(y!, product(c.x, merged, inFeatures), 4e-6, "y");
        const wantedDx = Float64Array.from(c.x, (_, k) => {
          const [t, i] = [Math.floor(k / inFeatures), k % inFeatures];
          let sum = 0;
          for (let o = 0; o < outFeatures; o++) sum += dy[t * outFeatures + o]! * merged[o * inFeatures + i]!;
          return sum;
        });
        assertWithin(dx!, wantedDx, 1e-5, "dx");
        const objective = (moved: Case) =>
          product(c.x, believed(adapter, moved, c), inFeatures).reduce((sum, v, k) => sum + v * dy[k]!, 0);
        trained.forEach((p, n) => {
          const values = c.data.get(p.name)!;
          const slopes = Float64Array.from(values, (value, k) => {
            // The objective is linear in each element, but for f32 rounding of the merged weight.
            const step = 0.25;
            const at = (v: number) => {
              const changed = Float32Array.from(values);
              changed[k] = v;
              const data = new Map(c.data).set(p.name, changed);
              const get = (name: string) => data.get(name)!;
              return objective({ ...c, data, values: { ...c.values, parameter: get, shared: get } });
            };
            return (at(value + step) - at(value - step)) / (2 * step);
          });
          assert(slopes.some((s) => Math.abs(s) > 1e-2), `${p.name} matters`);
          assertWithin(found[n]!, slopes, 3e-5, `d${p.name}`);
          // A gradient with one element wrong would be noticed.
          const wrong = Float32Array.from(found[n]!);
          wrong[wrong.length - 1]! += 1e-3;
          assert(maxDifference(wrong, slopes) > 3e-5);
        });
      },
    );
  }

  Deno.test(`${adapter.id}: begins as the frozen weight, and its plain LoRA means the same`, () => {
    const layer = { path: "layer", inFeatures: 13, outFeatures: 9, rank: 3, alpha: 5 };
    const start = prepare(adapter, layer, true);
    assertWithin(adapter.merge(start.weight, start.values), start.weight, 2e-7, "weight at the start");
    const c = prepare(adapter, layer);
    const merged = adapter.merge(c.weight, c.values);
    assert(maxDifference(merged, c.weight) > 0.02);
    if (!adapter.plainLora) return assert(["dora", "hira"].includes(adapter.id));
    const { rank, scale, a, b } = adapter.plainLora(c.values);
    assertWithin(
      c.weight.map((w, k) => {
        const [o, i] = [Math.floor(k / 13), k % 13];
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += b[o * rank + r]! * a[r * 13 + i]!;
        return w + scale * sum;
      }),
      merged,
      1e-6,
    );
  });
}
