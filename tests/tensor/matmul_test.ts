// @ts-types="../../types/std_assert.d.ts"
import { assert, assertThrows } from "@std/assert";
import { assertWithin, gpuTest, randomArray, relativeError, run, testGpu, type Value } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import type { FloatDtype } from "../../src/formats/dtype.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { type Tensor } from "../../src/tensor/graph.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { add, combine, scale } from "../../src/tensor/ops/combine.ts";
import { linear, matmul, matmulInto, type Orientation } from "../../src/tensor/ops/matmul.ts";
import { rows } from "../../src/tensor/ops/views.ts";
import { empty } from "../../src/tensor/ops/fill.ts";
import { Program } from "../../src/tensor/plan.ts";
import { ShapeError } from "../../src/base/errors.ts";

const ORIENTATIONS = ["NT", "NN", "TN"] as const;

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

function shapes(orientation: Orientation, { m, n, k }: Sizes): { x: number[]; w: number[] } {
  return { x: orientation === "TN" ? [k, m] : [m, k], w: orientation === "NT" ? [n, k] : [k, n] };
}

function product(
  orientation: Orientation,
  { m, n, k }: Sizes,
  x: ArrayLike<number>,
  w: ArrayLike<number>,
): Float64Array {
  const [xm, xk] = orientation === "TN" ? [1, m] : [k, 1];
  const [wn, wk] = orientation === "NT" ? [k, 1] : [1, n];
  const y = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += x[i * xm + l * xk]! * w[j * wn + l * wk]!;
      y[i * n + j] = sum;
    }
  }
  return y;
}

/** Rounding of a sum of k products of numbers below 1, added in any order. */
const tolerance = (k: number) => 1e-7 * (3 + k);

function operands(orientation: Orientation, sizes: Sizes, dtype: FloatDtype = "f32") {
  const { x, w } = shapes(orientation, sizes);
  return [operand(x, sizes.m), operand(w, sizes.n + 1, dtype, dtype === "f32" ? "input" : "weight")] as const;
}

// One less and one more than the tiles of 8, 16 and 32 rows and of 8 and 32 columns, and depths of every remainder.
const SIZES: Sizes[] = [
  { m: 1, n: 1, k: 1 },
  { m: 1, n: 32, k: 4 },
  { m: 7, n: 8, k: 8 },
  { m: 8, n: 33, k: 36 },
  { m: 9, n: 31, k: 16 },
  { m: 16, n: 16, k: 7 },
  { m: 17, n: 20, k: 17 },
  { m: 31, n: 36, k: 100 },
  { m: 32, n: 32, k: 32 },
  { m: 33, n: 17, k: 64 },
  { m: 36, n: 68, k: 2 },
  { m: 64, n: 8, k: 288 },
  { m: 65, n: 64, k: 3 },
];

/** Of weights in 16 bits, what reads them one by one and by fours; the rest of a kernel knows nothing of how they are stored. */
const SIXTEEN_BITS = SIZES.filter(({ m }) => [8, 17, 31].includes(m));

gpuTest("matmul() matches f64 in every orientation, weight type and odd size", async (gpu, family) => {
  // Software devices make odd sizes by the tiles of the others, which are tested with those.
  const own = ({ m, n, k }: Sizes) =>
    m === 17 || k % 4 === 0 && (n % 4 === 0 || n < 32) && (m % 4 === 0 || m < 32);
  for (const orientation of ORIENTATIONS) {
    // Weights in 16 bits are only ever multiplied, never made: no product of this orientation has one.
    for (const dtype of orientation === "TN" ? ["f32"] as const : ["f32", "f16", "bf16"] as const) {
      for (const sizes of dtype === "f32" ? SIZES : SIXTEEN_BITS) {
        if (family === "subgroup8" && !own(sizes)) continue;
        const [x, w] = operands(orientation, sizes, dtype);
        const { outputs } = await run(gpu, [x, w], (_, x, w) => matmul(orientation, x!, w!, 0.5));
        const expected = product(orientation, sizes, x.values, w.values).map((v) => 0.5 * v);
        assertWithin(
          outputs[0]!,
          expected,
          tolerance(sizes.k),
          `${orientation} ${dtype} ${JSON.stringify(sizes)}`,
        );
      }
    }
  }
});

gpuTest("matmul() cuts a deep product into parts", async (gpu) => {
  // Software devices split NN beyond a depth of 4096; 4100 leaves a short last part.
  for (const k of [4100, 6144]) {
    const sizes = { m: 9, n: 36, k };
    const [x, w] = operands("NN", sizes);
    const { outputs } = await run(gpu, [x, w], (_, x, w) => matmul("NN", x!, w!, -2));
    assertWithin(
      outputs[0]!,
      product("NN", sizes, x.values, w.values).map((v) => -2 * v),
      2 * tolerance(k),
      `${k}`,
    );
  }
});

