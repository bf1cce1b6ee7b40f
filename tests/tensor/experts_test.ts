// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import type { FloatDtype } from "../../src/formats/dtype.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { expertWeights, mixture } from "../../src/tensor/ops/experts.ts";
import { gated } from "../../src/tensor/ops/activation.ts";
import { detach } from "../../src/tensor/ops/detach.ts";
import { expertLinear } from "../../src/tensor/ops/expert_linear.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { expertVariants } from "../../src/tensor/ops/matmul/experts.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";

interface Sizes {
  readonly tokens: number;
  readonly experts: number;
  readonly chosen: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly normalise: boolean;
  readonly dtype?: FloatDtype;
}

type Numbers = ArrayLike<number>;

function times(w: Numbers, first: number, out: number, x: readonly number[]): number[] {
  return Array.from(
    { length: out },
    (_, o) => x.reduce((s, v, i) => s + v * w[first + o * x.length + i]!, 0),
  );
}

/** As transformers has it: softmax over all, the largest of it, divided by their sum or not, and each expert on its own. */
function reference(
  s: Sizes,
  x: Numbers,
  router: Numbers,
  [gate, up, down]: readonly [Numbers, Numbers, Numbers],
): Float64Array {
  const [H, I] = [s.hidden, s.intermediate];
  const y = new Float64Array(s.tokens * H);
  for (let t = 0; t < s.tokens; t++) {
    const row = Array.from({ length: H }, (_, h) => x[t * H + h]!);
    const e = times(router, 0, s.experts, row).map(Math.exp);
    const all = e.reduce((a, b) => a + b, 0);
    const p = e.map((v) => v / all);
    const best = p.map((_, i) => i).sort((a, b) => p[b]! - p[a]! || a - b).slice(0, s.chosen);
    const sum = s.normalise ? best.reduce((a, i) => a + p[i]!, 0) : 1;
    for (const i of best) {
      const [g, u] = [times(gate, i * I * H, I, row), times(up, i * I * H, I, row)];
      const inner = g.map((v, k) => v / (1 + Math.exp(-v)) * u[k]!);
      times(down, i * H * I, H, inner).forEach((v, h) => y[t * H + h]! += p[i]! / sum * v);
    }
  }
  return y;
}

function operands(s: Sizes) {
  const [E, H, I] = [s.experts, s.hidden, s.intermediate];
  const kind = s.dtype === undefined ? "input" : "weight";
  const x = operand([s.tokens, H], 1);
  const router = operand([E, H], 2);
  const weights = [[E * I, H], [E * I, H], [E * H, I]].map((shape, i) =>
    operand(shape, 3 + i, s.dtype, kind)
  );
  return { x, router, weights, dy: operand([s.tokens, H], 6) };
}

/** @param recompute Whether the backward pass computes the layer again, slots and all */
async function onGpu(gpu: Gpu, s: Sizes, change: (y: Tensor) => void = () => {}, recompute = false) {
  const { x, router, weights, dy } = operands(s);
  const { outputs } = await run(gpu, [x, router, ...weights, dy], (graph, x, router, gate, up, down, dy) => {
    const y = graph.layer("mlp", recompute, () => {
      const w = expertWeights(linear(x!, router!), s.chosen, s);
      return mixture(x!, w, s.chosen, (rows, linear) => {
        return linear(gated(linear(rows, gate!), linear(rows, up!), "silu"), down!);
      });
    });
    const [dx] = gradients(graph, [[y, dy!]], [x!]);
    change(y);
    return [y, dx!];
  });
  return { y: outputs[0]!, dx: outputs[1]! };
}

function expected(s: Sizes) {
  const { x, router, weights, dy } = operands(s);
  const values = weights.map((w) => w.values) as [Float32Array, Float32Array, Float32Array];
  return {
    y: reference(s, x.values, router.values, values),
    // A token at a time: it depends on no other. Its experts are the same on both sides of a difference: no two logits lie so near.
    dx: () =>
      Array.from({ length: s.tokens }, (_, t) => {
        const [row, dRow] = [x, dy].map((a) => a.values.slice(t * s.hidden, (t + 1) * s.hidden));
        return [
          ...numericGradient((v) => reference({ ...s, tokens: 1 }, v, router.values, values), row!, dRow!),
        ];
      }).flat(),
  };
}

const usual: Sizes = { tokens: 37, experts: 5, chosen: 2, hidden: 12, intermediate: 8, normalise: true };

