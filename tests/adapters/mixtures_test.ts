/** Adapters that mix LoRAs, on one layer, against f64: the noise of the gates, and gates that differ from sample to sample. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import instanceGated from "../../plugins/adapters/instance_gated_lora.ts";
import shapeGated from "../../plugins/adapters/shape_gated_lora.ts";
import type { Adapter, ParameterDefinition } from "../../src/registry/contract.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { pointwise } from "../../src/tensor/ops/pointwise.ts";
import { assertWithin, maxDifference, modelTest, randomArray, run } from "../tensor/harness.ts";
import { numericGradient } from "../tensor/oracle.ts";

const [T, IN, OUT, RANK, E] = [5, 7, 6, 3, 4];
const SCALE = 5 / RANK;
const settings = { rank: RANK, alpha: 5, dropout: 0, rslora: false, loraPlusRatio: 1, steps: 10 };
const layer = { path: "layer", inFeatures: IN, outFeatures: OUT, rank: RANK, alpha: 5 };
const MODEL = { hiddenSize: 9, sourceLayers: 4, keptLayers: [0, 2] };

type Numbers = ArrayLike<number>;
/** Values by name: parameters, and `x`, `weight`, `noise` [1, E], `prompt` [T, H]. */
type Values = Readonly<Record<string, Numbers>>;

/** a [m, k] b [k, n]. */
function product(a: Numbers, b: Numbers, m: number, k: number, n: number): Float64Array {
  return Float64Array.from({ length: m * n }, (_, at) => {
    let sum = 0;
    for (let j = 0; j < k; j++) sum += a[Math.floor(at / n) * k + j]! * b[j * n + at % n]!;
    return sum;
  });
}

/** x [m, k] w^T with w [n, k]. */
function times(x: Numbers, w: Numbers, m: number, k: number, n: number): Float64Array {
  return product(
    x,
    Float64Array.from({ length: k * n }, (_, at) => w[(at % n) * k + Math.floor(at / n)]!),
    m,
    k,
    n,
  );
}

function gatesOf(logits: Numbers, k: number): Float64Array {
  const result = new Float64Array(logits.length);
  for (let begin = 0; begin < logits.length; begin += E) {
    const row = Array.from({ length: E }, (_, i) => logits[begin + i]!);
    const least = [...row].sort((a, b) => b - a)[k - 1]!;
    const terms = row.map((v) => (v >= least ? Math.exp(v) : 0));
    const sum = terms.reduce((a, b) => a + b);
    terms.forEach((term, i) => result[begin + i] = term / sum);
  }
  return result;
}

/** g of shape-gated LoRA. */
function shapeGates(v: Values): Float64Array {
  const width = MODEL.sourceLayers + 1;
  const hidden = v["router 1"]!.length / width;
  const logits = times(times(v.shape!, v["router 1"]!, 1, width, hidden), v["router 2"]!, 1, hidden, E);
  const deviation = times(v.shape!, v["router noise"]!, 1, width, E).map((z) => Math.log1p(Math.exp(z)));
  return gatesOf(logits.map((z, e) => z + v.noise![e]! * deviation[e]!), 2);
}

function shapeForward(v: Values): Float64Array {
  const g = shapeGates(v);
  const a = product(g, v.A!, 1, E, RANK * IN);
  const b = product(g, v.B!, 1, E, OUT * RANK);
  const update = times(times(v.x!, a, T, IN, RANK), b, T, RANK, OUT);
  return times(v.x!, v.weight!, T, IN, OUT).map((y, i) => y + SCALE * update[i]!);
}

/** y = W x + s sum_e g_e B_e A_e x, expert by expert. */
function instanceForward(v: Values): Float64Array {
  const g = gatesOf(times(v.prompt!, v.router!, T, MODEL.hiddenSize, E), 2);
  const y = times(v.x!, v.weight!, T, IN, OUT);
  for (let e = 0; e < E; e++) {
    const a = Float64Array.from({ length: RANK * IN }, (_, i) => v.A![e * RANK * IN + i]!);
    const b = Float64Array.from(
      { length: OUT * RANK },
      (_, i) => v.B![Math.floor(i / RANK) * E * RANK + e * RANK + i % RANK]!,
    );
    const update = times(times(v.x!, a, T, IN, RANK), b, T, RANK, OUT);
    update.forEach((u, i) => y[i]! += SCALE * g[Math.floor(i / OUT) * E + e]! * u);
  }
  return y;
}

