/** What each family's record makes of a small config: the tensors of its first layer, its linear layers, what is said of its layers. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import type { DescribedConfig, LayerDescription } from "../../src/models/decoder/description.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { tensorProblems } from "../../src/models/weights.ts";
import { ARCHITECTURES, tinyConfig } from "./tiny_configs.ts";

/** Tensors of the first layer that has no sibling of another kind, in the order of the forward pass: name and shape. */
const LAYERS: Readonly<Record<string, string>> = {
  LlamaForCausalLM:
    "input_layernorm 32 | self_attn.q_proj+ 32x32 | self_attn.k_proj+ 16x32 | self_attn.v_proj+ 16x32 | " +
    "self_attn.o_proj+ 32x32 | post_attention_layernorm 32 | mlp.gate_proj+ 44x32 | mlp.up_proj+ 44x32 | mlp.down_proj+ 32x44",
  MistralForCausalLM:
    "input_layernorm 32 | self_attn.q_proj 32x32 | self_attn.k_proj 16x32 | self_attn.v_proj 16x32 | " +
    "self_attn.o_proj 32x32 | post_attention_layernorm 32 | mlp.gate_proj 44x32 | mlp.up_proj 44x32 | mlp.down_proj 32x44",
  Qwen2ForCausalLM:
    "input_layernorm 32 | self_attn.q_proj+ 32x32 | self_attn.k_proj+ 16x32 | self_attn.v_proj+ 16x32 | " +
    "self_attn.o_proj 32x32 | post_attention_layernorm 32 | mlp.gate_proj 44x32 | mlp.up_proj 44x32 | mlp.down_proj 32x44",
  Qwen3ForCausalLM:
    "input_layernorm 32 | self_attn.q_proj 48x32 | self_attn.q_norm 12 | self_attn.k_proj 24x32 | " +
    "self_attn.k_norm 12 | self_attn.v_proj 24x32 | self_attn.o_proj 32x48 | post_attention_layernorm 32 | " +
    "mlp.gate_proj 44x32 | mlp.up_proj 44x32 | mlp.down_proj 32x44",
  Qwen3MoeForCausalLM:
    "input_layernorm 32 | self_attn.q_proj 32x32 | self_attn.q_norm 8 | self_attn.k_proj 16x32 | " +
    "self_attn.k_norm 8 | self_attn.v_proj 16x32 | self_attn.o_proj 32x32 | post_attention_layernorm 32 | mlp.gate 3x32 | " +
    [0, 1, 2].map((e) => `mlp.experts.${e}.gate_proj 20x32`).join(" | ") + " | " +
    [0, 1, 2].map((e) => `mlp.experts.${e}.up_proj 20x32`).join(" | ") + " | " +
    [0, 1, 2].map((e) => `mlp.experts.${e}.down_proj 32x20`).join(" | "),
  SmolLM3ForCausalLM:
    "input_layernorm 32 | self_attn.q_proj 32x32 | self_attn.k_proj 16x32 | self_attn.v_proj 16x32 | " +
    "self_attn.o_proj 32x32 | post_attention_layernorm 32 | mlp.gate_proj 44x32 | mlp.up_proj 44x32 | mlp.down_proj 32x44",
  Phi3ForCausalLM: "input_layernorm 32 | self_attn.qkv_proj 64x32 | self_attn.o_proj 32x32 | " +
    "post_attention_layernorm 32 | mlp.gate_up_proj 88x32 | mlp.down_proj 32x44",
  Gemma2ForCausalLM:
    "input_layernorm 32 | self_attn.q_proj 48x32 | self_attn.k_proj 24x32 | self_attn.v_proj 24x32 | " +
    "self_attn.o_proj 32x48 | post_attention_layernorm 32 | pre_feedforward_layernorm 32 | mlp.gate_proj 44x32 | " +
    "mlp.up_proj 44x32 | mlp.down_proj 32x44 | post_feedforward_layernorm 32",
  Gemma3ForCausalLM:
    "input_layernorm 32 | self_attn.q_proj 48x32 | self_attn.q_norm 12 | self_attn.k_proj 24x32 | " +
    "self_attn.k_norm 12 | self_attn.v_proj 24x32 | self_attn.o_proj 32x48 | post_attention_layernorm 32 | " +
    "pre_feedforward_layernorm 32 | mlp.gate_proj 44x32 | mlp.up_proj 44x32 | mlp.down_proj 32x44 | " +
    "post_feedforward_layernorm 32",
  Olmo2ForCausalLM:
    "self_attn.q_proj 32x32 | self_attn.q_norm 32 | self_attn.k_proj 16x32 | self_attn.k_norm 16 | " +
    "self_attn.v_proj 16x32 | self_attn.o_proj 32x32 | post_attention_layernorm 32 | mlp.gate_proj 44x32 | " +
    "mlp.up_proj 44x32 | mlp.down_proj 32x44 | post_feedforward_layernorm 32",
  GraniteForCausalLM:
    "input_layernorm 32 | self_attn.q_proj 32x32 | self_attn.k_proj 16x32 | self_attn.v_proj 16x32 | " +
    "self_attn.o_proj 32x32 | post_attention_layernorm 32 | mlp.gate_proj 44x32 | mlp.up_proj 44x32 | mlp.down_proj 32x44",
  GPT2LMHeadModel:
    "ln_1+ 32 | attn.c_attn+ 96x32 | attn.c_proj+ 32x32 | ln_2+ 32 | mlp.c_fc+ 128x32 | mlp.c_proj+ 32x128",
  GPTNeoXForCausalLM: "input_layernorm+ 32 | attention.query_key_value+ 96x32 | attention.dense+ 32x32 | " +
    "post_attention_layernorm+ 32 | mlp.dense_h_to_4h+ 44x32 | mlp.dense_4h_to_h+ 32x44",
};

