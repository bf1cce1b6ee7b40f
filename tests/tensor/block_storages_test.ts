/** Weights in blocks: read by kernels of both families, forward and back to the input, and bytes counted. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { embedding } from "../../src/tensor/ops/embedding.ts";
import { linear, matmul } from "../../src/tensor/ops/matmul.ts";
import { materialise } from "../../src/tensor/ops/materialise.ts";
import { timesWeight } from "../../src/tensor/ops/times_weight.ts";
import { rows } from "../../src/tensor/ops/views.ts";
import { type BlockDtype, byteLength, bytesOf, rowBytes } from "../../src/tensor/weight_storage.ts";
import { windows } from "../../src/tensor/windows.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, randomArray, run, testGpu, type Value } from "./harness.ts";
import { indices } from "./oracle.ts";
import { plant } from "./planted.ts";
import { BLOCK_DTYPES, type QuantisedValue, quantisedValue } from "./quantised.ts";

/** Rows of GGUF's types have to be whole blocks; of the others they end anywhere. */
const WIDTH = { q8_0: 96, q4_0: 96, q4_k: 256, q6_k: 256, nf4: 172, "nf4-double": 172 } as const;

/** y = x W^T + 2 (x A^T) B^T, and what comes back through it. */
function loraLinear(g: Graph, x: Tensor, w: Tensor, a: Tensor, b: Tensor, dy: Tensor): Tensor[] {
  const y = add(linear(x, w), scale(linear(linear(x, a), b), 2));
  return [y, ...gradients(g, [[y, dy]], [x, a, b]) as Tensor[]];
}

function product(
  [m, n, k]: readonly [number, number, number],
  x: (i: number, k: number) => number,
  w: (j: number, k: number) => number,
): Float64Array {
  return Float64Array.from({ length: m * n }, (_, at) => {
    let sum = 0;
    for (let l = 0; l < k; l++) sum += x(Math.floor(at / n), l) * w(at % n, l);
    return sum;
  });
}

/** The oracle of {@linkcode loraLinear}: f64 over the values. */
function expectedLora(
  x: Value,
  w: QuantisedValue,
  a: Value,
  b: Value,
  dy: Value,
): Float64Array[] {
  const [tokens, width] = x.shape as [number, number];
  const [out] = w.shape as [number];
  const [rank] = a.shape as [number];
  const at = (v: ArrayLike<number>, columns: number) => (i: number, j: number) => v[i * columns + j]!;
  const across = (v: ArrayLike<number>, columns: number) => (i: number, j: number) => v[j * columns + i]!;
  const sum = (p: Float64Array, q: Float64Array) => p.map((v, i) => v + 2 * q[i]!);
  const h = product([tokens, rank, width], at(x.data, width), at(a.data, width));
  const dh = product([tokens, rank, out], at(dy.data, out), across(b.data, rank));
  return [
    sum(
      product([tokens, out, width], at(x.data, width), at(w.values, width)),
      product([tokens, out, rank], at(h, rank), at(b.data, rank)),
    ),
    sum(
      product([tokens, width, out], at(dy.data, out), across(w.values, width)),
      product([tokens, width, rank], at(dh, rank), across(a.data, width)),
    ),
    product([rank, width, tokens], across(dh, rank), across(x.data, width)).map((v) => 2 * v),
    product([out, rank, tokens], across(dy.data, out), across(h, rank)).map((v) => 2 * v),
  ];
}

const [OUT, RANK] = [44, 4];

/** Those whose products are computed with the kernels for hardware too: the others differ in the text that all kernels include. */
const TILED: readonly BlockDtype[] = ["q4_0", "nf4-double"];

/** Of magnitudes that are quantised, a product and a sum may be one operation; all else is the same bit for bit. */
const exactness = (dtype: BlockDtype) => dtype === "nf4-double" ? 2e-7 : 0;

for (const dtype of BLOCK_DTYPES) {
  const width = WIDTH[dtype];
  gpuTest(`${dtype}: kernels read the values, forward and back to the input`, async (gpu, family) => {
    const w = quantisedValue(dtype, [OUT, width], 3);
    const a: Value = { shape: [RANK, width], data: randomArray(RANK * width, 5) };
    const b: Value = { shape: [OUT, RANK], data: randomArray(OUT * RANK, 6) };
    const { outputs } = await run(gpu, [w], (_, w) => materialise(w!));
    assertWithin(outputs[0]!, w.values, exactness(dtype), "values");
    if (family === "tiled" && !TILED.includes(dtype)) return;
    // Software devices read few rows in the loader, and many from what was unpacked before.
    for (const tokens of family === "subgroup8" ? [5, 65] : [33]) {
      const x: Value = { shape: [tokens, width], data: randomArray(tokens * width, 1) };
      const dy: Value = { shape: [tokens, OUT], data: randomArray(tokens * OUT, 2) };
      const { outputs } = await run(
        gpu,
        [x, w, a, b, dy],
        (g, x, w, a, b, dy) => loraLinear(g, x!, w!, a!, b!, dy!),
      );
      expectedLora(x, w, a, b, dy).forEach((expected, i) => {
        const largest = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
        assertWithin(
          outputs[i]!,
          expected,
          1e-6 * largest,
          `${["y", "dx", "dA", "dB"][i]} of ${tokens} rows`,
        );
      });
    }
  });
}

