// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertObjectMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { openModel } from "../../src/formats/open_model.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { checkTensors, tensorProblems } from "../../src/models/weights.ts";
import { sharedPath, sharedTest } from "../shared.ts";

const llama: Record<string, unknown> = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 320,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};
const mistral = {
  ...llama,
  architectures: ["MistralForCausalLM"],
  model_type: "mistral",
  sliding_window: null,
};
const { rope_theta: _, ...noRope } = llama;
const llama3 = {
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
  rope_type: "llama3",
};

const architecture = (config: Record<string, unknown>) => readArchitecture(config, "config.json");
const parse = (config: Record<string, unknown>) => architecture(config).config;
const layersOf = (config: unknown) => (config as DescribedConfig).description.layers;

Deno.test("readArchitecture() reads every field and fills what transformers fills", () => {
  const { inverseFrequencies, ...rest } = parse({
    ...llama,
    num_key_value_heads: undefined,
    eos_token_id: [2, 5],
  });
  assertObjectMatch(rest, {
    architecture: "LlamaForCausalLM",
    hiddenSize: 64,
    intermediateSize: 96,
    layers: 2,
    attentionHeads: 4,
    keyValueHeads: 4,
    headDim: 16,
    vocabularySize: 320,
    normEpsilon: 1e-5,
    contextLength: 256,
    tiedHead: false,
    bosToken: undefined,
    eosTokens: [2, 5],
    ropeTheta: 10000,
    attentionScaling: 1,
  });
  assertEquals(inverseFrequencies, Float64Array.from({ length: 8 }, (_, i) => 10000 ** (-i / 8)));
  const single = parse({
    ...llama,
    bos_token_id: 0,
    eos_token_id: 2,
    head_dim: 24,
    architectures: undefined,
  });
  assertEquals([single.bosToken, single.eosTokens, single.headDim], [0, [2], 24]);
});

Deno.test("readArchitecture() reads both generations of the rotary fields alike", () => {
  const theta = { rope_theta: 5000 };
  const same: [Record<string, unknown>, Record<string, unknown>][] = [
    [{ ...theta, rope_scaling: null }, { rope_parameters: { ...theta, rope_type: "default" } }],
    [{ ...theta, rope_scaling: llama3 }, { rope_parameters: { ...theta, ...llama3 } }],
    [{ ...theta, rope_scaling: { type: "linear", factor: 4 } }, {
      rope_parameters: { ...theta, rope_type: "linear", factor: 4 },
    }],
  ];
  for (const [older, newer] of same) {
    const expected = parse({ ...noRope, ...older }).inverseFrequencies;
    assertEquals(parse({ ...noRope, ...newer }).inverseFrequencies, expected);
    assertEquals(parse({ ...noRope, ...older, ...newer }).inverseFrequencies, expected);
    assert(expected[0] <= 1 && expected[7] < 5000 ** (-6 / 8));
  }
});

Deno.test("readArchitecture() takes 10,000 for a rope base that no field names, as transformers does", () => {
  for (const config of [noRope, { ...noRope, rope_parameters: { rope_type: "default" } }]) {
    assertEquals([parse(config).ropeTheta, parse(config).inverseFrequencies[1]], [
      10_000,
      10_000 ** (-1 / 8),
    ]);
  }
  assertEquals(
    parse({ ...noRope, rope_scaling: llama3 }).inverseFrequencies,
    parse({ ...llama, rope_scaling: llama3 }).inverseFrequencies,
  );
  assertEquals(parse({ ...mistral, rope_theta: undefined }).ropeTheta, 10_000);
});

Deno.test("readArchitecture() divides by rope_frequency_factors", () => {
  const factors = [1, 1, 2, 4, 8, 8, 8, 8];
  const plain = parse(llama).inverseFrequencies;
  const divided = parse({ ...llama, rope_frequency_factors: factors }).inverseFrequencies;
  assertEquals(divided, plain.map((frequency, i) => frequency / factors[i]));
  assertThrows(() => parse({ ...llama, rope_frequency_factors: [1] }), InputError, "list of 8");
  assertThrows(
    () => parse({ ...llama, rope_frequency_factors: factors.with(3, 0) }),
    InputError,
    "rope_frequency_factors[3]",
  );
});

