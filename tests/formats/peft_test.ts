// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { openModel } from "../../src/formats/open_model.ts";
import {
  type LoraAdapter,
  loraRank,
  loraScaling,
  readPeftAdapter,
  writePeftAdapter,
} from "../../src/formats/peft/peft.ts";
import { parsePeftConfig, peftConfigJson } from "../../src/formats/peft/config.ts";
import type { TensorData } from "../../src/formats/safetensors/safetensors.ts";
import { sharedPath, sharedTest } from "../shared.ts";

const module = "model.layers.0.self_attn.q_proj";
const settings = { rank: 2, alpha: 4, targetModules: ["q_proj"], baseModel: "base" };

function tensor(...shape: number[]): TensorData {
  const size = shape.reduce((product, size) => product * size, 1);
  return { dtype: "f32", shape, data: Float32Array.from({ length: size }, (_, i) => i + 0.5) };
}

function adapter(
  tensors: Record<string, TensorData>,
  changes: Partial<LoraAdapter["settings"]> = {},
): LoraAdapter {
  return { settings: { ...settings, ...changes }, tensors: new Map(Object.entries(tensors)) };
}

const complete = { [`${module}.lora_A.weight`]: tensor(2, 6), [`${module}.lora_B.weight`]: tensor(4, 2) };

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const kind of ["lora", "rslora", "dora"]) {
  const golden = `goldens/lora_kd_trajectory/stories260K_${kind}/adapter_final`;

  sharedTest(
    `an adapter that PEFT saved (${kind}) reads, and writes the same bytes and the same config`,
    () =>
      inFolder(async (folder) => {
        const model = await openModel(sharedPath("models/stories260K"));
        const shapes = new Map([...model.tensors].map(([name, { shape }]) => [name, shape]));
        model.close();
        const read = await readPeftAdapter(sharedPath(golden), shapes);
        assertEquals(read.tensors.size, 4 * 7 * (kind === "dora" ? 3 : 2));
        assertEquals(loraScaling(read.settings, module), 16 / (kind === "rslora" ? Math.sqrt(8) : 8));

        await writePeftAdapter(`${folder}/adapter`, read, { readme: "# An adapter\n" });
        const file = "adapter_model.safetensors";
        assertEquals(
          await Deno.readFile(`${folder}/adapter/${file}`),
          await Deno.readFile(sharedPath(`${golden}/${file}`)),
        );
        const ours = await Deno.readTextFile(`${folder}/adapter/adapter_config.json`);
        const theirs = JSON.parse(await Deno.readTextFile(sharedPath(`${golden}/adapter_config.json`)));
        assertEquals(JSON.parse(ours), theirs);
        assertEquals(Object.keys(JSON.parse(ours)), Object.keys(theirs));
        assertEquals(await readPeftAdapter(`${folder}/adapter`), read);
      }),
  );
}

sharedTest("readPeftAdapter() reads adapters that name their targets in any way PEFT does", async () => {
  for (const family of ["llama3_rope", "llama_tied_bias", "mistral"]) {
    const folder = sharedPath(`goldens/families/${family}`);
    const { tensors } = await readPeftAdapter(`${folder}/adapter`);
    const { num_hidden_layers } = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
    assertEquals(tensors.size, num_hidden_layers * 7 * 2);
  }
});

const unfit: [string, LoraAdapter, string][] = [
  ["no tensors", adapter({}), "no tensors"],
  ["a missing factor", adapter({ [`${module}.lora_A.weight`]: tensor(2, 6) }), "lora_B.weight is missing"],
  ["a rank that is not the config's", adapter(complete, { rank: 3 }), "expected [3, 6]"],
  ["a rank that is not the pattern's", adapter(complete, { rankPattern: { q_proj: 1 } }), "expected [1, 6]"],
  [
    "a B of another rank",
    adapter({ ...complete, [`${module}.lora_B.weight`]: tensor(4, 3) }),
    "expected [4, 2]",
  ],
  ["a tensor that is not LoRA's", adapter({ ...complete, "lm_head.weight": tensor(4, 2) }), "lm_head.weight"],
  ["DoRA without magnitudes", adapter(complete, { dora: true }), "lora_magnitude_vector is missing"],
  [
    "a module that no target names",
    adapter(complete, { targetModules: ["k_proj", "proj"] }),
    "target_modules",
  ],
];

