/** GGUF files of every family: names, layouts and hyperparameters as llama.cpp's converters write them, and reading them back. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { ggufArchitecture } from "../../src/formats/gguf/architectures.ts";
import { pickRows, rangesOf } from "../../src/formats/gguf/architectures/rows.ts";
import { ggufConfig } from "../../src/formats/gguf/config.ts";
import { configOnceWritten, writeGgufModel } from "../../src/formats/gguf/export.ts";
import { GgufFile, type GgufValue } from "../../src/formats/gguf/gguf.ts";
import { openGgufModel } from "../../src/formats/gguf/model.ts";
import { unpackGguf } from "../../src/formats/gguf/types.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { tensorProblems } from "../../src/models/weights.ts";
import { ARCHITECTURES } from "../models/tiny_configs.ts";
import { referenceLogits } from "../models/reference_decoder.ts";
import { fittingConfig, ggufModel, type MemoryModel, memoryModel, ROWS, withGguf } from "./memory_model.ts";

/** Longer than every window, and than the first context of the Phi-3. */
const TOKENS = Array.from({ length: 19 }, (_, i) => 3 + (i * i * 7 + 5 * i) % (ROWS - 3));

const USUAL = "attn_norm attn_q attn_k attn_v attn_output ffn_norm";
const GATED = "ffn_gate ffn_up ffn_down";
const WITH_BIASES = (names: string) => names.split(" ").flatMap((name) => [name, `${name}.bias`]).join(" ");

/** The tensors of a layer, by what gguf-py calls them (`gguf/tensor_mapping.py`). */
const LAYERS: Readonly<Record<string, string>> = {
  LlamaForCausalLM: `attn_norm ffn_norm ${WITH_BIASES("attn_q attn_k attn_v attn_output")} ${
    WITH_BIASES(GATED)
  }`,
  MistralForCausalLM: `${USUAL} ${GATED}`,
  Qwen2ForCausalLM: `${USUAL} ${GATED} attn_q.bias attn_k.bias attn_v.bias`,
  Qwen3ForCausalLM: `${USUAL} ${GATED} attn_q_norm attn_k_norm`,
  Qwen3MoeForCausalLM:
    `${USUAL} attn_q_norm attn_k_norm ffn_gate_inp ffn_gate_exps ffn_up_exps ffn_down_exps`,
  SmolLM3ForCausalLM: `${USUAL} ${GATED}`,
  Phi3ForCausalLM: "attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down",
  Gemma2ForCausalLM: `${USUAL} ${GATED} post_attention_norm post_ffw_norm`,
  Gemma3ForCausalLM: `${USUAL} ${GATED} post_attention_norm post_ffw_norm attn_q_norm attn_k_norm`,
  Olmo2ForCausalLM:
    `attn_q attn_k attn_v attn_output ${GATED} attn_q_norm attn_k_norm post_attention_norm post_ffw_norm`,
  GraniteForCausalLM: `${USUAL} ${GATED}`,
  GPT2LMHeadModel: WITH_BIASES("attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down"),
  GPTNeoXForCausalLM: WITH_BIASES("attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down"),
};

const half = Math.fround;

/** What each architecture has beside the keys that all have. */
const METADATA: Readonly<Record<string, readonly [name: string, keys: Record<string, GgufValue>]>> = {
  LlamaForCausalLM: ["llama", { "rope.dimension_count": 8, "rope.freq_base": 10000 }],
  MistralForCausalLM: ["llama", {
    ...{ "attention.sliding_window": 8, "rope.dimension_count": 8, "rope.freq_base": 10000 },
  }],
  Qwen2ForCausalLM: ["qwen2", { "rope.dimension_count": 8, "rope.freq_base": 10000 }],
  Qwen3ForCausalLM: ["qwen3", { "rope.dimension_count": 12, "rope.freq_base": 10000 }],
  Qwen3MoeForCausalLM: ["qwen3moe", {
    ...{ "rope.dimension_count": 8, "rope.freq_base": 10000 },
    ...{ "expert_count": 3, "expert_used_count": 2, "expert_feed_forward_length": 20 },
  }],
  SmolLM3ForCausalLM: ["smollm3", { "rope.dimension_count": 8, "rope.freq_base": 10000 }],
  Phi3ForCausalLM: ["phi3", {
    ...{ "rope.dimension_count": 4, "rope.freq_base": 10000, "attention.sliding_window": 8 },
    "rope.scaling.original_context_length": 16,
    "rope.scaling.type": "longrope",
    "rope.scaling.attn_factor": half(Math.sqrt(1 + Math.log(4) / Math.log(16))),
  }],
  Gemma2ForCausalLM: ["gemma2", {
    ...{ "rope.dimension_count": 12, "rope.freq_base": 10000, "attention.sliding_window": 8 },
    ...{ "attn_logit_softcapping": 3, "final_logit_softcapping": 6 },
  }],
  Gemma3ForCausalLM: ["gemma3", {
    ...{ "rope.dimension_count": 12, "rope.freq_base": 10000, "rope.freq_base_swa": 100 },
    ...{ "attention.sliding_window": 8, "attention.sliding_window_pattern": 2 },
  }],
  Olmo2ForCausalLM: ["olmo2", { "rope.dimension_count": 8, "rope.freq_base": 10000 }],
  GraniteForCausalLM: ["granite", {
    ...{ "rope.dimension_count": 8, "rope.freq_base": 10000 },
    "attention.scale": half(0.4),
    "embedding_scale": 6,
    "residual_scale": half(0.6),
    "logit_scale": 3,
  }],
  GPT2LMHeadModel: ["gpt2", {}],
  GPTNeoXForCausalLM: ["gptneox", {
    ...{ "rope.dimension_count": 4, "rope.freq_base": 10000, "use_parallel_residual": true },
  }],
};

