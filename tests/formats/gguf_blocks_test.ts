// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import * as grids from "../../src/formats/gguf/blocks/grids.ts";
import { ggufType, ggufTypes, readableGgufTypes, unpackGguf } from "../../src/formats/gguf/types.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { sharedPath, sharedTest } from "../shared.ts";

async function sha256(data: ArrayBufferView<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data)).toHex();
}

/** Where a type's f16 scales lie in its block, whose exponents the test sets so that all values are finite. */
const SCALES: Record<string, number[]> = {
  Q4_1: [0, 2],
  Q5_1: [0, 2],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
  IQ1_M: [54],
  TQ1_0: [52],
  TQ2_0: [64],
  MXFP4: [],
};

/** The beginnings of the sha256 of the f32 values of 64 blocks of {@linkcode randomBlocks}, as gguf-py 0.19 unpacks them, -0 as 0. */
const VALUES: Record<string, string> = {
  Q8_0: "bf5b245de1056550",
  Q4_0: "78ddfbdb03a82887",
  Q4_1: "20a7c330510c275c",
  Q5_0: "6bb8664949c33a04",
  Q5_1: "f336d2f5cbfc431d",
  Q2_K: "82ca9af9a52d5cab",
  Q3_K: "faa5d82c60d36d5c",
  Q4_K: "a13c3067961557b3",
  Q5_K: "ac14a5c598884c78",
  Q6_K: "13695cfcc7fc89b7",
  IQ4_NL: "3396ea319a833904",
  IQ4_XS: "c9446699c5602c91",
  IQ2_XXS: "17ecd1f356a3860b",
  IQ2_XS: "0c8341fa1f8b2371",
  IQ2_S: "2213004926b0125c",
  IQ3_XXS: "2dd880e85c401a16",
  IQ3_S: "f121aeec90e2f0ec",
  IQ1_S: "dad6e5e2f4cde887",
  IQ1_M: "e72b8cdda3c7af57",
  TQ1_0: "2020698de7381436",
  TQ2_0: "9d223cd747b25835",
  MXFP4: "1ef0f5f437fee7d3",
};

/** The bytes of MINSTD from 1, its bits 16 to 23. */
function randomBlocks(type: string, count: number): Uint8Array<ArrayBuffer> {
  const { bytes } = ggufType(type);
  let state = 1;
  const blocks = Uint8Array.from({ length: count * bytes }, () => {
    state = state * 48271 % 2147483647;
    return state >>> 16;
  });
  for (let at = 0; at < blocks.length; at += bytes) {
    for (const scale of SCALES[type] ?? [0]) blocks[at + scale + 1] = blocks[at + scale + 1] & 0x83 | 0x28;
  }
  return blocks;
}

Deno.test("unpackGguf() gives another implementation's values for random blocks of every type", async () => {
  const quantised = [...readableGgufTypes.keys()].filter((type) => ggufType(type).block > 1);
  assertEquals(quantised.sort(), Object.keys(VALUES).sort());
  for (const [type, expected] of Object.entries(VALUES)) {
    const values = toFloat32(readableGgufTypes.get(type)!, unpackGguf(type, randomBlocks(type, 64)));
    assertEquals((await sha256(values.map((value) => value + 0))).slice(0, 16), expected, type);
  }
});

Deno.test("the lattices hold the points of the format", async () => {
  for (
    const [grid, size, expected] of [
      [grids.grid256, 2048, "05826b5d3e472a3a"],
      [grids.grid512, 4096, "06e47aaca60b4dc1"],
      [grids.grid1024, 8192, "e1aa1473412b0552"],
      [grids.grid2048, 16384, "07540ffc1aeaf6ad"],
      [grids.quads256, 1024, "46e35f5a997efdee"],
      [grids.quads512, 2048, "bd1af4945a1717c6"],
    ] as const
  ) {
    const points = grid() as Int8Array<ArrayBuffer>;
    assertEquals([points.length, (await sha256(points)).slice(0, 16)], [size, expected]);
  }
});

sharedTest("unpackGguf() gives the reference's values of every type, bit for bit", async () => {
  type Block = { ggml_type: number; block_elements: number; block_bytes: number; values_sha256: string };
  const blocks: Record<string, Block> = JSON.parse(
    await Deno.readTextFile(sharedPath("goldens/gguf/blocks.json")),
  );
  const file = await SafetensorsFile.open(await openFile(sharedPath("goldens/gguf/blocks.safetensors")));
  for (const [name, { ggml_type, block_elements, block_bytes, values_sha256 }] of Object.entries(blocks)) {
    assertEquals(ggufTypes.get(ggml_type), { name, block: block_elements, bytes: block_bytes });
    const raw = await file.readBytes(`${name}.raw`);
    const values = toFloat32(readableGgufTypes.get(name)!, unpackGguf(name, raw));
    assertEquals(await sha256(values), values_sha256, name);
  }
  assert(Object.keys(blocks).length > 20);
  file.close();
});