for (const [what, wrong, says] of unfit) {
  Deno.test(`writePeftAdapter() refuses ${what} and leaves nothing`, () =>
    inFolder(async (folder) => {
      await assertRejects(() => writePeftAdapter(`${folder}/a`, wrong), InputError, says);
      assertEquals([...Deno.readDirSync(folder)], []);
    }));
}

Deno.test("readPeftAdapter() refuses modules the base lacks, shapes that do not fit it, and NaN", () =>
  inFolder(async (folder) => {
    await writePeftAdapter(`${folder}/a`, adapter(complete));
    const read = (weights: Record<string, number[]>) => () =>
      readPeftAdapter(`${folder}/a`, new Map(Object.entries(weights)));
    await read({ [`${module}.weight`]: [4, 6] })();
    await assertRejects(read({ [`${module}.weight`]: [4, 5] }), InputError, "expected [2, 5]");
    await assertRejects(read({ [`${module}.weight`]: [3, 6] }), InputError, "expected [3, 2]");
    await assertRejects(read({}), InputError, "no linear layer model.layers.0.self_attn.q_proj");
    await assertRejects(
      () => writePeftAdapter(`${folder}/a`, adapter(complete)),
      InputError,
      "already there",
    );
    const broken = tensor(2, 6);
    broken.data[3] = NaN;
    await writePeftAdapter(`${folder}/a`, adapter({ ...complete, [`${module}.lora_A.weight`]: broken }), {
      replace: true,
    });
    await assertRejects(() => readPeftAdapter(`${folder}/a`), InputError, "NaN");
  }));

Deno.test("parsePeftConfig() refuses other methods and options by name", () => {
  const good = JSON.parse(peftConfigJson(settings));
  const parse = (changes: Record<string, unknown>) =>
    parsePeftConfig(JSON.stringify({ ...good, ...changes }), "c.json");
  const wrong: [Record<string, unknown>, string][] = [
    [{ peft_type: "VERA" }, 'peft_type "VERA"'],
    [{ peft_type: undefined }, "peft_type"],
    [{ bias: "all" }, 'bias is "all"'],
    [{ lora_bias: true }, "lora_bias"],
    [{ modules_to_save: ["lm_head"] }, "modules_to_save"],
    [{ fan_in_fan_out: "yes" }, "fan_in_fan_out"],
    [{ use_qalora: true }, "use_qalora"],
    [{ init_lora_weights: "pissa" }, '"pissa" changes the base weights'],
    [{ r: 0 }, "r is 0"],
    [{ lora_alpha: "16" }, "lora_alpha"],
    [{ target_modules: "all-linear" }, "target_modules"],
    [{ rank_pattern: { q_proj: 1.5 } }, "rank_pattern.q_proj"],
    [{ rank_pattern: { "(a+)+$": 1 } }, "expected the name of a module"],
  ];
  for (const [changes, says] of wrong) assertThrows(() => parse(changes), InputError, says);
  assertThrows(() => parsePeftConfig("{", "c.json"), InputError, "not valid JSON");
  assertThrows(() => parsePeftConfig("[]", "c.json"), InputError, "JSON object");
  // Older PEFT wrote fewer fields, newer ones may write more.
  const least = { peft_type: "LORA", r: 2, lora_alpha: 4, target_modules: ["q_proj"], something_new: 1 };
  assertEquals(parsePeftConfig(JSON.stringify(least), "c.json").rank, 2);
});

Deno.test("loraRank() and loraScaling() follow the patterns", () => {
  const patterned = {
    ...settings,
    rankPattern: { "layers.1.self_attn.q_proj": 8, "^model.layers.2.self_attn.q_proj": 16, v_proj: 1 },
    alphaPattern: { "layers.1.self_attn.q_proj": 32 },
  };
  const rank = (layer: string) => loraRank(patterned, `model.layers.${layer}`);
  assertEquals(["0", "1", "11", "2"].map((layer) => rank(`${layer}.self_attn.q_proj`)), [2, 8, 2, 16]);
  assertEquals([rank("0.self_attn.v_proj"), rank("0.mlp.xv_proj")], [1, 2]);
  assertEquals(loraScaling(patterned, "model.layers.1.self_attn.q_proj"), 4);
  assertAlmostEquals(loraScaling({ ...patterned, rsLora: true }, module), 4 / Math.sqrt(2));
});
