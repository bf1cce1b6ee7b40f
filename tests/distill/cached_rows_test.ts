/** The bytes of cached rows, and what rounding logits for them costs. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertLess } from "@std/assert";
import { RowCodec, type RowFormat, type TeacherRow } from "../../src/distill/teacher/cached_rows.ts";
import { bfloatToFloat32, float32ToBfloat, float32ToHalf, halfToFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { EMPTY_TAIL, NO_TOKEN } from "../../src/losses/sparse_target.ts";
import { topOf } from "../losses/sparse_rows.ts";
import { sharedPath, sharedTest } from "../shared.ts";

const top = (entries: number, vocabulary: number, precision: "f16" | "f32"): RowFormat => ({
  ...{ target: { kind: "top-k", entries, temperatures: [1, 2] }, precision, vocabulary },
});

/** Writes rows one after another and reads them back into other places of a batch. */
function through(format: RowFormat, rows: readonly TeacherRow[]) {
  const codec = new RowCodec(format);
  const bytes = new ArrayBuffer(codec.bytes * rows.length);
  const good = rows.map((row, i) => codec.write(row, bytes, i * codec.bytes));
  const arrays = codec.arrays(2 * rows.length);
  // What is no good is not kept, and may be refused.
  good.forEach((kept, i) => kept && codec.read(bytes, i * codec.bytes, arrays, 2 * i + 1));
  return { codec, good, arrays };
}

Deno.test("rows of the largest logits come back as distances from the largest, exactly in f32", () => {
  for (const [vocabulary, bytes] of [[60_000, 8 + 5 * 6], [65_535, 8 + 5 * 8]] as const) {
    const rows = [
      {
        ids: Uint32Array.of(59_999, 3, 7, 0, 2),
        values: Float32Array.of(9.25, 8.1, 1, 1, -Infinity),
        tails: [0.3, -2],
      },
      {
        ids: Uint32Array.of(1, 2, 3, 4, 5),
        values: Float32Array.of(-1, -1, -2, -3, -70),
        tails: [1e-3, EMPTY_TAIL],
      },
    ];
    const { codec, good, arrays } = through(top(5, vocabulary, "f32"), rows);
    assertEquals([codec.bytes, good], [Math.ceil(bytes / 4) * 4, [true, true]]);
    rows.forEach((row, i) => {
      const at = (width: number) => [(2 * i + 1) * width, (2 * i + 2) * width] as const;
      assertEquals(arrays.ids.slice(...at(5)), row.ids);
      assertEquals(arrays.logits.slice(...at(5)), row.values.map((z) => z - row.values[0]!));
      assertEquals(arrays.tails.slice(...at(2)), Float32Array.from(row.tails));
    });
    assert(arrays.ids.slice(0, 5).every((id) => id === NO_TOKEN), "other positions are left alone");
  }
});

Deno.test("rows of samples come back as logarithms of shares", () => {
  const format: RowFormat = {
    ...{ target: { kind: "samples", entries: 4, temperatures: [] }, precision: "f16", vocabulary: 100 },
  };
  const rows = [{
    ids: Uint32Array.of(5, 99, NO_TOKEN, NO_TOKEN),
    values: Uint32Array.of(3, 1, 0, 0),
    tails: [],
  }];
  const { codec, good, arrays } = through(format, rows);
  assertEquals([codec.bytes, good], [16, [true]]);
  assertEquals([...arrays.ids.slice(4)], [5, 99, NO_TOKEN, NO_TOKEN]);
  const expected = [Math.log(0.75), Math.log(0.25), EMPTY_TAIL, EMPTY_TAIL];
  assertEquals(arrays.logits.slice(4), Float32Array.from(expected));
});

Deno.test("rows that no training could use are noticed", () => {
  const row = { ids: Uint32Array.of(1, 2), values: Float32Array.of(3, 2), tails: [0, 0] };
  const format = top(2, 50, "f16");
  const good = (change: Partial<TeacherRow>) => through(format, [{ ...row, ...change }]).good[0];
  assertEquals(good({}), true);
  assertEquals(good({ values: Float32Array.of(NaN, 2) }), false);
  assertEquals(good({ values: Float32Array.of(3, NaN) }), false);
  assertEquals(good({ values: Float32Array.of(Infinity, 2) }), false);
  assertEquals(good({ values: Float32Array.of(2, 3) }), false);
  assertEquals(good({ tails: [0, NaN] }), false);
  assertEquals(good({ ids: Uint32Array.of(1, 50) }), false);
});

sharedTest("what rounding the 64 largest logits costs, as KL from what they were", async () => {
  const path = "goldens/forward/stories260K/forward.safetensors";
  const file = await SafetensorsFile.open(await openFile(sharedPath(path)));
  const all = (await file.readArray("logits")).data as Float32Array;
  file.close();
  const halves = (x: number[]) => [...halfToFloat32(float32ToHalf(Float32Array.from(x)))];
  const bfloats = (x: number[]) => [...bfloatToFloat32(float32ToBfloat(Float32Array.from(x)))];
  const cost = (round: (x: number[]) => number[], distances: boolean) => {
    let sum = 0;
    for (let r = 0; r < 96; r++) {
      const z = all.slice(r * 512, (r + 1) * 512);
      const { logits, tails } = topOf(z, 64, [1]);
      const highest = distances ? 0 : z.reduce((a, b) => Math.max(a, b));
      const logP = normalised([...Array.from(logits), tails[0]!]);
      const rounded = round(Array.from(logits, (x) => x + highest)).map((x) => x - highest);
      const logQ = normalised([...rounded, tails[0]!]);
      sum += logP.reduce((kl, l, k) => kl + Math.exp(l) * (l - logQ[k]!), 0) / 96;
    }
    return sum;
  };
  const costs = {
    "bf16 logits": cost(bfloats, false),
    "f16 logits": cost(halves, false),
    "bf16 distances": cost(bfloats, true),
    "f16 distances": cost(halves, true),
  };
  for (const [name, kl] of Object.entries(costs)) console.log(`${name}: KL ${kl.toExponential(1)}`);
  assertLess(costs["f16 distances"], 1e-7);
  assertLess(100 * costs["f16 distances"], costs["bf16 logits"]);
});

function normalised(x: readonly number[]): number[] {
  const total = Math.log(x.reduce((sum, y) => sum + Math.exp(y), 0));
  return x.map((y) => y - total);
}