const refused: [string, Record<string, unknown>, string][] = [
  [
    "two rope bases that differ",
    { ...llama, rope_parameters: { rope_theta: 500000 } },
    "differs: 10000 and 500000",
  ],
  ["two scalings that differ", {
    ...llama,
    rope_scaling: { type: "linear", factor: 2 },
    rope_parameters: { rope_theta: 10000, rope_type: "linear", factor: 4 },
  }, "rope scaling is given twice"],
  ["a scaling that is null in one place only", {
    ...llama,
    rope_scaling: null,
    rope_parameters: { rope_theta: 10000, ...llama3 },
  }, "rope scaling is given twice"],
  ["type and rope_type that differ", { ...llama, rope_scaling: { ...llama3, type: "linear" } }, "differ"],
  ["a parameter of the scaling that nobody knows", {
    ...llama,
    rope_scaling: { ...llama3, mscale: 1.2 },
  }, "rope_scaling.mscale is 1.2, and what that means"],
  ["an unknown scaling, named before its parameters", {
    ...llama,
    rope_scaling: { beta_fast: 32, type: "dynamic", factor: 4 },
  }, '"dynamic"'],
  ["YaRN without its factor", { ...llama, rope_scaling: { type: "yarn" } }, "rope_scaling.factor is missing"],
  ["YaRN with a blend that is none", {
    ...llama,
    rope_scaling: { type: "yarn", factor: 4, beta_fast: 0 },
  }, "rope_scaling.beta_fast is 0"],
  ["YaRN with another word for truncate", {
    ...llama,
    rope_scaling: { type: "yarn", factor: 4, truncate: "no" },
  }, 'truncate is "no"'],
  [
    "a scaling without its factor",
    { ...llama, rope_scaling: { type: "linear" } },
    "rope_scaling.factor is missing",
  ],
  ["llama3 without the original context", {
    ...llama,
    rope_scaling: { ...llama3, original_max_position_embeddings: undefined },
  }, "original_max_position_embeddings"],
  [
    "llama3 with its bands crossed",
    { ...llama, rope_scaling: { ...llama3, high_freq_factor: 1 } },
    "not above",
  ],
  ["rope by layer type", { ...noRope, rope_parameters: { full_attention: { rope_theta: 1 } } }, "layer type"],
  ["a base that is a string", { ...llama, rope_theta: "10000" }, "rope_theta"],
  ["partial rotation", { ...llama, partial_rotary_factor: 0.5 }, "partial_rotary_factor"],
  [
    "another architecture",
    { ...llama, architectures: ["BloomForCausalLM"], model_type: "bloom" },
    "BloomForCausalLM",
  ],
  ["no architecture", { ...llama, architectures: undefined, model_type: undefined }, "not supported"],
  ["an architecture of another type", { ...llama, model_type: "qwen2" }, "does not belong"],
  ["another activation", { ...llama, hidden_act: "gelu" }, "gelu"],
  ["no activation", { ...llama, hidden_act: undefined }, "hidden_act"],
  ["quantised weights", { ...llama, quantization_config: { bits: 4 } }, "quantization_config"],
  ["a size that is missing", { ...llama, hidden_size: undefined }, "hidden_size is missing"],
  ["a size of zero", { ...llama, num_hidden_layers: 0 }, "num_hidden_layers is 0"],
  ["a size with a fraction", { ...llama, vocab_size: 1.5 }, "vocab_size is 1.5"],
  ["no epsilon", { ...llama, rms_norm_eps: undefined }, "rms_norm_eps"],
  ["heads that do not group", { ...llama, num_key_value_heads: 3 }, "not a multiple of num_key_value_heads"],
  ["heads that do not divide the width", { ...llama, hidden_size: 66 }, "no head_dim"],
  ["an odd head", { ...llama, head_dim: 15 }, "even"],
  ["a token beyond the vocabulary", { ...llama, eos_token_id: [2, 320] }, "eos_token_id holds 320"],
  ["a flag that is a string", { ...llama, tie_word_embeddings: "yes" }, "tie_word_embeddings"],
  ["a window of none", { ...mistral, sliding_window: 0 }, "sliding_window is 0"],
  ["pairs that lie side by side", { ...llama, rope_interleaved: true }, "rope_interleaved is true"],
  ["a field that nobody knows", { ...llama, attention_sink: 4 }, "attention_sink is 4, and what that means"],
  ["a field of another family", { ...llama, query_pre_attn_scalar: 256 }, "query_pre_attn_scalar"],
];

for (const [what, config, says] of refused) {
  Deno.test(`readArchitecture() refuses ${what}`, () => {
    assertStringIncludes(assertThrows(() => parse(config), InputError).message, says);
  });
}

