/** GGUF files of families beside Llama, as exports of models: what is refused, what is warned of, and quantised ones on the GPU. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { writeModelFolder } from "../../src/distill/export/exports.ts";
import { exportGguf } from "../../src/distill/export/export_model.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import type { GgufStorage } from "../../src/formats/gguf/export.ts";
import { writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { fittingConfig, memoryModel, tinyGgufTokenizer } from "../formats/memory_model.ts";
import { referenceLogits } from "../models/reference_decoder.ts";
import { ARCHITECTURES, tinyConfig } from "../models/tiny_configs.ts";
import { modelTest } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import { TINY_VOCABULARY } from "./tiny_model.ts";

/** Writes a folder of a tiny model and its GGUF file. */
async function exported(
  architecture: string,
  changes: Record<string, unknown>,
  storage: GgufStorage,
  body: (path: string, warnings: readonly string[], types: ReadonlySet<string>) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const config = { ...tinyConfig(architecture, TINY_VOCABULARY), ...changes };
    const { architecture: { tensors }, read } = memoryModel(config, 3);
    await writeHuggingFaceFolder(
      `${folder}/model`,
      { config, tokenizer: tinyGgufTokenizer(), tensors, read },
      { dtype: "f32" },
    );
    const warnings: string[] = [];
    const types = new Set<string>();
    await exportGguf(`${folder}/model`, `${folder}/model.gguf`, {
      ...{ name: "tiny", storage },
      report: (chosen) => chosen.forEach(({ type }) => types.add(type)),
      warn: (message) => warnings.push(message),
    });
    await body(`${folder}/model.gguf`, warnings, types);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a model of which llama.cpp would compute something else is refused, naming what", async () => {
  const nothing = () => Promise.reject(new Error("was written"));
  for (
    const [architecture, changes, message] of [
      [
        "SmolLM3ForCausalLM",
        {},
        "layers.1.attention.rotary is none, and given in all that such a file can say",
      ],
      ["Qwen3MoeForCausalLM", {}, "layers.1.mlp.kind is gated, and experts"],
      [
        "Qwen3MoeForCausalLM",
        { mlp_only_layers: [], norm_topk_prob: false },
        "mlp.normalised is false, and true",
      ],
      [
        "Qwen3ForCausalLM",
        { use_sliding_window: true, sliding_window: 8, max_window_layers: 1 },
        "layers.1.attention.window is 8, and none",
      ],
      [
        "Qwen3ForCausalLM",
        { attention_bias: true },
        "layers.0.attention.projections.queries.bias is true, and false",
      ],
      ["GPT2LMHeadModel", { scale_attn_weights: false }, "layers.0.attention.scale is 1, and 0.35355"],
      ["GPTNeoXForCausalLM", { hidden_act: "gelu_new" }, "layers.0.mlp.activation is gelu_tanh, and gelu"],
      [
        "Qwen2ForCausalLM",
        {
          rope_scaling: {
            ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
            original_max_position_embeddings: 32,
          },
        },
        "inverseFrequencies.",
      ],
      ["Qwen2ForCausalLM", { head_dim: 12 }, "4 heads of 12 are not as wide as the hidden states, 32"],
    ] as const
  ) {
    const error = await assertRejects(() => exported(architecture, changes, "F32", nothing), InputError);
    assertStringIncludes(error.message, message);
    assert(error.hint?.includes("merged"), architecture);
  }
});

Deno.test("a window that llama.cpp does not heed is in the file, and warned of", async () => {
  for (const architecture of ["MistralForCausalLM", "Phi3ForCausalLM"]) {
    await exported(architecture, {}, "F32", async (path, warnings) => {
      assertEquals(warnings.length, 1);
      assertStringIncludes(warnings[0]!, "beyond 8 tokens, the model's window");
      const model = await Model.open(path, { category: "weights" });
      assertEquals((model.config as DescribedConfig).description.layers[1]!.attention.window, 8);
      model.close();
    });
  }
  await exported("Gemma2ForCausalLM", {}, "F32", (_, warnings) => {
    assertEquals(warnings, []);
    return Promise.resolve();
  });
});

Deno.test("a folder written of a GGUF file is the model of the file, and so is the file of that folder", async () => {
  for (const architecture of ARCHITECTURES) {
    await exported(architecture, fittingConfig(architecture), "F32", async (path) => {
      const file = await Model.open(path, { category: "weights" });
      await writeModelFolder(`${path}.folder`, file);
      await exportGguf(`${path}.folder`, `${path}.again.gguf`, { name: "tiny", storage: "F32" });
      const folder = await Model.open(`${path}.folder`, { category: "weights" });
      assertEquals(folder.config, file.config, architecture);
      for (const name of file.architecture.tensors.keys()) {
        assertEquals(
          (await folder.read(name)).data,
          (await file.read(name)).data,
          `${architecture}: ${name}`,
        );
      }
      file.close();
      folder.close();
      // Gemma's norms are rounded once more when they lose their one.
      if (!architecture.startsWith("Gemma")) {
        assertEquals(await parts(`${path}.again.gguf`), await parts(path), architecture);
      }
    });
  }
});

/** All of a file but its tokenizer. */
async function parts(path: string): Promise<unknown> {
  const file = await GgufFile.open(await openFile(path));
  const tensors = new Map<string, unknown>();
  for (const [name, { type, shape, begin, end }] of file.tensors) {
    tensors.set(name, [type.name, shape, await file.source.read(begin, end - begin)]);
  }
  file.close();
  return [[...file.metadata].filter(([key]) => !key.startsWith("tokenizer.")), tensors];
}

/** Rows are whole blocks of 32, and no whole blocks of 256. */
const WIDE = { hidden_size: 64, intermediate_size: 96 };
const TOKENS = Array.from({ length: 19 }, (_, i) => 3 + (i * i * 7 + 5 * i) % (TINY_VOCABULARY - 3));

for (
  const [architecture, storage, changes, expected] of [
    ["GPTNeoXForCausalLM", "Q4_K_M", {}, "F32 Q5_0 Q8_0"],
    [
      "Qwen3MoeForCausalLM",
      "Q8_0",
      { mlp_only_layers: [], head_dim: 16, moe_intermediate_size: 32 },
      "F32 Q8_0",
    ],
  ] as const
) {
  modelTest(
    `a ${architecture} in ${storage} computes on the GPU what its dequantised weights do`,
    (gpu) =>
      exported(architecture, { ...WIDE, ...changes }, storage, async (path, _, types) => {
        assertEquals([...types].sort().join(" "), expected);
        const model = await Model.open(path, { category: "weights" });
        const values = new Map<string, Float32Array>();
        for (const name of model.architecture.tensors.keys()) {
          const { dtype, data } = await model.source.read(name);
          values.set(name, toFloat32(dtype, data));
        }
        const { family, config } = model.architecture;
        const wanted = referenceLogits(
          config as DescribedConfig,
          family.names,
          (name) => values.get(name)!,
          TOKENS,
        )
          .flatMap((row) => [...row]);
        using reader = await Reader.open(gpu, model, TOKENS.length);
        const found = await reader.logits(Int32Array.from(TOKENS));
        const largest = wanted.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
        wanted.forEach((v, i) =>
          assert(Math.abs(found[i]! - v) <= 2e-5 * largest, `logit ${i}: ${found[i]}, not ${v}`)
        );
        model.close();
      }),
  );
}