/** Gemma's norms are stored one larger, and the scale of its scores is in its queries. */
function isChanged(architecture: string, name: string): boolean {
  return /^Gemma/.test(architecture) && /norm|q_proj/.test(name);
}

for (const architecture of ARCHITECTURES) {
  Deno.test(`the GGUF file of a ${architecture} is as llama.cpp's converter has it, and reads back`, async () => {
    const model = memoryModel(fittingConfig(architecture));
    await withGguf(model, async (path) => {
      const file = await GgufFile.open(await openFile(path));
      const inLayer = [...file.tensors.keys()].filter((name) => name.startsWith("blk.1."))
        .map((name) => name.slice("blk.1.".length).replace(/\.weight$/, ""));
      assertEquals(inLayer.sort(), LAYERS[architecture]!.split(" ").sort());
      const [name, keys] = METADATA[architecture]!;
      assertEquals(file.metadata.get("general.architecture"), name);
      const { config } = model.architecture;
      const epsilon = /^GPT/.test(architecture) ? "layer_norm_epsilon" : "layer_norm_rms_epsilon";
      assertEquals(
        Object.fromEntries([...file.metadata].filter(([key]) => key.startsWith(`${name}.`))),
        Object.fromEntries(
          Object.entries<GgufValue>({
            ...{ "vocab_size": ROWS, "context_length": 64, "embedding_length": 32 },
            "block_count": config.layers,
            "feed_forward_length": config.intermediateSize,
            "attention.head_count": 4,
            "attention.head_count_kv": config.keyValueHeads,
            "attention.key_length": config.headDim,
            "attention.value_length": config.headDim,
            [`attention.${epsilon}`]: half(1e-5),
            ...keys,
          }).map(([key, value]) => [`${name}.${key}`, value]),
        ),
      );
      file.close();

      const again = await openGgufModel(path);
      const read = readArchitecture(again.config, path);
      assertEquals(tensorProblems(read, again.tensors), []);
      assertEquals([...again.tensors.keys()].sort(), [...model.values.keys()].sort());
      const values = new Map<string, ArrayLike<number>>();
      for (const [name, expected] of model.values) {
        const { dtype, shape, data } = await again.read(name);
        assertEquals([dtype, shape], ["f32", model.architecture.tensors.get(name)], name);
        if (!isChanged(architecture, name)) assertEquals(data, expected, name);
        values.set(name, data);
      }
      const logits = ({ config, family }: typeof read, values: ReadonlyMap<string, ArrayLike<number>>) =>
        referenceLogits(config as DescribedConfig, family.names, (name) => values.get(name)!, TOKENS)
          .flatMap((row) => [...row]);
      const [expected, found] = [logits(model.architecture, model.values), logits(read, values)];
      found.forEach((logit, i) => assertAlmostEquals(logit, expected[i]!, 1e-5));
      await checkRanges(again);
      again.close();
    });
  });
}

/** Rows and blocks of every tensor, from and to anywhere. */
async function checkRanges(model: Awaited<ReturnType<typeof openGgufModel>>): Promise<void> {
  for (const [name, { shape }] of model.tensors) {
    const { data } = await model.read(name);
    const [rows, width = 1] = shape as [number, number?];
    for (const [first, count] of [[0, 1], [rows - 2, 2], [Math.floor(rows / 3), Math.floor(rows / 2)]]) {
      const expected = data.slice(first! * width, (first! + count!) * width);
      assertEquals((await model.readRows(name, first!, count!)).data, expected, name);
      if (shape.length < 2) continue;
      assertEquals(unpackGguf("F32", await model.readBlocks!(name, first!, count!)), expected, name);
    }
    await assertRejects(() => model.readRows(name, rows - 1, 2), InputError, name);
  }
}