const tiny = (architecture: string, more: Record<string, unknown> = {}) =>
  readArchitecture({ ...tinyConfig(architecture, 100), ...more }, "config.json");
const described = (architecture: string, more: Record<string, unknown> = {}) =>
  (tiny(architecture, more).config as DescribedConfig).description;

/** The tensors that a line of {@linkcode LAYERS} means: a plus stands for a bias. */
function written(layer: string, line: string): [string, number[]][] {
  return line.split(" | ").flatMap((entry): [string, number[]][] => {
    const [name, size] = entry.split(" ") as [string, string];
    const shape = size.split("x").map(Number);
    const module = `${layer}.${name.replace("+", "")}`;
    return [
      [`${module}.weight`, shape],
      ...(name.endsWith("+") ? [[`${module}.bias`, [shape[0]!]] as [string, number[]]] : []),
    ];
  });
}

for (const architecture of ARCHITECTURES) {
  Deno.test(`the first layer of a ${architecture} has these tensors, and adapters see those of two dimensions`, () => {
    const { tensors, linearLayers, family } = tiny(architecture);
    const layer = `${family.names.layers}.0`;
    const own = [...tensors].filter(([name]) => name.startsWith(`${layer}.`));
    assertEquals(own, written(layer, LAYERS[architecture]!));
    // What chooses experts, and the experts, stay as they are.
    const adapted = own.filter(([name, shape]) =>
      shape.length === 2 && !/\.(mlp\.gate|experts\..*)\.weight$/.test(name)
    );
    assertEquals(
      linearLayers.filter(({ name }) => name.startsWith(`${layer}.`)).map((
        { name, out, in: width },
      ) => [name, out, width]),
      adapted.map(([name, [out, width]]) => [name.slice(0, -".weight".length), out!, width!]),
    );
  });
}

