// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import {
  bfloatToFloat32,
  float32ToBfloat,
  float32ToHalf,
  fromFloat32,
  halfToFloat32,
  scanNonFinite,
  toFloat32,
} from "../../src/formats/dtype.ts";

const everyPattern = Uint16Array.from({ length: 65536 }, (_, i) => i);

function floatOf(bits: number): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint32Array.of(bits).buffer);
}

function isHalfNaN(bits: number): boolean {
  return (bits & 0x7fff) > 0x7c00;
}

/** A deterministic spread of f32 bit patterns over all exponents. */
function spreadOfFloats(count: number): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(count);
  let state = 12345;
  for (let i = 0; i < count; i++) bits[i] = state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return new Float32Array(bits.buffer);
}

Deno.test("halfToFloat32() equals the engine's Float16Array on all 65536 patterns", () => {
  const ours = halfToFloat32(everyPattern);
  const theirs = new Float32Array(new Float16Array(everyPattern.buffer));
  assertEquals(ours, theirs);
  assertEquals(Object.is(ours[0x8000], -0), true);
});

Deno.test("halfToFloat32() and back keeps all 65536 patterns, NaN payloads included but for the quiet bit", () => {
  const back = float32ToHalf(halfToFloat32(everyPattern));
  for (let i = 0; i < 65536; i++) assertEquals(back[i], isHalfNaN(i) ? i | 0x200 : i);
});

Deno.test("float32ToHalf() equals the engine's Float16Array on a million values of all sizes", () => {
  const values = spreadOfFloats(1_000_000);
  const ours = float32ToHalf(values);
  const theirs = new Uint16Array(new Float16Array(values).buffer);
  let differing = 0;
  for (let i = 0; i < ours.length; i++) {
    if (ours[i] !== theirs[i] && !(isHalfNaN(ours[i]) && isHalfNaN(theirs[i]))) differing++;
  }
  assertEquals(differing, 0);
});

Deno.test("float32ToHalf() rounds every tie between two neighbours to the even one, and just beside it to the nearer", () => {
  const floats = halfToFloat32(everyPattern);
  for (let half = 0; half < 0x7bff; half++) {
    const middle = (floats[half] + floats[half + 1]) / 2; // exact in f32
    const bits = new Uint32Array(Float32Array.of(middle).buffer)[0];
    const even = half & 1 ? half + 1 : half;
    const [tie, below, above] = float32ToHalf(
      new Float32Array(Uint32Array.of(bits, bits - 1, bits + 1).buffer),
    );
    if (tie !== even || below !== half || above !== half + 1) {
      assertEquals([tie, below, above], [even, half, half + 1]);
    }
  }
});

Deno.test("float32ToHalf() overflows at 65520 and not below", () => {
  assertEquals([...float32ToHalf(Float32Array.of(65504, 65519.996, 65520, -65520, Infinity, 3e38))], [
    0x7bff,
    0x7bff,
    0x7c00,
    0xfc00,
    0x7c00,
    0x7c00,
  ]);
});

Deno.test("bfloat conversion keeps all 65536 patterns but for the quiet bit of a NaN", () => {
  const floats = bfloatToFloat32(everyPattern);
  const back = float32ToBfloat(floats);
  for (let i = 0; i < 65536; i++) {
    assertEquals(new Uint32Array(floats.buffer, 4 * i, 1)[0], (i << 16) >>> 0);
    assertEquals(back[i], (i & 0x7fff) > 0x7f80 ? i | 0x40 : i);
  }
});

Deno.test("float32ToBfloat() rounds to nearest even, into infinity too, and never turns a NaN into one", () => {
  const cases: [number, number][] = [
    [0x3f808000, 0x3f80], // tie, even below
    [0x3f818000, 0x3f82], // tie, even above
    [0x3f808001, 0x3f81],
    [0x3f807fff, 0x3f80],
    [0x7f7fffff, 0x7f80],
    [0xff7f8000, 0xff80],
    [0x7f800001, 0x7fc0],
    [0xffffffff, 0xffff],
    [0x00008000, 0x0000],
    [0x00018000, 0x0002],
  ];
  for (const [float, bfloat] of cases) assertEquals(float32ToBfloat(floatOf(float))[0], bfloat);
});

Deno.test("toFloat32() and fromFloat32() pass f32 through without a copy", () => {
  const values = Float32Array.of(1, -0, 65504);
  assertEquals(toFloat32("f32", values) === values, true);
  for (const dtype of ["f16", "bf16"] as const) {
    assertEquals(
      toFloat32(dtype, fromFloat32(dtype, Float32Array.of(1, -0, -2.5))),
      Float32Array.of(1, -0, -2.5),
    );
  }
});

Deno.test("scanNonFinite() counts NaN and infinities and names the first, in every storage", () => {
  const values = Float32Array.of(1, 3e38, -1, NaN, -Infinity, 0);
  assertEquals(scanNonFinite("f32", values), { count: 2, first: 3 });
  assertEquals(scanNonFinite("bf16", float32ToBfloat(values)), { count: 2, first: 3 });
  assertEquals(scanNonFinite("f16", float32ToHalf(values)), { count: 3, first: 1 });
  assertEquals(scanNonFinite("f32", Float32Array.of(3.4e38, 1e-45, -0)), undefined);
});

Deno.test("scanNonFinite() sees one value wherever it is, at an end, in an odd number, and where memory is not aligned", () => {
  const bits = { f32: 0xff800000, f16: 0xfc01, bf16: 0x7f80 };
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (const [begin, length] of [[0, 1], [0, 4], [0, 5], [1, 4], [1, 5], [1, 0]]) {
      const data = (dtype === "f32" ? new Uint32Array(8) : new Uint16Array(8)).subarray(
        begin,
        begin + length,
      );
      data.fill(bits[dtype] - (dtype === "f32" ? 1 << 23 : dtype === "f16" ? 1 << 10 : 1 << 7));
      const values = data instanceof Uint32Array ? new Float32Array(data.buffer, 4 * begin, length) : data;
      assertEquals(scanNonFinite(dtype, values), undefined);
      for (let first = 0; first < length; first++) {
        const before = data[first];
        data[first] = bits[dtype];
        assertEquals(scanNonFinite(dtype, values), { count: 1, first }, `${dtype} ${begin} ${length}`);
        data[first] = before;
      }
    }
  }
});