/** Values of a tensor of the file itself, by rows. */
async function rowsIn(path: string, name: string): Promise<Float32Array[]> {
  const file = await GgufFile.open(await openFile(path));
  const { shape } = file.entry(name);
  const data = (await file.read(name)).data as Float32Array;
  file.close();
  const width = shape.length === 1 ? 1 : shape.at(-1)!;
  return Array.from({ length: data.length / width }, (_, r) => data.slice(r * width, (r + 1) * width));
}

function rowsOf(model: MemoryModel, name: string): Float32Array[] {
  const data = model.values.get(name)!;
  const width = model.architecture.tensors.get(name)![1] ?? 1;
  return Array.from({ length: data.length / width }, (_, r) => data.slice(r * width, (r + 1) * width));
}

Deno.test("rows of files lie where llama.cpp looks for them", async () => {
  // Heads of 8: row i of the first half of a head goes to 2i, row i of the second to 2i + 1.
  const granite = memoryModel(fittingConfig("GraniteForCausalLM"));
  await withGguf(granite, async (path) => {
    const [stored, own] = [
      await rowsIn(path, "blk.0.attn_k.weight"),
      rowsOf(granite, "model.layers.0.self_attn.k_proj.weight"),
    ];
    for (let head = 0; head < 2; head++) {
      for (let i = 0; i < 4; i++) {
        assertEquals(stored[8 * head + 2 * i], own[8 * head + i]);
        assertEquals(stored[8 * head + 2 * i + 1], own[8 * head + 4 + i]);
      }
    }
    assertEquals(
      await rowsIn(path, "blk.0.attn_v.weight"),
      rowsOf(granite, "model.layers.0.self_attn.v_proj.weight"),
    );
  });
  const neox = memoryModel(fittingConfig("GPTNeoXForCausalLM"));
  await withGguf(neox, async (path) => {
    for (const kind of ["weight", "bias"]) {
      const stored = await rowsIn(path, `blk.1.attn_qkv.${kind}`);
      const own = rowsOf(neox, `gpt_neox.layers.1.attention.query_key_value.${kind}`);
      for (let part = 0; part < 3; part++) {
        for (let head = 0; head < 4; head++) {
          for (let i = 0; i < 8; i++) {
            assertEquals(stored[part * 32 + head * 8 + i], own[(head * 3 + part) * 8 + i]);
          }
        }
      }
    }
  });
  const mixture = memoryModel(fittingConfig("Qwen3MoeForCausalLM"));
  await withGguf(mixture, async (path) => {
    const stored = await rowsIn(path, "blk.1.ffn_down_exps.weight");
    const own = [0, 1, 2].flatMap((e) => rowsOf(mixture, `model.layers.1.mlp.experts.${e}.down_proj.weight`));
    assertEquals(stored, own);
    const file = await GgufFile.open(await openFile(path));
    assertEquals(file.entry("blk.1.ffn_down_exps.weight").shape, [3, 32, 20]);
    file.close();
  });
});

Deno.test("rows that lie far apart are read in ranges, and come in the order that they were asked for", () => {
  const wanted = Uint32Array.of(400, 5, 200, 6, 401);
  const ranges = rangesOf(wanted);
  assertEquals(ranges, [{ first: 5, count: 2 }, { first: 200, count: 1 }, { first: 400, count: 2 }]);
  const read = ranges.map(({ first, count }) =>
    Float32Array.from({ length: 2 * count }, (_, i) => 2 * first + i)
  );
  const expected = [...wanted].flatMap((row) => [2 * row, 2 * row + 1]);
  assertEquals([...pickRows(wanted, ranges, read)], expected);
});