Deno.test("what differs by layer follows from the place of a layer, or from a list", () => {
  const windows = (layers: readonly LayerDescription[]) => layers.map(({ attention }) => attention.window);
  const rotated = (layers: readonly LayerDescription[]) =>
    layers.map(({ attention }) => attention.rotary?.name);
  const types = { layer_types: ["full_attention", "sliding_attention"] };
  assertEquals(windows(described("Gemma2ForCausalLM").layers), [8, undefined]);
  assertEquals(windows(described("Gemma2ForCausalLM", types).layers), [undefined, 8]);
  const three = { num_hidden_layers: 3 };
  const tables = [8, 8, undefined].map((window) => window ? "rotary_table.local" : "rotary_table");
  const gemma3 = described("Gemma3ForCausalLM", { ...three, sliding_window_pattern: 3 });
  assertEquals([windows(gemma3.layers), rotated(gemma3.layers)], [[8, 8, undefined], tables]);
  assertEquals(rotated(described("SmolLM3ForCausalLM").layers), ["rotary_table", undefined]);
  assertEquals(rotated(described("SmolLM3ForCausalLM", { no_rope_layers: [0, 1] }).layers), [
    undefined,
    "rotary_table",
  ]);
  const qwen = { sliding_window: 8, max_window_layers: 1 };
  assertEquals(windows(described("Qwen2ForCausalLM", qwen).layers), [undefined, undefined]);
  assertEquals(windows(described("Qwen2ForCausalLM", { ...qwen, use_sliding_window: true }).layers), [
    undefined,
    8,
  ]);
  assertEquals(described("Qwen3MoeForCausalLM").layers.map(({ mlp }) => mlp.kind), ["experts", "gated"]);
  assertEquals(
    described("Qwen3MoeForCausalLM", { mlp_only_layers: null, decoder_sparse_step: 2 }).layers.map((
      { mlp },
    ) => mlp.kind),
    ["gated", "experts"],
  );
});

Deno.test("scales, caps and stretched positions are those of the config", () => {
  const granite = described("GraniteForCausalLM");
  assertEquals(
    [
      granite.embeddingScale,
      granite.layers[0]!.attention.scale,
      granite.layers[0]!.residualScale,
      granite.logitScale,
    ],
    [6, 0.4, 0.6, 1 / 3],
  );
  const gemma = described("Gemma2ForCausalLM");
  assertEquals(
    [
      gemma.embeddingScale,
      gemma.layers[0]!.attention.scale,
      gemma.layers[0]!.attention.softCap,
      gemma.logitSoftCap,
    ],
    [32 ** 0.5, 10 ** -0.5, 3, 6],
  );
  assertEquals(tiny("Gemma2ForCausalLM").plainHead, false);
  assertEquals(tiny("GraniteForCausalLM").plainHead, true);
  const { rotary } = described("Phi3ForCausalLM").layers[0]!.attention.rotary!;
  assertEquals([rotary.width, rotary.attentionScaling], [4, Math.sqrt(1 + Math.log(4) / Math.log(16))]);
  assertEquals([...rotary.inverseFrequencies], [1, 0.01 / 1.5]);
  assertEquals([rotary.long!.beyond, ...rotary.long!.inverseFrequencies], [16, 0.5, 0.01 / 4]);
  assertEquals(described("GPTNeoXForCausalLM").layers[0]!.attention.rotary!.rotary.width, 4);
  // 3 of 8 values are rotated, and so 4 are, at the frequencies of 3.
  const odd = described("GPTNeoXForCausalLM", { rotary_pct: 0.4 }).layers[0]!.attention.rotary!.rotary;
  assertEquals([odd.width, ...odd.inverseFrequencies], [4, 1, 10_000 ** (-2 / 3)]);
  const heads = { hidden_size: 55, num_attention_heads: 5 };
  assertEquals(described("GPTNeoXForCausalLM", heads).layers[0]!.attention.rotary!.rotary.width, 6);
  assertThrows(() => tiny("GPTNeoXForCausalLM", { ...heads, rotary_pct: 1 }), InputError, "head_dim is 11");
  // What Gemma 3's configs say of a cap of scores transformers does not look at.
  const gemma3 = described("Gemma3ForCausalLM", { attn_logit_softcapping: 3, final_logit_softcapping: 6 });
  assertEquals([gemma3.layers[0]!.attention.softCap, gemma3.logitSoftCap], [undefined, 6]);
});