/** Runs an adapter's forward pass and its gradients on given values. */
async function runLayer(
  gpu: Parameters<typeof run>[0],
  adapter: Adapter,
  options: Record<string, unknown>,
  parameters: readonly ParameterDefinition[],
  v: Values,
  dy: Float32Array,
): Promise<Map<string, Float32Array>> {
  const shapes: Record<string, readonly number[]> = {
    x: [T, IN],
    weight: [OUT, IN],
    noise: [1, E],
    prompt: [T, MODEL.hiddenSize],
    dy: [T, OUT],
    ...Object.fromEntries(parameters.map((p) => [p.name, p.shape])),
  };
  const names = Object.keys(shapes);
  const wanted = ["x", ...parameters.filter((p) => p.trainable !== false).map((p) => p.name)];
  const data = (name: string) => (name === "dy" ? dy : Float32Array.from(v[name] ?? randomArray(E, 1)));
  const { outputs } = await run(
    gpu,
    names.map((name) => ({ shape: shapes[name]!, data: data(name) })),
    (graph, ...inputs) => {
      const input = (name: string): Tensor => inputs[names.indexOf(name)]!;
      const y = adapter.forward({
        x: input("x"),
        weight: input("weight"),
        base: () => linear(input("x"), input("weight")),
        parameter: input,
        shared: input,
        dropout: (t) => t,
        noise: (t, deviation) => pointwise([t, deviation, input("noise")], (t, d, e) => t!.add(d!.mul(e!))),
        prompt: () => input("prompt"),
        once: (_, trace) => trace(),
        layer,
        settings,
        options,
      });
      return [y, ...gradients(graph, [[y, input("dy")]], wanted.map(input)).map((t) => t!)];
    },
  );
  return new Map([["y", outputs[0]!], ...wanted.map((name, i) => [name, outputs[i + 1]!] as const)]);
}

/** An adapter's parameters and random values for all that goes in. */
function prepare(adapter: Adapter, given: Record<string, unknown>) {
  const options = adapter.options.parse(given) as Record<string, unknown>;
  const parameters = [
    ...adapter.parameters(layer, settings, options, MODEL),
    ...adapter.shared!([layer], settings, options, MODEL),
  ];
  const random = (count: number, seed: number) => randomArray(count, seed, 0.7);
  const values: Record<string, Numbers> = {
    x: random(T * IN, 1),
    weight: random(OUT * IN, 2),
    noise: random(E, 3),
    // Two samples: three positions of the first, two of the second.
    prompt: [0, 0, 0, 1, 1].flatMap((sample) => [...random(MODEL.hiddenSize, 5 + sample)]),
    ...Object.fromEntries(parameters.map((p, i) => {
      const count = p.shape.reduce((a, b) => a * b, 1);
      return [p.name, p.initialisation.kind === "given" ? p.initialisation.values() : random(count, 30 + i)];
    })),
  };
  return { options, parameters, values, dy: randomArray(T * OUT, 8) };
}

function assertGradients(
  found: ReadonlyMap<string, Float32Array>,
  forward: (v: Values) => Float64Array,
  values: Values,
  dy: Float32Array,
): void {
  for (const [name, gradient] of found) {
    if (name === "y") continue;
    const slopes = numericGradient((at) => forward({ ...values, [name]: at }), values[name]!, dy);
    assert(slopes.some((s) => Math.abs(s) > 1e-2), `${name} matters`);
    assertWithin(gradient, slopes, 2e-5, `d${name}`);
  }
}

modelTest(
  "shape-gated-lora: forward with noise and gradients of experts and router equal f64",
  async (gpu) => {
    const { options, parameters, values, dy } = prepare(shapeGated, { experts: E, hidden: 5 });
    const found = await runLayer(gpu, shapeGated, options, parameters, values, dy);
    assertWithin(found.get("y")!, shapeForward(values), 5e-6, "y");
    assertGradients(found, shapeForward, values, dy);
    // Without the noise it would be seen.
    assert(maxDifference(found.get("y")!, shapeForward({ ...values, noise: new Array(E).fill(0) })) > 1e-2);

    // dA_e = g_e dA, dB_e = g_e dB for the factors A, B of the one LoRA they are.
    const g = shapeGates(values);
    assert(g.filter((v) => v === 0).length === E - 2);
    for (const name of ["A", "B"]) {
      const gradient = found.get(name)!;
      const count = gradient.length / E;
      const first = g.findIndex((v) => v > 0);
      const mean = gradient.subarray(first * count, (first + 1) * count).map((v) => v / g[first]!);
      assertWithin(
        gradient,
        Float64Array.from(gradient, (_, i) => g[Math.floor(i / count)]! * mean[i % count]!),
        1e-5,
      );
    }
  },
);

modelTest(
  "instance-gated-lora: forward and gradients of experts and router equal f64, sample by sample",
  async (gpu) => {
    const { options, parameters, values, dy } = prepare(instanceGated, { experts: E });
    const found = await runLayer(gpu, instanceGated, options, parameters, values, dy);
    assertWithin(found.get("y")!, instanceForward(values), 5e-6, "y");
    assertGradients(found, instanceForward, values, dy);
    // The samples take different experts, so the gates of a neighbour would be seen.
    const prompt = Array.from(values.prompt!);
    const swapped = [...prompt.slice(3 * MODEL.hiddenSize), ...prompt.slice(0, 3 * MODEL.hiddenSize)];
    assert(maxDifference(found.get("y")!, instanceForward({ ...values, prompt: swapped })) > 1e-2);
  },
);

Deno.test("both refuse to mix more experts than there are", () => {
  for (const adapter of [shapeGated, instanceGated]) {
    const result = adapter.options.safeParse({ experts: 2, topK: 3 });
    assertEquals(result.error?.issues.map(({ path, message }) => [...path, message]), [[
      "topK",
      "must be at most experts",
    ]]);
  }
});