const CASES: readonly [string, Sizes][] = [
  ["weights that sum to 1", usual],
  ["weights as the softmax has them", { ...usual, normalise: false }],
  ["every expert", { ...usual, chosen: 5, tokens: 9 }],
  ["one token", { ...usual, tokens: 1 }],
  ["more experts than rows for them", { ...usual, experts: 40, tokens: 3, chosen: 3 }],
  ["several tiles of an expert", { ...usual, experts: 3, tokens: 120, hidden: 20, intermediate: 24 }],
  ["odd widths", { ...usual, hidden: 10, intermediate: 7 }],
  ["bf16", { ...usual, tokens: 1, dtype: "bf16" }],
];

for (const [name, s] of CASES) {
  gpuTest(`mixture() and its gradient match f64 for ${name}`, async (gpu) => {
    const [actual, wanted] = [await onGpu(gpu, s), expected(s)];
    assertWithin(actual.y, wanted.y, 1e-5, "outputs");
    assertWithin(actual.dx, wanted.dx(), 3e-5, "gradients");
  });
}

gpuTest("mixture() takes experts that no binding holds at once, and a folded grid", async (_, family) => {
  const s = { ...usual, tokens: 1, experts: 23, chosen: 4, hidden: 64, intermediate: 16 };
  // Ten experts of 4096 bytes at a time.
  const gpu = await testGpu(family, { maxBindingSize: 40 * 1024, maxWorkgroupsPerDimension: 13 });
  const [actual, wanted] = [await onGpu(gpu, s), expected(s)];
  assertWithin(actual.y, wanted.y, 2e-5, "outputs");
  assertWithin(actual.dx, wanted.dx(), 3e-5, "gradients");
});

gpuTest("expertLinear() sums deep products in parts, forward and backward", async (gpu) => {
  const depth = 2052;
  const [x, wide] = [operand([64, depth], 1), operand([2 * 8, depth], 2)];
  const [z, tall, dy] = [operand([64, 8], 3), operand([2 * depth, 8], 4), operand([64, depth], 5)];
  const tiles = { shape: [2, 2], dtype: "i32", data: Int32Array.of(1, 3, 0, 32) } as const;
  const { outputs } = await run(gpu, [x, wide, z, tall, dy, tiles], (graph, x, wide, z, tall, dy, tiles) => {
    const sizes = { experts: 2, pairs: 35 };
    const y = expertLinear(z!, tall!, tiles!, sizes);
    return [expertLinear(x!, wide!, tiles!, sizes), gradients(graph, [[y, dy!]], [z!])[0]!];
  });
  for (const [rows, expert] of [[[0, 1, 2], 1], [[32, 47, 63], 0]] as const) {
    for (const r of rows) {
      const row = [...x.values.slice(r * depth, (r + 1) * depth)];
      const what = `row ${r}`;
      assertWithin(
        outputs[0]!.slice(8 * r, 8 * r + 8),
        times(wide.values, expert * 8 * depth, 8, row),
        1e-4,
        what,
      );
      const dz = Array.from({ length: 8 }, (_, c) => {
        let sum = 0;
        for (let o = 0; o < depth; o++) {
          sum += dy.values[r * depth + o]! * tall.values[(expert * depth + o) * 8 + c]!;
        }
        return sum;
      });
      assertWithin(outputs[1]!.slice(8 * r, 8 * r + 8), dz, 1e-4, `gradient of ${what}`);
    }
  }
});

const MISTAKES: readonly (readonly [op: string, right: string, wrong: string])[] = [
  ["expertLinear", "stored_weight(i + expert_begin", "stored_weight(i + 0u * expert_begin"],
  ["expertSlots", "var slot = tile * 32u", "var slot = (tile + expert) * 32u"],
  ["expertSlots", "rank < size.chosen", "rank < size.chosen - 1u"],
  ["gatherSum", "sum += x[", "sum = x["],
];

gpuTest("experts, slots or sums with a planted mistake do not pass", async (gpu) => {
  const wanted = expected(usual);
  for (const [op, right, wrong] of MISTAKES) {
    const actual = await onGpu(gpu, usual, (y) => {
      for (const node of y.graph.nodes) if (node.op.name === op) plant(node.outputs[0]!, right, wrong);
    });
    const difference = maxDifference(actual.y, wanted.y);
    assert(difference > 0.01, `${op}: ${right} -> ${wrong}: ${difference}`);
  }
});

