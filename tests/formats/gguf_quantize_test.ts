// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import type { QuantizeBlocks } from "../../src/formats/gguf/blocks/quantize.ts";
import { quantizers } from "../../src/formats/gguf/mixture.ts";
import { ggufType, unpackGguf } from "../../src/formats/gguf/types.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { philox4x32, splitSeed } from "../../src/base/random.ts";
import { sharedPath, sharedTest } from "../shared.ts";

/** Normal numbers (Box and Muller). */
function normals(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => {
    const [a, b] = philox4x32([i, 0, 0, 0], splitSeed(seed)).map((word) => (word + 0.5) / 2 ** 32);
    return Math.sqrt(-2 * Math.log(a)) * Math.cos(2 * Math.PI * b);
  });
}

/** Squared error of what comes back, by that of zeros, rooted. */
function relativeError(type: string, values: Float32Array, quantize: QuantizeBlocks): number {
  const back = unpackGguf(type, quantize(values));
  let [error, whole] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    error += (back[i] - values[i]) ** 2;
    whole += values[i] ** 2;
  }
  return Math.sqrt(error / whole);
}

Deno.test("quantizeQ8() rounds halves away from zero and survives the smallest scales", () => {
  // The scale is 1, so that a value is its own quotient.
  const values = new Float32Array(64);
  values.set([127, 0.5, -0.5, 1.5, -1.5, 2.5, 126.5, -126.5, 0.49999997]);
  values.set([1e-45, -1e-45], 32);
  const signed = new Int8Array(quantizers.Q8_0!(values).buffer);
  assertEquals([...signed.subarray(2, 11)], [127, 1, -1, 2, -2, 3, 127, -127, 0]);
  assertEquals([...signed.subarray(36, 38)], [0, 0]);
});

Deno.test("Q4_0 and Q5_0 keep the first of the largest magnitudes exactly, and cut off after a half", () => {
  const values = new Float32Array(32);
  values.set([-8, 8, 1, -0.5, -0.500001, 0.5]);
  const back = [...unpackGguf("Q4_0", quantizers.Q4_0!(values)).subarray(0, 6)];
  assertEquals(back, [-8, 7, 1, 0, -1, 1]);
  values.set([16, -16, 1, -0.5]);
  assertEquals([...unpackGguf("Q5_0", quantizers.Q5_0!(values)).subarray(0, 4)], [16, -15, 1, -1]);
});

sharedTest("Q8_0, Q4_0 and Q5_0 make the reference's blocks byte for byte", async () => {
  const file = await SafetensorsFile.open(await openFile(sharedPath("goldens/gguf/blocks.safetensors")));
  for (const type of ["Q8_0", "Q4_0", "Q5_0"] as const) {
    const { data } = await file.read(`${type}.source`);
    assertEquals(quantizers[type]!(data as Float32Array), await file.readBytes(`${type}.raw`), type);
  }
  file.close();
  const path = sharedPath("goldens/quantised/blocks.safetensors");
  const quantised = await SafetensorsFile.open(await openFile(path));
  let compared = 0;
  for (const name of quantised.tensors.keys()) {
    const [, matrix, kind] = /^(.+)\.(q8_0|q4_0)\.raw$/.exec(name) ?? [];
    if (kind === undefined) continue;
    const { data } = await quantised.read(`${matrix}.W`);
    const type = kind.toUpperCase() as "Q8_0" | "Q4_0";
    assertEquals(quantizers[type]!(data as Float32Array), await quantised.readBytes(name), name);
    compared++;
  }
  assert(compared >= 4);
  quantised.close();
});

/** Q4_K without a search: the span of a group in 15 steps, scales and minima rounded to 63rds of the largest. */
function spanError(values: Float32Array): number {
  let [error, whole] = [0, 0];
  for (let from = 0; from < values.length; from += 256) {
    const groups = Array.from({ length: 8 }, (_, g) => values.subarray(from + 32 * g, from + 32 * g + 32));
    const minima = groups.map((group) => -Math.min(0, ...group));
    const scales = groups.map((group, g) => (Math.max(...group) + minima[g]) / 15);
    const [scale, minimum] = [Math.max(...scales) / 63, Math.max(...minima) / 63];
    for (const [g, group] of groups.entries()) {
      const own = scale * Math.round(scales[g] / scale);
      const least = minimum * Math.round(minima[g] / minimum);
      for (const value of group) {
        const number = Math.min(15, Math.max(0, Math.round((value + least) / own)));
        error += (own * number - least - value) ** 2;
        whole += value ** 2;
      }
    }
  }
  return Math.sqrt(error / whole);
}

Deno.test("Q4_K and Q6_K come nearer to normal weights than rounding without a search, and than fewer bits", () => {
  const values = normals(256 * 24, 3);
  const errors = Object.fromEntries(
    Object.entries(quantizers).map(([type, quantize]) => [type, relativeError(type, values, quantize)]),
  );
  assert(errors.Q4_K < 0.9 * spanError(values), `${errors.Q4_K} against ${spanError(values)}`);
  // What llama.cpp's own search reaches on such weights is 0.0716; a step of six bits over a span of 16 normal values gives 0.019.
  assert(errors.Q4_K < 0.0716 && errors.Q6_K < 0.0185, JSON.stringify(errors));
  assert(errors.Q8_0 < errors.Q6_K && errors.Q6_K < errors.Q5_0 && errors.Q5_0 < errors.Q4_K);
  assert(errors.Q4_K < errors.Q4_0);
});

Deno.test("K blocks hold what is easy exactly: zeros, one value, whole steps, one sign; and nothing breaks them", () => {
  const normal = normals(256, 5);
  const blocks: Record<string, [make: (i: number) => number, bound: { Q4_K: number; Q6_K: number }]> = {
    zeros: [() => 0, { Q4_K: 0, Q6_K: 0 }],
    "one value": [() => 0.5, { Q4_K: 1e-3, Q6_K: 1e-3 }],
    "a negative one": [() => -0.5, { Q4_K: 1e-3, Q6_K: 1e-3 }],
    "whole steps": [(i) => i % 16 - 8, { Q4_K: 1e-3, Q6_K: 0.02 }],
    "one sign": [(i) => Math.abs(normal[i]), { Q4_K: 0.08, Q6_K: 0.03 }],
    "the other": [(i) => -Math.abs(normal[i]), { Q4_K: 0.08, Q6_K: 0.03 }],
    "groups of other sizes": [(i) => normal[i] * 10 ** ((i >> 5) - 4), { Q4_K: 0.1, Q6_K: 0.03 }],
    "one value among zeros": [(i) => i === 77 ? 3 : 0, { Q4_K: 1e-3, Q6_K: 1e-3 }],
    // Less than the smallest f16 can scale: zeros at worst.
    "tiny": [(i) => normal[i] * 1e-6, { Q4_K: 1, Q6_K: 1 }],
    "large": [(i) => normal[i] * 1e4, { Q4_K: 0.08, Q6_K: 0.03 }],
  };
  for (const [name, [make, bounds]] of Object.entries(blocks)) {
    const values = Float32Array.from({ length: 256 }, (_, i) => make(i));
    for (const type of ["Q4_K", "Q6_K"] as const) {
      const bytes = quantizers[type]!(values);
      assertEquals(bytes.length, ggufType(type).bytes);
      const error = relativeError(type, values, quantizers[type]!);
      assert(
        name === "zeros" ? unpackGguf(type, bytes).every((v) => v === 0) : error <= bounds[type],
        `${name} as ${type}: ${error}`,
      );
    }
  }
});