/** x and w as the head's backward pass has them: a softmax less one of its entries, so that much cancels, and embeddings off zero. */
function headGradients(orientation: Orientation, sizes: Sizes): [Value, Value, Float64Array] {
  const { m, k } = sizes;
  const { x, w } = shapes(orientation, sizes);
  const data = randomArray(m * k, 1).map((v) => Math.exp(2 * v));
  const [row, column] = orientation === "TN" ? [1, m] : [k, 1];
  for (let i = 0; i < m; i++) {
    let sum = 0;
    for (let l = 0; l < k; l++) sum += data[i * row + l * column]!;
    for (let l = 0; l < k; l++) data[i * row + l * column]! /= sum;
    data[i * row + (i * 7919 + 13) % k * column]! -= 1;
  }
  const embeddings = randomArray(sizes.n * k, 2).map((v) => 0.5 + 0.1 * v);
  return [{ shape: x, data }, { shape: w, data: embeddings }, product(orientation, sizes, data, embeddings)];
}

gpuTest("matmul() keeps its precision over the depths of vocabularies", async (gpu) => {
  for (const k of [32_000, 151_936]) {
    // The deepest is the way back through a head.
    for (const orientation of k > 32_000 ? ["NN"] as const : ORIENTATIONS) {
      const [x, w, expected] = headGradients(orientation, { m: 8, n: 36, k });
      const { outputs } = await run(gpu, [x, w], (_, x, w) => [
        matmul(orientation, x!, w!),
        // Two products: not in one kernel where both are deep.
        ...k > 32_000 ? [] : [add(matmul(orientation, x!, w!), matmul(orientation, scale(x!, 3), w!))],
      ]);
      for (const [i, output] of outputs.entries()) {
        const times = [1, 4][i]!;
        const error = relativeError(output, expected.map((v) => times * v));
        // One sum over all of 32,000 is off by 1.6e-5.
        assert(error < 1e-5, `${orientation} over ${k}: ${times} products are off by ${error}`);
      }
    }
  }
});

gpuTest("matmul() splits an operand larger than a binding", async (_, family) => {
  const gpu = await testGpu(family, { maxBindingSize: 1 << 15 });
  for (const orientation of ORIENTATIONS) {
    for (
      const [dtype, sizes] of [
        ["f32", { m: 12, n: orientation === "NT" ? 500 : 64, k: orientation === "NT" ? 64 : 500 }],
        ["f32", { m: 12, n: orientation === "NT" ? 500 : 60, k: orientation === "NT" ? 60 : 500 }],
        ["f32", { m: 5, n: orientation === "NT" ? 333 : 65, k: orientation === "NT" ? 65 : 333 }],
        ["bf16", { m: 5, n: orientation === "NT" ? 333 : 68, k: orientation === "NT" ? 68 : 333 }],
      ] as const
    ) {
      const [x, w] = operands(orientation, sizes, dtype);
      const r = operand([sizes.m, sizes.n], 3);
      const { outputs } = await run(
        gpu,
        [x, w, r],
        (_, x, w, r) => add(matmul(orientation, x!, w!, 0.5), r!),
      );
      const expected = product(orientation, sizes, x.values, w.values).map((v, i) => 0.5 * v + r.values[i]!);
      assertWithin(
        outputs[0]!,
        expected,
        tolerance(sizes.k),
        `${orientation} ${dtype} ${JSON.stringify(sizes)}`,
      );
    }
  }
});

gpuTest("two products and an addend are one sum, also where the weight is split", async (_, family) => {
  for (const maxBindingSize of [1 << 27, 1 << 15]) {
    const gpu = await testGpu(family, { maxBindingSize });
    for (const orientation of ORIENTATIONS) {
      for (
        const sizes of [
          { m: 10, n: 12, k: 8 },
          { m: 12, n: orientation === "NT" ? 300 : 40, k: orientation === "NT" ? 40 : 300 },
        ]
      ) {
        const short = { ...sizes, k: 8 };
        const [x, w] = operands(orientation, sizes);
        const [x2, w2] = operands(orientation, short);
        const r = operand([sizes.m, sizes.n], 3);
        const { outputs } = await run(
          gpu,
          [x, w, x2, w2, r],
          (_, x, w, x2, w2, r) =>
            add(add(matmul(orientation, x!, w!), matmul(orientation, scale(x2!, 3), w2!)), r!),
        );
        const second = product(orientation, short, x2.values, w2.values);
        const expected = product(orientation, sizes, x.values, w.values)
          .map((v, i) => v + 3 * second[i]! + r.values[i]!);
        assertWithin(
          outputs[0]!,
          expected,
          3 * tolerance(sizes.k),
          `${orientation} ${JSON.stringify(sizes)}`,
        );
      }
    }
  }
});