gpuTest("mixture() lets through to a token what its experts and its router make of it", async (gpu) => {
  const wanted = expected(usual).dx();
  const { x, router, weights, dy } = operands(usual);
  // Without the way through the router.
  const { outputs } = await run(gpu, [x, router, ...weights, dy], (graph, x, router, gate, up, down, dy) => {
    const w = detach(expertWeights(linear(x!, router!), usual.chosen, usual));
    const y = mixture(
      x!,
      w,
      usual.chosen,
      (rows, linear) => linear(gated(linear(rows, gate!), linear(rows, up!), "silu"), down!),
    );
    return gradients(graph, [[y, dy!]], [x!])[0]!;
  });
  assert(maxDifference(outputs[0]!, wanted) > 0.01);
});

gpuTest("mixture() gives the same bits twice, and when its layer is computed again", async (gpu) => {
  const once = await onGpu(gpu, usual);
  assertEquals(await onGpu(gpu, usual), once);
  assertEquals(await onGpu(gpu, usual, undefined, true), once);
});

Deno.test("a mixture of the wrong shape, or experts trained without their ranges, are refused", () => {
  const g = new Program().block("test");
  const [x, weights] = [g.input("x", [4, 8], "f32"), g.input("weights", [4, 3], "f32")];
  const packed = g.weight("experts", [3 * 8, 8], "bf16");
  const through = (weight: Tensor) => mixture(x, weights, 2, (rows, linear) => linear(rows, weight));
  assertEquals(through(packed).shape, [4, 8]);
  assertThrows(() => through(g.weight("odd", [25, 8], "f32")), ShapeError, "a weight [3 * out, in]");
  assertThrows(() => through(g.weight("narrow", [24, 7], "f32")), ShapeError, "inner sizes 8 and 7 differ");
  assertThrows(() => mixture(x, weights, 4, (rows) => rows), ShapeError, "cannot choose 4 of 3");
  assertThrows(() => expertWeights(weights, 4, { normalise: true }), ShapeError, "cannot choose 4 of 3");
  const few = g.input("few", [3, 3], "f32");
  assertThrows(() => mixture(x, few, 2, (rows) => rows), ShapeError, "a row of weights for each token");
  const trained = g.state("trained", [3 * 8, 8], "f32");
  const y = through(trained);
  assertEquals(gradients(g, [[y, y]], [trained])[0]!.shape, trained.shape);
  const [rows, tiles] = [g.input("rows", [32, 8], "f32"), g.input("tiles", [1, 2], "i32")];
  const alone = expertLinear(rows, trained, tiles, { experts: 3, pairs: 4 });
  assertThrows(() => gradients(g, [[alone, alone]], [trained]), ShapeError, "where ranges are given");
  const ranges = g.input("ranges", [2, 2], "i32");
  const withRanges = () => expertLinear(rows, trained, tiles, { experts: 3, pairs: 4, ranges });
  assertThrows(withRanges, ShapeError, "ranges must be i32 [3, 2]");
});

for (
  const [family, wanted] of [["tiled", "tiled 32x64 by 16, 4x4 each, one panel"], [
    "subgroup8",
    "subgroup8 32x8",
  ]] as const
) {
  Deno.test({
    name: `expertLinear() matches f64 in a kernel that it would not take by itself [${family}]`,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn(t) {
      const gpu = await testGpu(family);
      if (family === "subgroup8" && gpu.description.subgroupSize !== 8) {
        console.log(`skip: ${t.name}: this device's subgroups do not have 8 lanes`);
        return;
      }
      const [n, k, pairs] = [68, 36, 39];
      const shape = { orientation: "NT", experts: 2, pairs, n, k, weight: "f32" } as const;
      const names = expertVariants.candidates(shape, gpu.description).map(expertVariants.name);
      assert(names.indexOf(wanted) > 0, names.join("; "));
      const [x, w] = [operand([96, k], 1), operand([2 * n, k], 2)];
      // A whole tile, a tile that is not full, and one of no expert.
      const tiles = { shape: [3, 2], dtype: "i32" as const, data: Int32Array.of(1, 32, 0, 7, -1, 0) };
      const { outputs } = await run(
        gpu,
        [x, w, tiles],
        (_, x, w, tiles) => expertLinear(x!, w!, tiles!, { experts: 2, pairs }),
        {},
        { ...gpu.description, kernels: { [`experts ${expertVariants.shapeClass(shape)}`]: wanted } },
      );
      for (const [expert, first, count] of [[1, 0, 32], [0, 32, 7]] as const) {
        const expected = Float64Array.from({ length: count * n }, (_, i) => {
          const [row, column] = [first + Math.floor(i / n), expert * n + i % n];
          let sum = 0;
          for (let l = 0; l < k; l++) sum += x.values[row * k + l]! * w.values[column * k + l]!;
          return sum;
        });
        assertWithin(outputs[0]!.subarray(first * n, (first + count) * n), expected, 1e-5);
      }
    },
  });
}