Deno.test("Gemma's norms have their one in the file, and the scale of its scores is in its queries", async () => {
  // llama.cpp divides scores by sqrt(12), the width of a head, and the configs by sqrt(10).
  const ratio = Math.sqrt(12 / 10);
  for (
    const [architecture, scaled, own] of [
      ["Gemma2ForCausalLM", "attn_q", "self_attn.q_proj"],
      ["Gemma3ForCausalLM", "attn_q_norm", "self_attn.q_norm"],
    ] as const
  ) {
    const model = memoryModel(fittingConfig(architecture));
    await withGguf(model, async (path) => {
      const flat = async (name: string) => (await rowsIn(path, name)).flatMap((row) => [...row]);
      const norm = model.values.get("model.layers.1.pre_feedforward_layernorm.weight")!;
      assertEquals(await flat("blk.1.ffn_norm.weight"), [...norm.map((v) => v + 1)]);
      const one = scaled === "attn_q_norm" ? 1 : 0;
      const queries = model.values.get(`model.layers.1.${own}.weight`)!;
      (await flat(`blk.1.${scaled}.weight`)).forEach((v, i) =>
        assertAlmostEquals(v, (queries[i]! + one) * ratio, 1e-6)
      );
      const keys = model.values.get("model.layers.1.self_attn.k_proj.weight")!;
      assertEquals(await flat("blk.1.attn_k.weight"), [...keys]);
    });
  }
});

Deno.test("vectors, routers and learned positions stay f32, and experts are quantised each", async () => {
  const model = memoryModel(
    fittingConfig("Qwen3MoeForCausalLM", { hidden_size: 64, moe_intermediate_size: 64, head_dim: 16 }),
  );
  await withGguf(model, async (path) => {
    const again = await openGgufModel(path);
    for (const [name, { dtype, shape }] of again.tensors) {
      const kept = shape.length === 1 || name.endsWith("mlp.gate.weight");
      assertEquals(dtype, kept ? "F32" : "Q8_0", name);
      const { data } = await again.read(name);
      const scale = kept ? 0 : 1 / 127;
      data.forEach((v, i) => assert(Math.abs(v - model.values.get(name)![i]!) <= scale, name));
      if (kept) continue;
      const blocks = unpackGguf("Q8_0", await again.readBlocks!(name, 5, 7));
      assertEquals(blocks, data.slice(5 * shape[1]!, 12 * shape[1]!), name);
    }
    again.close();
  }, "Q8_0");
  const alone = memoryModel(fittingConfig("Qwen3MoeForCausalLM", { num_experts: 1, num_experts_per_tok: 1 }));
  await withGguf(alone, async (path) => {
    const again = await openGgufModel(path);
    assertEquals(again.tensors.get("model.layers.0.mlp.experts.0.up_proj.weight")?.shape, [20, 32]);
    again.close();
  });
  const gpt2 = memoryModel(fittingConfig("GPT2LMHeadModel"));
  await withGguf(gpt2, async (path) => {
    const again = await openGgufModel(path);
    assertEquals(again.tensors.get("transformer.wpe.weight")!.dtype, "F32");
    assertEquals(again.tensors.get("transformer.wte.weight")!.dtype, "F16");
    again.close();
  }, "F16");
});

Deno.test("the head of an architecture that has one in every file is written where it is tied, too", async () => {
  const model = memoryModel(fittingConfig("Olmo2ForCausalLM", { tie_word_embeddings: true }));
  await withGguf(model, async (path) => {
    const again = await openGgufModel(path);
    assertEquals(again.config.tie_word_embeddings, false);
    assertEquals((await again.read("lm_head.weight")).data, model.values.get("model.embed_tokens.weight"));
    again.close();
  });
});

Deno.test("a head of its own has no place in an architecture that takes the embedding", async () => {
  const model = ggufModel(memoryModel(fittingConfig("Gemma2ForCausalLM", { tie_word_embeddings: false })));
  await assertRejects(
    () => writeGgufModel("/nowhere/a.gguf", model),
    InputError,
    "tensor lm_head.weight has no place in a GGUF file of the architecture gemma2",
  );
});

Deno.test("rotary scalings are written as the architecture has a place for them", () => {
  const fields = (architecture: string, changes: Record<string, unknown>) => {
    const config = fittingConfig(architecture, changes);
    const { config: parsed, tensors, family } = readArchitecture(config, "memory");
    const read = configOnceWritten({ architecture: family.gguf!, config: parsed, tensors }, "memory");
    const again = readArchitecture(read, "memory").config;
    return {
      read,
      same: parsed.inverseFrequencies.every((f, i) => Math.abs(again.inverseFrequencies[i]! / f - 1) < 1e-6),
    };
  };
  const linear = { rope_scaling: { rope_type: "linear", factor: 4 } };
  const llama3 = {
    rope_scaling: {
      ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
      original_max_position_embeddings: 32,
    },
  };
  const key = fields("Qwen3ForCausalLM", linear);
  assertEquals([key.read.rope_scaling, key.same], [linear.rope_scaling, true]);
  const tensor = fields("GraniteForCausalLM", llama3);
  assertEquals([(tensor.read.rope_frequency_factors as number[]).length, tensor.same], [4, true]);
  // No key and no tensor of Qwen3's holds other frequencies.
  assertEquals(fields("Qwen3ForCausalLM", llama3).same, false);
  // Layers of Gemma 3 within a window are never scaled.
  const gemma = fields("Gemma3ForCausalLM", linear);
  assertEquals([gemma.read.rope_scaling, gemma.read.rope_local_base_freq], [linear.rope_scaling, 100]);
});

