/** LoRA on experts as PEFT keeps it: against an adapter that PEFT wrote, with the updates that PEFT makes of it, and wrong ones. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { peftConfigJson } from "../../src/formats/peft/config.ts";
import {
  type ExpertsParameter,
  type LoraAdapter,
  loraScaling,
  readPeftAdapter,
  writePeftAdapter,
  writePeftFolder,
} from "../../src/formats/peft/peft.ts";
import type { TensorData } from "../../src/formats/safetensors/safetensors.ts";
import { assertWithin } from "../tensor/harness.ts";
import fixture from "./fixtures/peft_experts.json" with { type: "json" };

const EXPERTS = "model.layers.0.mlp.experts";
const KEY = `base_model.model.${EXPERTS}`;

type Arrays = Record<string, { shape: number[]; data: number[] }>;

function f32({ shape, data }: Arrays[string]): TensorData {
  return { dtype: "f32", shape, data: Float32Array.from(data) };
}

async function inFolder(fn: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The adapter that PEFT wrote, with changes of its config, without some tensors, or with others in their place. */
async function written(
  folder: string,
  config: Readonly<Record<string, unknown>> = {},
  changes: Readonly<Record<string, TensorData | undefined>> = {},
): Promise<string> {
  const tensors = new Map(Object.entries(fixture.tensors as Arrays).map(([key, t]) => [key, f32(t)]));
  for (const [key, tensor] of Object.entries(changes)) {
    if (tensor) tensors.set(key, tensor);
    else tensors.delete(key);
  }
  await writePeftFolder(`${folder}/a`, JSON.stringify({ ...fixture.config, ...config }), tensors, {
    replace: true,
  });
  return `${folder}/a`;
}

Deno.test("an adapter of experts that PEFT wrote makes PEFT's updates, and is written as it was", () =>
  inFolder(async (folder) => {
    const path = await written(folder);
    const adapter = await readPeftAdapter(path);
    assertEquals(adapter.experts, new Map([[`${EXPERTS}.gate_up_proj`, 3], [`${EXPERTS}.down_proj`, 3]]));
    for (const [name, { shape, data }] of Object.entries(fixture.updates as Arrays)) {
      const [experts, out, width] = shape as [number, number, number];
      const module = `${EXPERTS}.${name}`;
      const factors = ["A", "B"].map((side) => adapter.tensors.get(`${module}.lora_${side}.weight`)!);
      const [a, b] = factors as [TensorData, TensorData];
      const rank = b.shape[1]!;
      const scale = loraScaling(adapter.settings, module);
      const update = data.map((_, at) => {
        const [row, k] = [Math.floor(at / width), at % width];
        const e = Math.floor(row / out);
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += b.data[row * rank + r]! * a.data[(e * rank + r) * width + k]!;
        return scale * sum;
      });
      assertEquals(a.shape, [experts * rank, width]);
      assertWithin(update, data, 1e-5, name);
    }
    await writePeftAdapter(`${folder}/b`, adapter);
    const bytes = (name: string) => Deno.readFile(`${folder}/${name}/adapter_model.safetensors`);
    assertEquals(await bytes("b"), await bytes("a"));
    const config = JSON.parse(await Deno.readTextFile(`${folder}/b/adapter_config.json`));
    assertEquals(config, { ...fixture.config, peft_version: config.peft_version });
  }));

const half = f32({ shape: [2, 4], data: Array(8).fill(0) });
const missing = { [`${KEY}.lora_A.weight`]: undefined, [`${KEY}.lora_B.weight`]: undefined };
const WRONG: readonly [string, Record<string, unknown>, Record<string, TensorData | undefined>, string][] = [
  ["a wrapper too few", {}, {
    [`${KEY}.base_layer.lora_A.weight`]: undefined,
    [`${KEY}.base_layer.lora_B.weight`]: undefined,
  }, "has 1 adapted parameter, and target_parameters names gate_up_proj, down_proj"],
  ["the outer of two wrappers missing", {}, missing, "has 1 adapted parameter, and"],
  [
    "a factor missing",
    {},
    { [`${KEY}.lora_A.weight`]: undefined },
    `${EXPERTS}.down_proj.lora_A.weight is missing`,
  ],
  [
    "a wrapper too many",
    { target_parameters: ["experts.down_proj"] },
    {},
    "has 2 adapted parameters, and target_parameters names down_proj",
  ],
  [
    "parameters of another module",
    { target_parameters: ["feed_forward.down_proj"] },
    {},
    "names none of them",
  ],
  [
    "parameters in an order that is not known",
    { target_parameters: ["experts.down_proj", "experts.w1"] },
    {},
    "names w1 of model.layers.0.mlp.experts beside others",
  ],
  ["factors of half an expert", { rank_pattern: { "experts.down_proj": 2 } }, {}, "no number of experts"],
  ["factors of different numbers", {}, { [`${KEY}.base_layer.lora_A.weight`]: half }, "no number of experts"],
  ["no list", { target_parameters: "experts.down_proj" }, {}, "expected a list of parameter names"],
];

for (const [what, config, changes, says] of WRONG) {
  Deno.test(`readPeftAdapter() refuses ${what}`, () =>
    inFolder(async (folder) => {
      const path = await written(folder, config, changes);
      await assertRejects(() => readPeftAdapter(path), InputError, says);
    }));
}

Deno.test("readPeftAdapter() holds experts to those of the base model", () =>
  inFolder(async (folder) => {
    const path = await written(folder);
    const weights = new Map([["model.layers.0.self_attn.q_proj.weight", [4, 4]]]);
    const layers: ExpertsParameter[] = [
      { name: `${EXPERTS}.gate_up_proj`, experts: 3, out: 6, in: 4 },
      { name: `${EXPERTS}.down_proj`, experts: 3, out: 4, in: 3 },
    ];
    const read = (change: Partial<ExpertsParameter>) =>
      readPeftAdapter(path, weights, [layers[0]!, { ...layers[1]!, ...change }]);
    await read({});
    await assertRejects(() => read({ experts: 4 }), InputError, "has 4 experts, and the adapter 3");
    await assertRejects(() => read({ out: 5 }), InputError, "has shape [12, 1], expected [15, 1]");
    await assertRejects(() => read({ name: "other" }), InputError, "the base model has no experts");
    await assertRejects(() => readPeftAdapter(path, weights), InputError, "the base model has no experts");
  }));

Deno.test("writePeftAdapter() refuses experts that no target names, and writes one parameter alone", () =>
  inFolder(async (folder) => {
    const path = await written(folder);
    const { settings, tensors, experts } = await readPeftAdapter(path);
    const { targetParameters: _, ...untargeted } = settings;
    const write = () =>
      writePeftAdapter(`${folder}/no`, { settings: untargeted, tensors, experts: experts! });
    await assertRejects(write, InputError, "no entry of target_parameters names");
    const alone: LoraAdapter = {
      settings: { ...settings, targetModules: [], targetParameters: ["experts.gate_up_proj"] },
      tensors: new Map([...tensors].filter(([name]) => name.includes("gate_up"))),
      experts: new Map([[`${EXPERTS}.gate_up_proj`, 3]]),
    };
    await writePeftAdapter(`${folder}/alone`, alone);
    assertEquals(await readPeftAdapter(`${folder}/alone`), alone);
    assertEquals(JSON.parse(peftConfigJson(untargeted)).target_parameters, null);
  }));
