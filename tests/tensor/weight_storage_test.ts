// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { float32ToHalf, halfToNumber } from "../../src/formats/dtype.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { embedding } from "../../src/tensor/ops/embedding.ts";
import { expertLinear } from "../../src/tensor/ops/expert_linear.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { timesWeight } from "../../src/tensor/ops/times_weight.ts";
import { rows } from "../../src/tensor/ops/views.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import {
  byteLength,
  bytesOf,
  type DType,
  STORAGES,
  type ValueStorage,
} from "../../src/tensor/weight_storage.ts";
import { assertWithin, gpuTest, randomArray, run, testGpu, type Value } from "./harness.ts";
import { indices } from "./oracle.ts";

/** Blocks of 32 integers of 8 bits behind a scale of 16, as GGUF's Q8_0 has them: what a storage must bring along, and nothing else. */
const BLOCKS: ValueStorage = {
  blockValues: 32,
  blockBytes: 34,
  computed: false,
  wgsl: `// Values of blocks.
//#if VALUES == 4
alias Weight = vec4<f32>;
//#else
alias Weight = f32;
//#end
@group(0) @binding(1) var<storage, read> w: array<u32>;

fn byte_at(i: u32) -> u32 {
  return (w[i / 4u] >> (8u * (i % 4u))) & 0xffu;
}

fn value_at(i: u32) -> f32 {
  let block = i / 32u * 34u;
  let scale = unpack2x16float(byte_at(block) | (byte_at(block + 1u) << 8u)).x;
  return scale * f32(bitcast<i32>(byte_at(block + 2u + i % 32u) << 24u) >> 24u);
}

fn weight(i: u32) -> Weight {
//#if VALUES == 4
  return vec4<f32>(value_at(4u * i), value_at(4u * i + 1u), value_at(4u * i + 2u), value_at(4u * i + 3u));
//#else
  return value_at(i);
//#end
}
`,
};
const NAME = "blocks" as DType;
(STORAGES as Record<string, ValueStorage>)[NAME] = BLOCKS;

/** Random blocks, and the numbers they hold. */
function blocks(shape: readonly number[], seed: number): Value & { readonly values: Float64Array } {
  const count = shape.reduce((a, b) => a * b, 1);
  const bytes = new DataView(new ArrayBuffer(Math.ceil(count / 32 * 34 / 16) * 16));
  const values = new Float64Array(count);
  const random = randomArray(count, seed);
  for (let block = 0; block < count / 32; block++) {
    const [scale] = float32ToHalf(Float32Array.of(random[block * 32]! / 100));
    bytes.setUint16(block * 34, scale!, true);
    for (let i = block * 32; i < block * 32 + 32; i++) {
      const integer = Math.trunc(random[i]! * 127);
      bytes.setInt8(block * 34 + 2 + i % 32, integer);
      values[i] = halfToNumber(scale!) * integer;
    }
  }
  return { shape, dtype: NAME, kind: "weight", data: new Uint32Array(bytes.buffer), values };
}

const [T, N, H] = [5, 500, 64];
const x: Value = { shape: [T, H], data: randomArray(T * H, 1) };
const dy: Value = { shape: [T, N], data: randomArray(T * N, 2) };
gpuTest(
  "a storage of blocks needs no more than its row of the table and the text that reads it",
  async (_, family) => {
    // A row has 68 bytes: whole, and in parts of at most 192 rows.
    for (const maxBindingSize of [1 << 27, 1 << 14]) {
      const gpu = await testGpu(family, { maxBindingSize });
      const [w, row, table] = [blocks([N, H], 3), blocks([H], 4), blocks([T, H], 5)];
      const { outputs } = await run(
        gpu,
        [x, dy, w, row, table, indices([499, 0, 200, 7])],
        (g, x, dy, w, row, table, i) => [
          linear(x!, w!),
          gradients(g, [[linear(x!, w!), dy!]], [x!])[0]!,
          embedding(w!, i!),
          rmsNorm(x!, row!, 1e-5),
          addRow(x!, row!),
          timesWeight(x!, table!),
        ],
      );
      const sum = (count: number, f: (k: number) => number) => {
        let sum = 0;
        for (let k = 0; k < count; k++) sum += f(k);
        return sum;
      };
      const at = (t: number, h: number) => x.data[t * H + h]!;
      const norm = (t: number) => Math.sqrt(sum(H, (h) => at(t, h) ** 2) / H + 1e-5);
      const expected = [
        Array.from(dy.data, (_, i) => sum(H, (h) => at(Math.floor(i / N), h) * w.values[i % N * H + h]!)),
        Array.from(
          x.data,
          (_, i) => sum(N, (n) => dy.data[Math.floor(i / H) * N + n]! * w.values[n * H + i % H]!),
        ),
        [499, 0, 200, 7].flatMap((r) => [...w.values.subarray(r * H, (r + 1) * H)]),
        Array.from(x.data, (v, i) => row.values[i % H]! * v / norm(Math.floor(i / H))),
        Array.from(x.data, (v, i) => v + row.values[i % H]!),
        Array.from(x.data, (v, i) => v * table.values[i]!),
      ];
      expected.forEach((values, i) =>
        assertWithin(outputs[i]!, values, 1e-4, `result ${i} at ${maxBindingSize}`)
      );
    }
  },
);

