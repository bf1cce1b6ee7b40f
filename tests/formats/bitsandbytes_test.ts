/** Folders with quantised weights: NF4 as bitsandbytes has it is read, every other method refused by its name. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import type { FloatData } from "../../src/formats/dtype.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { StoredBlocks, storedBlocks } from "../../src/formats/quantised/stored_blocks.ts";
import { QuantisedWeight } from "../../src/formats/quantised/quantiser.ts";
import { writeSafetensors } from "../../src/formats/safetensors/write.ts";
import { bitsAndBytesTensors } from "../distill/tiny_bitsandbytes.ts";
import { goldenArrays } from "../goldens/arrays.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { maxDifference, randomArray } from "../tensor/harness.ts";
import { laidOut, layoutOf } from "../../src/formats/huggingface/layout.ts";
import type { ModelSource, StoredNf4 } from "../../src/formats/model_source.ts";

type Tensors = ReturnType<typeof bitsAndBytesTensors>;

/** Calls `fn` with a folder of these tensors. */
async function withFolder(
  tensors: Tensors,
  config: Record<string, unknown>,
  fn: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.realPath(await Deno.makeTempDir());
  try {
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(config));
    const held = new Map(tensors.map(({ name, data }) => [name, data]));
    await writeSafetensors(`${folder}/model.safetensors`, tensors, ({ name }) => held.get(name)!);
    await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const SHAPE = [70, 100];
const VALUES = randomArray(7000, 3) as Float32Array<ArrayBuffer>;
const weight = (nested: boolean) => bitsAndBytesTensors("x.weight", SHAPE, VALUES, nested);

Deno.test("a weight in NF4 is one tensor of its own shape, whose rows are read from anywhere", async () => {
  for (const nested of [false, true]) {
    await withFolder(
      weight(nested),
      { quantization_config: { quant_method: "bitsandbytes" } },
      async (folder) => {
        const model = await openModel(folder);
        assertEquals([...model.tensors.keys()], ["x.weight"]);
        assertEquals(model.tensors.get("x.weight"), { dtype: "NF4", shape: SHAPE, exactDtype: "f32" });
        assertEquals(model.config, {});
        const kind = nested ? "nf4-double" : "nf4";
        assertEquals(storedBlocks(model, "x.weight"), kind);
        const here = new QuantisedWeight(
          kind,
          [70, 100],
          (first, count) => Promise.resolve(VALUES.slice(first * 100, (first + count) * 100)),
        );
        const { data } = await model.read("x.weight");
        assertEquals(data, await here.values(0, 70));
        // Row 33 begins at an odd place of a block.
        assertEquals((await model.readRows("x.weight", 33, 4)).data, (data as FloatData).slice(3300, 3700));
        await assertRejects(() => model.readRows("x.weight", 69, 2), InputError, "its shape is [70,100]");
        const stored = new StoredBlocks(model, "x.weight", kind);
        assertEquals(await stored.laidOut(0, 70), await here.laidOut(0, 70));
        if (!nested) assertEquals(await stored.laidOut(16, 32), await here.laidOut(16, 32));
        model.close();
      },
    );
  }
});

Deno.test("parts of a weight that are not as they must be are named", async () => {
  const edited = (nested: boolean, suffix: string, change: (tensor: Tensors[number]) => Tensors) =>
    weight(nested).flatMap((tensor) => tensor.name === `x.weight${suffix}` ? change(tensor) : [tensor]);
  const state = (change: Record<string, unknown>, nested = true) =>
    edited(nested, ".quant_state.bitsandbytes__nf4", (tensor) => {
      const json = JSON.parse(new TextDecoder().decode(tensor.data as Uint8Array));
      const data = new TextEncoder().encode(JSON.stringify({ ...json, ...change }));
      return [{ ...tensor, shape: [data.length], data }];
    });
  const cases: [Tensors, string][] = [
    [edited(false, ".absmax", () => []), "there is no tensor x.weight.absmax"],
    [
      edited(false, ".absmax", (t) => [{ ...t, shape: [5], data: new Float32Array(5) }]),
      "absmax are 5 values of F32; a shape of [70, 100] needs 110 of F32",
    ],
    [state({ shape: [70, 101] }), "its codes are 3500 values of U8; a shape of [70, 101] needs 3535 of U8"],
    [state({ shape: [70, -1] }), "its quant_state has no shape"],
    [state({ blocksize: 128 }), "its blocks have 128 values; only 64 are supported"],
    [state({ nested_blocksize: 512 }), "blocks of its scales have 512 values; only 256 are supported"],
    [state({ nested_offset: "much" }), "its nested_offset is no number"],
    [
      edited(false, ".quant_map", (t) => [{ ...t, data: new Float32Array(16) }]),
      "quant_map holds other values than those of NF4",
    ],
    [
      edited(true, ".nested_quant_map", (t) => [{ ...t, data: new Float32Array(256) }]),
      "nested_quant_map holds other values than those of NF4",
    ],
    [
      edited(false, ".quant_state.bitsandbytes__nf4", (t) => [{ ...t, shape: [3], data: new Uint8Array(3) }]),
      "its quant_state is no JSON",
    ],
    [
      edited(
        false,
        ".quant_state.bitsandbytes__nf4",
        (t) => [{ ...t, name: "x.weight.quant_state.bitsandbytes__fp4" }],
      ),
      "the weights are quantised by bitsandbytes to fp4, which is not read",
    ],
  ];
  for (const [tensors, message] of cases) {
    await withFolder(tensors, {}, async (folder) => {
      await assertRejects(() => openModel(folder), InputError, message);
    });
  }
});

Deno.test("other methods of quantisation are refused by name, with what to do", async () => {
  const plain: Tensors = [{ name: "x.weight", dtype: "F32", shape: [1], data: new Float32Array(1) }];
  const settings: [Record<string, unknown>, string][] = [
    [{ quant_method: "gptq", bits: 4 }, "GPTQ"],
    [{ quant_method: "awq" }, "AWQ"],
    [{ quant_method: "fp8" }, "FP8"],
    [{ quant_method: "compressed-tensors" }, "COMPRESSED-TENSORS"],
    [{ quant_method: "bitsandbytes", load_in_8bit: true }, "bitsandbytes to 8 bits"],
    [{ quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "fp4" }, "bitsandbytes to fp4"],
  ];
  for (const [quantization_config, name] of settings) {
    await withFolder(plain, { quantization_config }, async (folder) => {
      const error = await assertRejects(
        () => openModel(folder),
        InputError,
        `the weights are quantised by ${name}, which is not read`,
      );
      assert(error.hint?.includes("quantize: nf4"), error.hint);
    });
  }
  const marks: [string, string][] = [
    ["x.qweight", "GPTQ or AWQ"],
    ["x.weight.SCB", "bitsandbytes to 8 bits"],
    ["x.SCB", "bitsandbytes to 8 bits"],
    ["x.weight_scale_inv", "FP8"],
    ["x.weight_packed", "compressed-tensors"],
  ];
  for (const [name, method] of marks) {
    await withFolder([...plain, { ...plain[0]!, name }], {}, async (folder) => {
      await assertRejects(() => openModel(folder), InputError, method);
    });
  }
});

sharedTest("a checkpoint of bitsandbytes holds the values that it gives there", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/config.json`, "{}");
    const file = "goldens/quantised/bnb_checkpoint.safetensors";
    await Deno.copyFile(sharedPath(file), `${folder}/model.safetensors`);
    const expected = await goldenArrays("goldens/quantised/bnb_expected.safetensors");
    const model = await openModel(folder);
    assertEquals([...model.tensors.keys()].sort(), [...expected.keys()].sort());
    const found = new Set<string | undefined>();
    for (const [name, values] of expected) {
      const { data } = await model.read(name);
      const kind = storedBlocks(model, name);
      found.add(kind);
      const largest = Array.from(values).reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      assert(maxDifference(data, values) <= (kind === "nf4" ? 0 : 1e-6 * largest), name);
    }
    assertEquals([...found].sort(), ["nf4", "nf4-double"]);
    model.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("what is turned while it is read is not kept in blocks, whose order would be that of the file", () => {
  const weight = { dtype: "NF4", exactDtype: "f32" };
  const stored = { nf4: true } as unknown as StoredNf4;
  const source = {
    tensors: new Map(
      ["h.0.attn.c_attn.weight", "wte.weight"].map((name) => [name, { ...weight, shape: [8, 4] }]),
    ),
    nf4: () => stored,
  } as unknown as ModelSource;
  const turned = laidOut(source, layoutOf({ model_type: "gpt2" }).tensors!);
  assertEquals(turned.tensors.get("transformer.h.0.attn.c_attn.weight")!.shape, [4, 8]);
  assertEquals(turned.nf4!("transformer.h.0.attn.c_attn.weight"), undefined);
  assertEquals(turned.nf4!("transformer.wte.weight"), stored);
});