Deno.test("layers within a window are told by a number, or by a list where they follow no rule", () => {
  const types = (slides: readonly boolean[]) =>
    slides.map((slides) => slides ? "sliding_attention" : "full_attention");
  for (
    const [slides, expected] of [
      [[true, false, true, false], undefined],
      [[true, true, false, true], 3],
      [[false, true, true, false], "list"],
      [[true, true, true, true], "list"],
    ] as const
  ) {
    const config = fittingConfig("Gemma2ForCausalLM", { num_hidden_layers: 4, layer_types: types(slides) });
    const model = memoryModel(config);
    const keys = configOnceWritten(ggufModel(model), "memory");
    assertEquals(keys.layer_types, types(slides), String(expected));
  }
});

Deno.test("an unknown architecture is refused with the nearest, and keys of unknown meaning by name", async () => {
  const model = ggufModel(memoryModel(fittingConfig("Qwen3ForCausalLM")));
  const error = await assertRejects(
    () => writeGgufModel("/nowhere/a.gguf", { ...model, architecture: "qwen4" }),
    InputError,
    'general.architecture is "qwen4", which is not supported; did you mean "qwen2"?',
  );
  assert(error.hint?.includes("gptneox"));
  const read = (keys: Record<string, GgufValue>) => {
    const metadata = new Map<string, GgufValue>(Object.entries({
      ...{ "qwen3.block_count": 2, "qwen3.embedding_length": 32, "qwen3.feed_forward_length": 44 },
      ...{ "qwen3.attention.head_count": 4, "qwen3.context_length": 64, "qwen3.vocab_size": 9 },
      "qwen3.attention.layer_norm_rms_epsilon": Math.fround(1e-6),
      ...keys,
    }));
    const header = { where: "a.gguf", metadata, tensors: new Map(), rope: new Map() };
    return ggufConfig(ggufArchitecture("qwen3", "a.gguf"), header);
  };
  assertEquals(read({ "qwen3.attention.causal": true, "qwen3.expert_count": 0 }).rms_norm_eps, 1e-6);
  const noPositions = new Map<string, GgufValue>(Object.entries({
    ...{ "granite.embedding_length": 32, "granite.attention.head_count": 4 },
    "granite.rope.scaling.finetuned": false,
  }));
  assertThrows(
    () =>
      ggufConfig(ggufArchitecture("granite", "a"), {
        ...{ where: "a.gguf", tensors: new Map(), rope: new Map(), metadata: noPositions },
      }),
    InputError,
    "granite.rope.scaling.finetuned is false",
  );
  for (
    const [key, value, message] of [
      ["attention.causal", false, "qwen3.attention.causal is false, which is not supported"],
      ["expert_count", 8, "qwen3.expert_count is 8"],
      ["attention.sliding_window", 16, "qwen3.attention.sliding_window is 16"],
      ["rope.dimension_sections", Int32Array.of(1, 2), "qwen3.rope.dimension_sections is a list"],
      ["rope.dimension_count", 4, "qwen3.rope.dimension_count is 4; only the width of a head, 8"],
      ["attention.value_length", 16, "qwen3.attention.value_length is 16; only the width of a head, 8"],
      ["attention.head_count", Uint32Array.of(4, 4), "qwen3.attention.head_count is not a single number"],
      ["something.new", "x", "qwen3.something.new is x"],
    ] as const
  ) assertThrows(() => read({ [`qwen3.${key}`]: value }), InputError, message);
  assertThrows(
    () =>
      ggufConfig(ggufArchitecture("granite", "a"), {
        ...{ where: "a.gguf", tensors: new Map(), rope: new Map() },
        metadata: new Map([["granite.embedding_length", 32]]),
      }),
    InputError,
    "granite.attention.head_count is missing",
  );
});

Deno.test("a model whose heads are not as wide as its hidden states is refused where llama.cpp needs it", async () => {
  const model = ggufModel(memoryModel(fittingConfig("Qwen2ForCausalLM", { head_dim: 12 })));
  await assertRejects(() => writeGgufModel("/nowhere/a.gguf", model), InputError, "4 heads of 12");
});