gpuTest("a product accumulates into a state, alone and in parts", async (_, family) => {
  for (const maxBindingSize of [1 << 27, 1 << 15]) {
    const gpu = await testGpu(family, { maxBindingSize });
    const sizes = { m: 8, n: 40, k: 300 };
    const [x, w] = operands("TN", sizes);
    for (const [keep, old] of [[0, NaN], [1, 5], [0.5, 4]] as const) {
      const state = { shape: [8, 40], kind: "state", data: new Float32Array(320).fill(old) } as const;
      const { inputs } = await run(
        gpu,
        [x, w, state],
        (g, x, w, s) => accumulate(s!, matmul("TN", x!, w!), g.scalar("keep")),
        { keep },
      );
      const expected = product("TN", sizes, x.values, w.values).map((v) => v + (keep ? keep * old : 0));
      assertWithin(inputs[2]!, expected, tolerance(sizes.k), `keep ${keep}`);
    }
  }
});

gpuTest("matmulInto() fills the chunks of a larger tensor, also where each is split", async (gpu) => {
  const sizes = { m: 16, n: 32, k: 4100 };
  const [x, w] = operands("NN", { ...sizes, m: 32 });
  const { outputs } = await run(gpu, [x, w], (g, x, w) => {
    const whole = empty(g, [32, 32]);
    for (const first of [16, 0]) matmulInto(rows(whole, first, 16), "NN", rows(x!, first, 16), w!);
    return whole;
  });
  assertWithin(outputs[0]!, product("NN", { ...sizes, m: 32 }, x.values, w.values), tolerance(sizes.k));
});

gpuTest("gradients of matmul() match central differences", async (gpu) => {
  const sizes = { m: 5, n: 12, k: 8 };
  for (const orientation of ORIENTATIONS) {
    const [x, w] = operands(orientation, sizes);
    const dy = operand([sizes.m, sizes.n], 3);
    const { outputs } = await run(
      gpu,
      [x, w, dy],
      (g, x, w, dy) => gradients(g, [[matmul(orientation, x!, w!, 3), dy!]], [x!, w!]).map((t) => t!),
    );
    const f = (a: ArrayLike<number>, b: ArrayLike<number>) =>
      product(orientation, sizes, a, b).map((v) => 3 * v);
    const dx = numericGradient((v) => f(v, w.values), x.values, dy.values);
    const dw = numericGradient((v) => f(x.values, v), w.values, dy.values);
    assertWithin(outputs[0]!, dx, 3e-6, `${orientation}: dx`);
    assertWithin(outputs[1]!, dw, 3e-6, `${orientation}: dw`);
  }
});

gpuTest("gradients of a LoRA layer match central differences", async (gpu) => {
  const [T, H, N, R] = [9, 12, 20, 4];
  const [x, w, a, b, dy] = [[T, H], [N, H], [R, H], [N, R], [T, N]].map((s, i) => operand(s, i + 1));
  const layer = (x: Tensor, w: Tensor, a: Tensor, b: Tensor) =>
    combine([linear(x, w), linear(linear(x, a), b)], [1, 2]);
  const { outputs } = await run(
    gpu,
    [x!, w!, a!, b!, dy!],
    (g, x, w, a, b, dy) => gradients(g, [[layer(x!, w!, a!, b!), dy!]], [x!, a!, b!]).map((t) => t!),
  );
  const f = (xv: ArrayLike<number>, av: ArrayLike<number>, bv: ArrayLike<number>) => {
    const base = product("NT", { m: T, n: N, k: H }, xv, w!.values);
    const low = product("NT", { m: T, n: N, k: R }, product("NT", { m: T, n: R, k: H }, xv, av), bv);
    return base.map((v, i) => v + 2 * low[i]!);
  };
  const [xv, av, bv] = [x!.values, a!.values, b!.values];
  assertWithin(outputs[0]!, numericGradient((v) => f(v, av, bv), xv, dy!.values), 2e-5, "dx");
  assertWithin(outputs[1]!, numericGradient((v) => f(xv, v, bv), av, dy!.values), 2e-5, "dA");
  assertWithin(outputs[2]!, numericGradient((v) => f(xv, av, v), bv, dy!.values), 2e-5, "dB");
});

gpuTest("matmul() folds a grid that is too long for one dimension", async (_, family) => {
  const gpu = await testGpu(family, { maxWorkgroupsPerDimension: 5 });
  const sizes = { m: 70, n: 200, k: 8 };
  const [x, w] = operands("NT", sizes);
  const { outputs } = await run(gpu, [x, w], (_, x, w) => matmul("NT", x!, w!));
  assertWithin(outputs[0]!, product("NT", sizes, x.values, w.values), tolerance(8));
});

Deno.test("matmul() refuses operands whose inner sizes differ", () => {
  const program = new Program();
  const g = program.block("test");
  assertThrows(
    () => linear(g.input("x", [4, 8], "f32"), g.weight("w", [3, 9], "f32")),
    ShapeError,
    'matmul(f32[4, 8] "x", f32[3, 9] "w"): NT: inner sizes 8 and 9 differ',
  );
});