Deno.test("readArchitecture() gives a Mistral a window where one is in force, and never a bias", () => {
  const windows = (fields: Record<string, unknown>) => {
    const { tensors, config } = architecture({ ...mistral, ...fields, attention_bias: true });
    assert(![...tensors.keys()].some((name) => name.endsWith(".bias")));
    return layersOf(config).map(({ attention }) => attention.window);
  };
  const none = [undefined, undefined];
  for (
    const fields of [{}, { sliding_window: 256 }, { sliding_window: 16, use_sliding_window: false }, {
      sliding_window: undefined,
    }]
  ) assertEquals(windows(fields), none);
  assertEquals(windows({ sliding_window: 16 }), [16, 16]);
  assertEquals(windows({ sliding_window: undefined, max_position_embeddings: 8192 }), [4096, 4096]);
});

Deno.test("readArchitecture() takes no offence at fields that say nothing, or are not about what is computed", () => {
  parse({
    ...llama,
    ...{ attention_sink: null, clip_qkv: false, pruned_heads: {}, unsloth_version: "1", _name_or_path: "x" },
    ...{ rope_interleaved: false, max_sequence_length: 2048 },
    ...{ "transformers.js_config": { dtype: "q4" }, attention_dropout: 0.1, is_llama_config: true },
    ...{ use_flash_attn: true, use_flash_attention_2: true, gradient_checkpointing: true, num_labels: 2 },
  });
});

Deno.test("tensorProblems() reports everything at once", () => {
  const config = architecture({ ...llama, tie_word_embeddings: true });
  const tensors = new Map(
    [...config.tensors].map(([name, shape]) => [name, { dtype: "BF16", shape }]),
  );
  assertEquals(tensorProblems(config, tensors), []);
  tensors.set("lm_head.weight", { dtype: "BF16", shape: [320, 64] });
  tensors.set("model.layers.1.self_attn.rotary_emb.inv_freq", { dtype: "F32", shape: [8] });
  assertEquals(tensorProblems(config, tensors), []);

  tensors.delete("model.norm.weight");
  tensors.set("model.layers.0.mlp.down_proj.weight", { dtype: "F32", shape: [96, 64] });
  tensors.set("model.layers.1.mlp.up_proj.weight", { dtype: "I8", shape: [96, 64] });
  tensors.set("model.layers.2.mlp.up_proj.weight", { dtype: "F32", shape: [96, 64] });
  assertEquals(tensorProblems(config, tensors), [
    "model.layers.0.mlp.down_proj.weight has shape [96, 64], expected [64, 96]",
    "model.layers.1.mlp.up_proj.weight has dtype I8, expected one of F32, F16, BF16",
    "model.norm.weight is missing, expected shape [64]",
    "model.layers.2.mlp.up_proj.weight is not part of this model",
  ]);
  assertThrows(() => checkTensors(config, tensors, "folder"), InputError, "model.norm.weight is missing");
});

sharedTest(
  "the traced tensors are exactly those of real models, and both generations of config agree",
  async () => {
    const goldens = [...Deno.readDirSync(sharedPath("goldens/families"))].filter((entry) =>
      entry.isDirectory
    );
    const folders = goldens.map(({ name }) => `goldens/families/${name}`);
    for (const folder of [...folders, "models/stories15M", "models/stories260K", "models/minimind2-small"]) {
      const model = await openModel(sharedPath(folder));
      const found = readArchitecture(model.config, folder);
      assertEquals(tensorProblems(found, model.tensors), []);
      assertEquals([...found.tensors.keys()].sort(), [...model.tensors.keys()].sort());
      model.close();
      if (!folder.startsWith("goldens")) continue;
      const legacy = JSON.parse(await Deno.readTextFile(sharedPath(`${folder}/config.legacy.json`)));
      assertEquals(readArchitecture(legacy, folder).config, found.config, folder);
    }
  },
);

sharedTest(
  "llama3 scaling keeps, blends and divides frequencies",
  async () => {
    const config = JSON.parse(
      await Deno.readTextFile(sharedPath("goldens/families/llama3_rope/config.json")),
    );
    const { rope_theta, factor } = config.rope_parameters;
    const scaled = parse(config).inverseFrequencies;
    const plain =
      parse({ ...config, rope_parameters: { rope_theta, rope_type: "default" } }).inverseFrequencies;
    const ratios = plain.map((frequency, i) => frequency / scaled[i]);
    // All three bands occur: kept, blended, divided.
    assertEquals([ratios[0], Math.round(ratios.at(-1)! * 1e9) / 1e9], [1, factor]);
    assert(ratios.some((ratio) => ratio > 1.001 && ratio < factor - 0.001));
  },
);