Deno.test("a field that would change what a family computes is refused by its name", () => {
  const refused: [architecture: string, fields: Record<string, unknown>, says: string][] = [
    ["Qwen2ForCausalLM", { hidden_act: "relu" }, 'hidden_act is "relu"'],
    ["Qwen2ForCausalLM", { layer_types: ["full_attention", "linear_attention"] }, "layer_types[1]"],
    ["Qwen2ForCausalLM", { layer_types: ["full_attention"] }, "layer_types is no list"],
    ["Qwen3ForCausalLM", { num_experts: 8 }, "num_experts is 8, and what that means"],
    ["SmolLM3ForCausalLM", { no_rope_layers: [1, 2] }, "no_rope_layers[1] is 2"],
    ["Phi3ForCausalLM", { rope_scaling: { type: "dynamic", factor: 2 } }, '"dynamic"'],
    [
      "Phi3ForCausalLM",
      { rope_scaling: { type: "longrope", short_factor: [1], long_factor: [1, 2] } },
      "short_factor",
    ],
    ["Phi3ForCausalLM", { partial_rotary_factor: 0.15 }, "partial_rotary_factor is 0.15"],
    ["Gemma2ForCausalLM", { use_bidirectional_attention: true }, "use_bidirectional_attention is true"],
    ["Gemma2ForCausalLM", { hidden_activation: "relu" }, 'hidden_activation is "relu"'],
    ["Gemma2ForCausalLM", { final_logit_softcapping: 0 }, "final_logit_softcapping is 0"],
    ["GraniteForCausalLM", { residual_multiplier: -1 }, "residual_multiplier is -1"],
    ["GraniteForCausalLM", { num_local_experts: 8 }, "num_local_experts"],
    ["GPT2LMHeadModel", { scale_attn_by_inverse_layer_idx: true }, "scale_attn_by_inverse_layer_idx is true"],
    ["GPT2LMHeadModel", { activation_function: "relu" }, 'activation_function is "relu"'],
    ["GPT2LMHeadModel", { n_embd: undefined }, "n_embd is missing"],
    ["GPTNeoXForCausalLM", { rotary_pct: 0.15 }, "partial_rotary_factor is 0.15"],
    ["Qwen3MoeForCausalLM", { mlp_only_layers: [2] }, "mlp_only_layers is [2]"],
    ["Qwen3MoeForCausalLM", { num_experts: undefined }, "num_local_experts is missing"],
    ["Qwen3MoeForCausalLM", { shared_expert_intermediate_size: 20 }, "shared_expert_intermediate_size"],
  ];
  for (const [architecture, fields, says] of refused) {
    assertStringIncludes(assertThrows(() => tiny(architecture, fields), InputError).message, says);
  }
});

Deno.test("buffers of old checkpoints are no tensors too many, but those of other families are", () => {
  const problems = (architecture: string, more: string[]) => {
    const found = tiny(architecture);
    const stored = new Map([...found.tensors].map(([name, shape]) => [name, { dtype: "F32", shape }]));
    for (const name of more) stored.set(name, { dtype: "U8", shape: [1, 1, 64, 64] });
    return tensorProblems(found, stored);
  };
  const neox = ["bias", "masked_bias", "rotary_emb.inv_freq"].map((name) =>
    `gpt_neox.layers.0.attention.${name}`
  );
  assertEquals(problems("GPTNeoXForCausalLM", neox), []);
  assertEquals(
    problems("GPT2LMHeadModel", ["transformer.h.1.attn.bias", "transformer.h.1.attn.masked_bias"]),
    [],
  );
  assert(problems("GPT2LMHeadModel", ["transformer.h.1.attn.c_attn.masked_bias"]).length === 1);
  assert(problems("Qwen2ForCausalLM", ["model.layers.0.attention.masked_bias"]).length === 1);
});
