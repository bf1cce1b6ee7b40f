/** Rows in 16 and 8 bits come back as the values that were stored, bit for bit. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { bfloatToFloat32, float32ToBfloat } from "../../src/formats/dtype.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { packedWords, unpackRows } from "../../src/tensor/ops/unpack_rows.ts";
import { Program } from "../../src/tensor/plan.ts";
import { gpuTest, randomArray, run, testGpu } from "./harness.ts";
import { plant } from "./planted.ts";

gpuTest("unpackRows() gives the values that were packed, at odd sizes", async (_, family) => {
  for (const [rows, width, limit] of [[1, 1, 65535], [3, 7, 65535], [5, 64, 65535], [37, 13, 3]] as const) {
    const gpu = await testGpu(family, limit < 65535 ? { maxWorkgroupsPerDimension: limit } : {});
    const values = randomArray(rows * width, rows, 8);
    const bfloat = new Uint16Array(rows * packedWords(width, 16) * 2).fill(0x7fc0);
    const codes = new Int8Array(rows * packedWords(width, 8) * 4).fill(-7);
    const scales = randomArray(rows, 9);
    const [halves, bytes]: [number[], number[]] = [[], []];
    for (let r = 0; r < rows; r++) {
      const row = values.subarray(r * width, (r + 1) * width);
      const bits = float32ToBfloat(row);
      bfloat.set(bits, r * packedWords(width, 16) * 2);
      halves.push(...bfloatToFloat32(bits));
      row.forEach((x, c) => {
        const code = Math.max(-127, Math.round(x * 16));
        codes[r * packedWords(width, 8) * 4 + c] = code;
        bytes.push(Math.fround(code * scales[r]!));
      });
    }
    const once = async (change = (t: Tensor) => t) => {
      const { outputs } = await run(
        gpu,
        [
          { shape: [rows, packedWords(width, 16)], dtype: "u32", data: new Uint32Array(bfloat.buffer) },
          { shape: [rows, packedWords(width, 8)], dtype: "u32", data: new Uint32Array(codes.buffer) },
          { shape: [rows, 1], data: scales },
        ],
        (
          _,
          bf16,
          int8,
          scales,
        ) => [change(unpackRows(bf16!, width)), change(unpackRows(int8!, width, scales))],
      );
      return outputs;
    };
    assertEquals(await once(), [Float32Array.from(halves), Float32Array.from(bytes)]);
    if (rows !== 3) continue;
    const mistaken = await once((t) => plant(t, "row * size.words", "row * size.width"));
    assertNotEquals(mistaken[0], Float32Array.from(halves));
    assertNotEquals(mistaken[1], Float32Array.from(bytes));
  }
});

Deno.test("unpackRows() refuses other shapes and types", () => {
  const g = new Program().block("test");
  const x = g.input("x", [4, 3], "u32");
  const scales = g.input("scales", [4, 1], "f32");
  assertThrows(() => unpackRows(scales, 1), ShapeError, "expected u32");
  assertThrows(() => unpackRows(x, 7), ShapeError, "7 values of 16 bits take 4 words a row");
  assertThrows(() => unpackRows(x, 13, scales), ShapeError, "13 values of 8 bits take 4 words a row");
  assertThrows(() => unpackRows(x, 12, g.input("s", [4], "f32")), ShapeError, "the scales must be f32");
});