gpuTest(
  "values of blocks are read one by one, and rows by index, in parts of a binding",
  async (_, family) => {
    const gpu = await testGpu(family, { maxBindingSize: 1 << 16 });
    for (
      const [dtype, shape] of [["q8_0", [2000, 64]], ["nf4", [2000, 72]]] as const
    ) {
      const w = quantisedValue(dtype, shape, 7);
      const [count, width] = shape;
      const at = [count - 1, 0, 200, 7, 512 % count];
      const x: Value = { shape, data: randomArray(count * width, 1) };
      const { outputs } = await run(gpu, [x, w, indices(at)], (_, x, w, i) => [
        embedding(w!, i!),
        timesWeight(x!, w!),
        ...(dtype === "q8_0" ? [materialise(w!)] : []),
      ]);
      const expected = at.flatMap((r) => [...w.values.subarray(r * width, (r + 1) * width)]);
      assertWithin(outputs[0]!, expected, exactness(dtype), `${dtype} rows`);
      assertWithin(outputs[1]!, x.data.map((v, i) => v * w.values[i]!), 2e-7, `${dtype} products`);
      if (outputs[2]) assertWithin(outputs[2], w.values, exactness(dtype), `${dtype} values`);
    }
  },
);

gpuTest("products with weights in blocks are cut where blocks and bindings begin", async (_, family) => {
  const gpu = await testGpu(family, { maxBindingSize: 1 << 17 });
  // Deep enough for software devices to cut the depth too, with a width that makes the smallest part of the weight a long one.
  const [out, width, tokens] = [4096, 100, 5];
  const w = quantisedValue("nf4", [out, width], 8);
  const x: Value = { shape: [tokens, width], data: randomArray(tokens * width, 1) };
  const dy: Value = { shape: [tokens, out], data: randomArray(tokens * out, 2, 0.1) };
  const { outputs } = await run(gpu, [x, w, dy], (g, x, w, dy) => {
    const y = linear(x!, w!);
    return [y, gradients(g, [[y, dy!]], [x!])[0]!];
  });
  const at = (i: number, k: number) => w.values[i * width + k]!;
  const xs = (i: number, k: number) => x.data[i * width + k]!;
  const dys = (i: number, k: number) => dy.data[i * out + k]!;
  assertWithin(outputs[0]!, product([tokens, out, width], xs, at), 2e-5, "y");
  assertWithin(outputs[1]!, product([tokens, width, out], dys, (k, i) => at(i, k)), 2e-5, "dx");
});

gpuTest("a part of a weight that cannot be cut where depth is cut is summed once", async (gpu) => {
  // 16384 rows are the fewest that are whole blocks and begin where a binding may.
  const [out, width, tokens] = [16_500, 100, 3];
  const w = quantisedValue("nf4-double", [out, width], 9);
  const dy: Value = { shape: [tokens, out], data: randomArray(tokens * out, 2, 0.1) };
  const { outputs } = await run(gpu, [w, dy], (_, w, dy) => matmul("NN", dy!, w!));
  const expected = product(
    [tokens, width, out],
    (i, k) => dy.data[i * out + k]!,
    (k, i) => w.values[i * width + k]!,
  );
  assertWithin(outputs[0]!, expected, 1e-4, "dx");
});

gpuTest("a slip in the reading of blocks is noticed", async (gpu) => {
  const slips = [
    [
      "nf4",
      "vec4<u32>(bytes >> 4u, bytes, bytes >> 12u, bytes >> 8u)",
      "vec4<u32>(bytes, bytes >> 4u, bytes >> 8u, bytes >> 12u)",
    ],
    ["nf4-double", "+ bitcast<f32>(w[group + 1u])", ""],
    ["q4_k", "select(minima & 63u", "select(minima & 31u"],
    ["q8_0", "f32(magnitude) * 0x1p-24", "f32(magnitude) * 0.0"],
  ] as const;
  for (const [dtype, right, wrong] of slips) {
    const w = quantisedValue(dtype, [2, WIDTH[dtype]], 3);
    const { outputs } = await run(gpu, [w], (_, w) => plant(materialise(w!), right, wrong));
    assert(maxDifference(outputs[0]!, w.values) > exactness(dtype), dtype);
  }
});

Deno.test("bytes of blocks that run across rows are counted whole, and rows are not cut within them", () => {
  assertEquals(bytesOf("nf4", 64 * 3 + 1), 4 * 36);
  assertEquals(byteLength({ shape: [33, 100], dtype: "nf4" }), 1872); // 52 blocks
  assertEquals(byteLength({ shape: [33, 100], dtype: "nf4-double" }), 2128); // 2 groups of blocks
  assertEquals(byteLength({ shape: [3, 96], dtype: "q8_0" }), 352); // 5 pairs of blocks, padded from 340
  assertEquals(byteLength({ shape: [3, 96], dtype: "q4_0" }), 192);
  assertEquals(byteLength({ shape: [2, 256], dtype: "q4_k" }), 288);
  assertEquals(byteLength({ shape: [3, 256], dtype: "q6_k" }), 848);
  assertEquals(rowBytes({ shape: [4, 128], dtype: "nf4" }), 72);
  assertThrows(
    () => rowBytes({ shape: [33, 100], dtype: "nf4" }),
    ShapeError,
    "100 values of nf4 are no whole number of its blocks of 64",
  );
  const w = new Program().block("test").weight("w", [4096, 100], "nf4");
  // 16 rows are 25 blocks of 36 bytes; parts begin at multiples of 256 bytes.
  const parts = windows(w, { ...DEFAULT_DEVICE, maxBindingSize: 100_000 });
  assertEquals(
    parts.map((
      { first, count, binding },
    ) => [first, count, "byteOffset" in binding ? binding.byteOffset : 0]),
    [[0, 1024, 0], [1024, 1024, 57_600], [2048, 1024, 115_200], [3072, 1024, 172_800]],
  );
  assertThrows(() => rows(w, 16, 16), ShapeError);
});