gpuTest("experts may be stored in blocks, forward and backward", async (gpu) => {
  const [width, out] = [H, 8];
  const w = blocks([3 * out, width], 6);
  const [x, dy] = [width, out].map((n, i): Value => ({ shape: [32, n], data: randomArray(32 * n, 7 + i) }));
  const tiles: Value = { shape: [1, 2], dtype: "i32", data: Int32Array.of(2, T) };
  const { outputs } = await run(gpu, [x!, dy!, w, tiles], (g, x, dy, w, tiles) => {
    const y = expertLinear(x!, w!, tiles!, { experts: 3, pairs: T });
    return [y, gradients(g, [[y, dy!]], [x!])[0]!];
  });
  const at = (o: number, h: number) => w.values[(2 * out + o) * width + h]!;
  for (let t = 0; t < T; t++) {
    const row = (a: ArrayLike<number>, n: number) => Array.from(a).slice(t * n, (t + 1) * n);
    const y = Array.from(
      { length: out },
      (_, o) => row(x!.data, width).reduce((s, v, h) => s + v * at(o, h), 0),
    );
    assertWithin(row(outputs[0]!, out), y, 1e-4, `row ${t}`);
    const dx = Array.from(
      { length: width },
      (_, h) => row(dy!.data, out).reduce((s, v, o) => s + v * at(o, h), 0),
    );
    assertWithin(row(outputs[1]!, width), dx, 1e-4, `gradient of row ${t}`);
  }
});

Deno.test("bytes of a storage of blocks are counted in blocks, and rows are whole ones", () => {
  assertEquals(bytesOf(NAME, 64), 68);
  assertEquals(byteLength({ shape: [3, 64], dtype: NAME }), 208);
  assertEquals(byteLength({ shape: [3, 5], dtype: "bf16" }), 32);
  assertThrows(
    () => byteLength({ shape: [64, 3], dtype: NAME }),
    ShapeError,
    "3 values of blocks are no whole number of its blocks of 32",
  );
  const program = new Program();
  const g = program.block("test");
  const w = g.weight("w", [N, H], NAME);
  g.output("y", linear(g.input("x", [T, H], "f32"), w));
  assertEquals(plan(program, DEFAULT_DEVICE).bytesByCategory.get("weights"), byteLength(w));
  assertEquals(byteLength(w), N * 68);
  // 64 rows of 68 bytes.
  assertEquals(rows(w, 64, 3).producer!.attributes, { first: 64, count: 3, byteOffset: 4352 });
  assertThrows(
    () => rows(w, 32, 3),
    ShapeError,
    "row 32 begins at byte 2176, which is not a multiple of 256",
  );
});

Deno.test("what kernels cannot write is no state, and integers are no weights", () => {
  const g = new Program().block("test");
  assertThrows(
    () => g.state("s", [4], "f16"),
    ShapeError,
    'kernels cannot write f16[4] "s"; f16 is for frozen weights',
  );
  assertThrows(
    () => linear(g.input("x", [4, 4], "f32"), g.input("w", [4, 4], "i32")),
    ShapeError,
    "the second operand must be a weight",
  );
});
