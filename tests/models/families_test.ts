/** What tracing a family's decoder finds, against lists that are written out. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { Architecture } from "../../src/models/architecture.ts";
import { readArchitecture } from "../../src/models/families.ts";
import type { ModelFamily } from "../../src/models/family.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { embedding } from "../../src/tensor/ops/embedding.ts";

/** Two groups of query heads, as wide together as the hidden states. */
const llama: Record<string, unknown> = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 32,
  intermediate_size: 44,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 100,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};
const grouped: [string, number[]][] = [
  ["model.embed_tokens.weight", [100, 32]],
  ["model.layers.0.input_layernorm.weight", [32]],
  ["model.layers.0.self_attn.q_proj.weight", [32, 32]],
  ["model.layers.0.self_attn.k_proj.weight", [16, 32]],
  ["model.layers.0.self_attn.v_proj.weight", [16, 32]],
  ["model.layers.0.self_attn.o_proj.weight", [32, 32]],
  ["model.layers.0.post_attention_layernorm.weight", [32]],
  ["model.layers.0.mlp.gate_proj.weight", [44, 32]],
  ["model.layers.0.mlp.up_proj.weight", [44, 32]],
  ["model.layers.0.mlp.down_proj.weight", [32, 44]],
  ["model.layers.1.input_layernorm.weight", [32]],
  ["model.layers.1.self_attn.q_proj.weight", [32, 32]],
  ["model.layers.1.self_attn.k_proj.weight", [16, 32]],
  ["model.layers.1.self_attn.v_proj.weight", [16, 32]],
  ["model.layers.1.self_attn.o_proj.weight", [32, 32]],
  ["model.layers.1.post_attention_layernorm.weight", [32]],
  ["model.layers.1.mlp.gate_proj.weight", [44, 32]],
  ["model.layers.1.mlp.up_proj.weight", [44, 32]],
  ["model.layers.1.mlp.down_proj.weight", [32, 44]],
  ["model.norm.weight", [32]],
  ["lm_head.weight", [100, 32]],
];
/** One layer, a tied head, biases everywhere, a key head for each query head; heads wider together than the hidden states. */
const biased = {
  ...llama,
  num_hidden_layers: 1,
  num_key_value_heads: 4,
  head_dim: 12,
  tie_word_embeddings: true,
  attention_bias: true,
  mlp_bias: true,
};

const linear = (tensors: readonly (readonly [string, readonly number[]])[]) =>
  tensors.filter(([name]) => name.endsWith("_proj.weight")).map(([name, [out, width]]) => ({
    name: name.slice(0, -".weight".length),
    out,
    in: width,
  }));

Deno.test("a Llama's tensors, linear layers and inner values are those of the decoder, in its order", () => {
  const { tensors, linearLayers, taps, headWeight, parameterCount } = readArchitecture(llama, "config");
  assertEquals([...tensors], grouped);
  assertEquals(linearLayers, linear(grouped));
  assertEquals(linearLayers.length, 14);
  assertEquals([...taps], [
    ["embeddings", 32],
    ["model.layers.0.queries", 32],
    ["model.layers.0.keys", 16],
    ["model.layers.0.values", 16],
    ["model.layers.0.attention", 32],
    ["model.layers.0.output", 32],
    ["model.layers.1.queries", 32],
    ["model.layers.1.keys", 16],
    ["model.layers.1.values", 16],
    ["model.layers.1.attention", 32],
    ["model.layers.1.output", 32],
    ["final_norm", 32],
  ]);
  assertEquals(headWeight, "lm_head.weight");
  assertEquals(parameterCount, 6400 + 2 * (2 * 32 + 2 * 1024 + 2 * 512 + 3 * 44 * 32) + 32);
});

