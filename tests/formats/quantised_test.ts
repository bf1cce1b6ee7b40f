/** Quantising weights on the host: against the definition and, where they are there, the files of an independent implementation. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import {
  dequantizeNf4,
  DYNAMIC_CODE,
  NF4_CODE,
  quantizeMagnitudes,
  quantizeNf4,
  restoreMagnitudes,
} from "../../src/formats/nf4.ts";
import { quantizeQ4, quantizeQ8 } from "../../src/formats/gguf/blocks/quantize.ts";
import { unpackGguf } from "../../src/formats/gguf/types.ts";
import { maxDifference, randomArray } from "../tensor/harness.ts";
import { badBlock } from "../../src/formats/quantised/gpu_layout.ts";
import { STORAGES } from "../../src/tensor/weight_storage.ts";
import { goldenArrays } from "../goldens/arrays.ts";
import { BLOCK_DTYPES, blockOf, quantisedValue } from "../tensor/quantised.ts";
import { sharedTest } from "../shared.ts";

/** Numbers in which -0 is 0. */
const numbers = (values: ArrayLike<number>) => Array.from(values, (v) => v + 0);

async function sha256(data: BufferSource): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data)).toHex();
}

Deno.test("the 256 dynamic values are those of bitsandbytes, with its roundings", async () => {
  assertEquals([DYNAMIC_CODE[0], DYNAMIC_CODE[127], DYNAMIC_CODE[255]], [-0.992968738079071, 0, 1]);
  // Boundaries that were rounded twice would give other numbers here.
  assertEquals(DYNAMIC_CODE[167], 0.033906251192092896);
  assertEquals(
    await sha256(DYNAMIC_CODE),
    "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c",
  );
});

Deno.test("quantizeNf4() packs the first code high, runs across rows and pads an odd end with the code of zero", () => {
  // A block of 64 whose magnitude is 2, then three values of 0.25, a negative one the largest.
  const values = new Float32Array(67);
  values.set([2, -2, 0, 1, -1, 0.2, 1e-9]);
  values.set([0.125, -0.25, 0.0625], 64);
  const { packed, magnitudes } = quantizeNf4(values);
  assertEquals([...magnitudes], [2, 0.25]);
  assertEquals(packed.length, 34);
  assertEquals([...packed.subarray(0, 4)], [0xf0, 0x7c, 0x28, 0x77]);
  assertEquals([...packed.subarray(32)], [0xc0, 0xa7]);
  const back = dequantizeNf4({ packed, magnitudes }, 0, 67);
  assertEquals([...back.subarray(0, 3), ...back.subarray(64)], [
    2,
    -2,
    0,
    0.44070982933044434 / 4,
    -0.25,
    0.24611230194568634 / 4,
  ]);
  assertEquals(dequantizeNf4({ packed, magnitudes }, 64, 3), back.subarray(64));
});

Deno.test("half-way between two values the lower code is taken, and zeros stay zeros", () => {
  const middle = (NF4_CODE[8]! + NF4_CODE[9]!) / 2;
  const { packed } = quantizeNf4(Float32Array.of(1, Math.fround(middle), Math.fround(middle) + 2 ** -26, 0));
  assertEquals([...packed], [0xf8, 0x97]);
  const tiny = quantizeNf4(Float32Array.of(1e-45, 0, 0, 0));
  assertEquals([...dequantizeNf4(tiny, 0, 4)], [1.401298464324817e-45, 0, 0, 0]);
  assertEquals([...quantizeNf4(new Float32Array(3)).packed], [0x77, 0x77]);
});

Deno.test("magnitudes are quantised around their mean, 256 to a factor", () => {
  const magnitudes = randomArray(600, 3).map((v) => 1.5 + v) as Float32Array<ArrayBuffer>;
  const nested = quantizeMagnitudes(magnitudes);
  assertEquals([nested.codes.length, nested.factors.length], [600, 3]);
  const back = restoreMagnitudes(nested);
  // Steps of the map are 1.4 % of the factor at most.
  assert(maxDifference(back, magnitudes) < 0.0071 * Math.max(...nested.factors));
  assertEquals(restoreMagnitudes(nested, 255, 3), back.subarray(255, 258));
  const alone = quantizeMagnitudes(Float32Array.of(0.75));
  assertEquals([...restoreMagnitudes(alone)], [0.75]);
});

Deno.test("a block whose scale is no finite number is found wherever it is", () => {
  for (const dtype of BLOCK_DTYPES) {
    const width = blockOf(dtype) === 256 ? 256 : 64;
    const { blockBytes, blockValues } = STORAGES[dtype];
    const { data } = quantisedValue(dtype, [4 * blockValues / width, width], 1);
    const bytes = new Uint8Array(data.buffer, 0, 4 * blockBytes) as Uint8Array<ArrayBuffer>;
    assertEquals(badBlock(dtype, bytes), undefined, dtype);
    // The last scale of the third block becomes infinite, as an f16 or as an f32.
    const view = new DataView(bytes.buffer, 2 * blockBytes);
    if (dtype === "nf4") view.setFloat32(0, Infinity, true);
    else if (dtype === "nf4-double") view.setFloat32(4, NaN, true);
    else view.setUint16(2, 0xfc00, true);
    assertEquals(badBlock(dtype, bytes), 2 * blockValues, dtype);
  }
});

sharedTest(
  "blocks of NF4, twice quantised or not, of Q8_0 and of Q4_0 are those of the reference",
  async () => {
    const golden = await goldenArrays("goldens/quantised/blocks.safetensors");
    assertEquals(NF4_CODE, golden.get("nf4_code"));
    assertEquals(DYNAMIC_CODE, golden.get("dynamic_code"));
    const names = [...golden.keys()].filter((name) => name.endsWith(".W"));
    assert(names.length > 5);
    for (const name of names) {
      const of = (part: string) => golden.get(`${name.slice(0, -2)}.${part}`)!;
      const weight = of("W") as Float32Array<ArrayBuffer>;
      const { packed, magnitudes } = quantizeNf4(weight);
      assertEquals(packed, of("nf4.packed"), name);
      assertEquals(magnitudes, of("nf4.absmax"), name);
      assertEquals(
        numbers(dequantizeNf4({ packed, magnitudes }, 0, weight.length)),
        numbers(of("nf4.values")),
        name,
      );

      const nested = quantizeMagnitudes(magnitudes);
      assertEquals(nested.codes, of("nf4_dq.absmax_codes"), name);
      const near = (actual: ArrayLike<number>, expected: ArrayLike<number>) => {
        const largest = Array.from(expected).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        assert(maxDifference(actual, expected) <= 1e-6 * largest, name);
      };
      near(nested.factors, of("nf4_dq.absmax2"));
      near([nested.offset], of("nf4_dq.offset"));
      const restored = restoreMagnitudes(nested);
      near(restored, of("nf4_dq.absmax"));
      near(dequantizeNf4({ packed, magnitudes: restored }, 0, weight.length), of("nf4_dq.values"));

      if (!golden.has(`${name.slice(0, -2)}.q8_0.raw`)) continue;
      for (const [type, quantize] of [["q8_0", quantizeQ8], ["q4_0", quantizeQ4]] as const) {
        const blocks = quantize(weight);
        assertEquals(blocks, of(`${type}.raw`), name);
        assertEquals(numbers(unpackGguf(type.toUpperCase(), blocks)), numbers(of(`${type}.values`)), name);
      }
    }
  },
);
