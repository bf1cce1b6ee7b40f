/**
 * GGUF files of the goldens' families: what is exported reads back as the model that transformers' values are of. Logits are computed in f64
 * with plain loops, from the file alone. Where llama.cpp's architecture has no place for what a golden computes, it is refused by name.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ggufTarget } from "../../src/distill/export/gguf_architecture.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { InputError } from "../../src/base/errors.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { writeGgufModel } from "../../src/formats/gguf/export.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { tinyGgufTokenizer } from "../formats/memory_model.ts";
import { referenceLogits } from "../models/reference_decoder.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { readArrays } from "./family_goldens.ts";

/** Goldens whose every tensor and field a GGUF file has a place for. */
const GOLDENS = [
  "llama3_rope",
  "llama_tied_bias",
  "mistral",
  "qwen2",
  "qwen3",
  "phi3",
  "phi3_longrope",
  "gemma2",
  "gemma3_text",
  "olmo2",
  "granite",
  "gpt2",
  "gpt_neox",
].map((name) => `families/${name}`).concat("map_neo/neo192");

const readJson = async (path: string) => JSON.parse(await Deno.readTextFile(path));

/** What computes logits [T, V] of a sequence. */
type Decoder = (tokens: readonly number[]) => Float64Array[];

async function decoderOf(model: Model): Promise<Decoder> {
  const values = new Map<string, Float32Array>();
  for (const name of model.architecture.tensors.keys()) {
    const { dtype, data } = await model.read(name);
    values.set(name, toFloat32(dtype, data));
  }
  const { family, config } = model.architecture;
  return (tokens) =>
    referenceLogits(config as DescribedConfig, family.names, (name) => values.get(name)!, tokens);
}

/** Writes the GGUF file of a model and opens it. */
async function exported(
  model: Model,
  body: (decode: Decoder, written: Model) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/model.gguf`;
    await writeGgufModel(path, {
      name: "golden",
      ...ggufTarget(model),
      tokenizer: tinyGgufTokenizer(),
      tensors: model.architecture.tensors,
      read: (name) => model.read(name),
    }, "F32");
    const written = await Model.open(path, { category: "weights" });
    await body(await decoderOf(written), written);
    written.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function worst(found: readonly Float64Array[], expected: ArrayLike<number>): number {
  const flat = found.flatMap((row) => [...row]);
  assertEquals(flat.length, expected.length);
  return flat.reduce((most, v, i) => {
    const difference = Math.abs(v - expected[i]!);
    return difference <= most ? most : difference;
  }, 0);
}

for (const name of GOLDENS) {
  sharedTest(`${name} as a GGUF file gives the reference's logits and tokens`, async () => {
    const folder = sharedPath(`goldens/${name}`);
    const model = await Model.open(folder, { category: "weights" });
    await exported(model, async (decode) => {
      const { ids } = await readJson(`${folder}/ids.json`) as { ids: number[][] };
      const logits = (await readArrays(`${folder}/expected.safetensors`)).get("logits")!;
      assert(worst(ids.flatMap((tokens) => decode(tokens)), logits) < 2e-4);
      const { prompt_ids, new_ids } = await readJson(`${folder}/greedy.json`);
      const tokens: number[] = [...prompt_ids];
      for (const expected of new_ids as number[]) {
        const last = decode(tokens).at(-1)!;
        tokens.push(last.indexOf(Math.max(...last)));
        assertEquals(tokens.at(-1), expected);
      }
    });
    model.close();
  });
}

sharedTest(
  "goldens of what llama.cpp computes otherwise are refused, and those of the rest of them are not",
  async () => {
    const { ids: [tokens] } = await readJson(sharedPath("goldens/families/qwen3_moe/ids.json")) as {
      ids: number[][];
    };
    for (
      const [name, message, layers] of [
        ["qwen3_moe", "qwen3moe cannot say what this model computes: layers.1.mlp.kind is gated", [0, 2]],
        ["smollm3", "smollm3 cannot say what this model computes: layers.1.attention.rotary is none", [0, 2]],
      ] as const
    ) {
      const folder = sharedPath(`goldens/families/${name}`);
      const whole = await Model.open(folder, { category: "weights" });
      assertThrows(() => ggufTarget(whole), InputError, message);
      whole.close();
      const rest = await Model.open(folder, { category: "weights", layers: [...layers] });
      const expected = (await decoderOf(rest))(tokens!);
      await exported(rest, (decode, { architecture }) => {
        assertEquals(architecture.family.name, name);
        const difference = worst(decode(tokens!), expected.flatMap((row) => [...row]));
        assert(difference < 1e-9, `${name}: ${difference}`);
        return Promise.resolve();
      });
      rest.close();
    }
  },
);