Deno.test("a Llama with a tied head and biases has no head of its own, and a bias after each weight", () => {
  const { tensors, linearLayers, taps, headWeight } = readArchitecture(biased, "config");
  const expected: [string, number[]][] = [
    ["model.embed_tokens.weight", [100, 32]],
    ["model.layers.0.input_layernorm.weight", [32]],
    ["model.layers.0.self_attn.q_proj.weight", [48, 32]],
    ["model.layers.0.self_attn.q_proj.bias", [48]],
    ["model.layers.0.self_attn.k_proj.weight", [48, 32]],
    ["model.layers.0.self_attn.k_proj.bias", [48]],
    ["model.layers.0.self_attn.v_proj.weight", [48, 32]],
    ["model.layers.0.self_attn.v_proj.bias", [48]],
    ["model.layers.0.self_attn.o_proj.weight", [32, 48]],
    ["model.layers.0.self_attn.o_proj.bias", [32]],
    ["model.layers.0.post_attention_layernorm.weight", [32]],
    ["model.layers.0.mlp.gate_proj.weight", [44, 32]],
    ["model.layers.0.mlp.gate_proj.bias", [44]],
    ["model.layers.0.mlp.up_proj.weight", [44, 32]],
    ["model.layers.0.mlp.up_proj.bias", [44]],
    ["model.layers.0.mlp.down_proj.weight", [32, 44]],
    ["model.layers.0.mlp.down_proj.bias", [32]],
    ["model.norm.weight", [32]],
  ];
  assertEquals([...tensors], expected);
  assertEquals(linearLayers, linear(expected));
  assertEquals([taps.get("model.layers.0.queries"), taps.get("model.layers.0.attention")], [48, 48]);
  assertEquals(headWeight, "model.embed_tokens.weight");
});

Deno.test("with() gives the same family other numbers", () => {
  const whole = readArchitecture(llama, "config");
  assertEquals([...whole.with({ layers: [1], tiedHead: true }).tensors], [
    ...grouped.slice(0, 10),
    ["model.norm.weight", [32]],
  ]);
});

Deno.test("a family of other names, with a bias on its head, is traced as well", () => {
  const names = { embedding: "wte.weight", layers: "h", head: "output" };
  const toy: ModelFamily = {
    name: "toy",
    architectures: {},
    names,
    parse: () => readArchitecture(llama, "config").config,
    tables: () => ({}),
    decoder(ctx, { layers, vocabularySize, hiddenSize }) {
      let x = embedding(ctx.weight(names.embedding, [vocabularySize, hiddenSize]), ctx.inputs.tokens);
      for (let i = 0; i < layers; i++) x = ctx.layer(i, x, (x) => ctx.linear(`h.${i}.mix`, x, hiddenSize));
      return ctx.tap("final_norm", x);
    },
    head: (ctx, { vocabularySize }, x) =>
      addRow(ctx.linear(names.head, x, vocabularySize), ctx.weight("output.bias", [vocabularySize])),
  };
  const { tensors, linearLayers, taps, headWeight } = new Architecture(toy, toy.parse({}, "", ""));
  assertEquals([...tensors], [
    ["wte.weight", [100, 32]],
    ["h.0.mix.weight", [32, 32]],
    ["h.1.mix.weight", [32, 32]],
    ["output.weight", [100, 32]],
    ["output.bias", [100]],
  ]);
  assertEquals(linearLayers.map(({ name }) => name), ["h.0.mix", "h.1.mix"]);
  assertEquals([headWeight, [...taps]], ["output.weight", [["final_norm", 32]]]);
});

Deno.test("a Mistral is what a Llama without biases is", () => {
  const { linearLayers, tensors } = readArchitecture({
    ...biased,
    architectures: ["MistralForCausalLM"],
    model_type: "mistral",
    sliding_window: null,
  }, "config");
  assertEquals(linearLayers, readArchitecture(biased, "config").linearLayers);
  assertEquals(tensors.size, 11);
});

Deno.test("a family that is not known is refused by its name, with the nearest that is", () => {
  const refusal = (change: Record<string, unknown>) => {
    const error = assertThrows(() => readArchitecture({ ...llama, ...change }, "config"), InputError);
    assertStringIncludes(error.hint!, "Supported architectures: LlamaForCausalLM, MistralForCausalLM, ");
    return error.message;
  };
  assertStringIncludes(
    refusal({ architectures: ["LLaMAForCausalLM"] }),
    'architectures ["LLaMAForCausalLM"] is not supported; did you mean "LlamaForCausalLM"?',
  );
  assertStringIncludes(
    refusal({ architectures: undefined, model_type: "mistal" }),
    'model_type "mistal" is not supported; did you mean "mistral"?',
  );
  assertEquals(
    refusal({ architectures: ["RwkvModel"] }),
    'config: architectures ["RwkvModel"] is not supported',
  );
});

Deno.test("sizes that no kernel takes are refused with the file that names them", () => {
  const error = assertThrows(() => readArchitecture({ ...llama, head_dim: 258 }, "config.json"), InputError);
  assertStringIncludes(error.message, "config.json: a model of these sizes cannot be computed: attention");
});
