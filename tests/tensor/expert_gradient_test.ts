/** Trained weights of experts: the gradient of each from the rows that are its own, and low-rank updates of a whole mixture. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../src/gpu/device.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { gated } from "../../src/tensor/ops/activation.ts";
import { add } from "../../src/tensor/ops/combine.ts";
import { expertLinear } from "../../src/tensor/ops/expert_linear.ts";
import { expertWeights, mixture } from "../../src/tensor/ops/experts.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { places } from "./expert_places.ts";
import { assertWithin, gpuTest, maxDifference, run } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { type Mistake, plantAny } from "./planted.ts";

/** Rows of each expert: none, whole tiles, and tiles of which a part is used. */
const COUNTS = [3, 0, 45, 32, 1];
const EXPERTS = COUNTS.length;

/** Rows that are random, but NaN where they are no expert's. */
function rows(width: number, seed: number) {
  const { expertOfRow } = places(COUNTS);
  const x = operand([expertOfRow.length, width], seed);
  const data = x.values.map((v, i) => (expertOfRow[Math.floor(i / width)]! < 0 ? NaN : v));
  return { shape: x.shape, data };
}

/** sum over the rows of an expert of outer[m] inner[n], in f64. */
function sums(outer: Float32Array, inner: Float32Array, m: number, n: number): Float64Array {
  const found = new Float64Array(EXPERTS * m * n);
  places(COUNTS).expertOfRow.forEach((e, row) => {
    if (e < 0) return;
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) found[(e * m + i) * n + j]! += outer[row * m + i]! * inner[row * n + j]!;
    }
  });
  return found;
}

/** The gradient of experts [out, in], through products with them and, where asked, through their transposes. */
async function gradientOf(gpu: Gpu, out: number, width: number, mistakes?: readonly Mistake[], mistake = 0) {
  const { tiles, ranges } = places(COUNTS);
  const [x, dy, w] = [rows(width, 1), rows(out, 2), operand([EXPERTS * out, width], 3)];
  const { outputs } = await run(gpu, [x, dy, w, tiles, ranges], (graph, x, dy, w, tiles, ranges) => {
    const y = expertLinear(x!, w!, tiles!, { experts: EXPERTS, pairs: 81, ranges: ranges! });
    const [dw] = gradients(graph, [[y, dy!]], [w!]) as [Tensor];
    return mistakes ? plantAny(dw, mistakes) : dw;
  }, { mistake });
  return { found: outputs[0]!, wanted: sums(dy.data, x.data, out, width) };
}

for (const [out, width] of [[8, 12], [40, 20], [7, 5], [4, 132]] as const) {
  gpuTest(`the gradient of experts [${out}, ${width}] is the sum over their own rows`, async (gpu) => {
    const { found, wanted } = await gradientOf(gpu, out, width);
    assertWithin(found, wanted, 2e-5);
  });
}

const mistakesOf = (family: KernelFamily): readonly Mistake[] => [
  ["= u32(range.y)", "= u32(max(range.y - select(0, 1, WRONG), 0))"],
  ["let first_row = u32(range.x)", "let first_row = u32(range.x) + select(0u, 1u, WRONG)"],
  family === "tiled"
    ? ["out_base = expert *", "out_base = select(expert, expert ^ 1u, WRONG) *"]
    : ["(expert * size.m", "(select(expert, expert ^ 1u, WRONG) * size.m"],
];

gpuTest("a gradient of experts with a planted mistake does not pass", async (gpu, family) => {
  const mistakes = mistakesOf(family);
  for (let mistake = 0; mistake <= mistakes.length; mistake++) {
    const { found, wanted } = await gradientOf(gpu, 8, 12, mistakes, mistake);
    const difference = maxDifference(found, wanted);
    assert(mistake === 0 ? difference < 2e-5 : difference > 0.1, `mistake ${mistake}: ${difference}`);
  }
});

/** A mixture whose experts have low-rank updates of rank R: W_e + B_e A_e for the first of their layers. */
const [T, E, CHOSEN, H, I, R] = [11, 3, 2, 8, 4, 4];

function mixed() {
  return {
    x: operand([T, H], 1),
    router: operand([E, H], 2),
    gate: operand([E * I, H], 3),
    down: operand([E * H, I], 4),
    a: operand([E * R, H], 5),
    b: operand([E * I, R], 6),
    dy: operand([T, H], 7),
  };
}

type Numbers = ArrayLike<number>;

/** Each token on its own, in f64. */
function reference(a: Numbers, b: Numbers): Float64Array {
  const { x, router, gate, down } = mixed();
  const product = (w: Numbers, first: number, out: number, v: readonly number[]) =>
    Array.from({ length: out }, (_, o) => v.reduce((s, z, i) => s + z * w[(first + o) * v.length + i]!, 0));
  const y = new Float64Array(T * H);
  for (let t = 0; t < T; t++) {
    const row = Array.from({ length: H }, (_, h) => x.values[t * H + h]!);
    const odds = product(router.values, 0, E, row).map(Math.exp);
    const best = odds.map((_, i) => i).sort((i, j) => odds[j]! - odds[i]!).slice(0, CHOSEN);
    const all = best.reduce((s, i) => s + odds[i]!, 0);
    for (const e of best) {
      const update = product(b, e * I, I, product(a, e * R, R, row));
      const g = product(gate.values, e * I, I, row).map((v, i) => v + update[i]!);
      const inner = g.map((v) => v * v / (1 + Math.exp(-v)));
      product(down.values, e * H, H, inner).forEach((v, h) => y[t * H + h]! += odds[e]! / all * v);
    }
  }
  return y;
}

gpuTest("low-rank updates of experts have the gradients of finite differences", async (gpu) => {
  const { x, router, gate, down, a, b, dy } = mixed();
  const build = (graph: Graph, ...[x, router, gate, down, a, b, dy]: Tensor[]) => {
    const y = graph.layer("mlp", true, () => {
      const weights = expertWeights(linear(x!, router!), CHOSEN, { normalise: true });
      return mixture(x!, weights, CHOSEN, (rows, linear) => {
        const g = add(linear(rows, gate!), linear(linear(rows, a!), b!));
        return linear(gated(g, g, "silu"), down!);
      });
    });
    return [y, ...gradients(graph, [[y, dy!]], [a!, b!]) as Tensor[]];
  };
  const { outputs } = await run(gpu, [x, router, gate, down, a, b, dy], build);
  assertWithin(outputs[0]!, reference(a.values, b.values), 1e-5, "outputs");
  const [da, db] = [
    numericGradient((v) => reference(v, b.values), a.values, dy.values),
    numericGradient((v) => reference(a.values, v), b.values, dy.values),
  ];
  assertWithin(outputs[1]!, da, 3e-5, "gradients of A");
  assertWithin(outputs[2]!, db, 3e-5, "gradients of B");
  const again = await run(gpu, [x, router, gate, down, a, b, dy], build);
  assertEquals(again.outputs, outputs);
});
