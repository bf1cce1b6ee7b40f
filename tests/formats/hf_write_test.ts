// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { fromFloat32, toFloat32 } from "../../src/formats/dtype.ts";
import { configOfLayers, exportedConfig } from "../../src/formats/huggingface/config.ts";
import { type HuggingFaceOptions, writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import type { ModelSource } from "../../src/formats/model_source.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { pythonJson } from "../../src/formats/python_json.ts";
import { ropeScalingOf } from "../../src/formats/huggingface/rope_scaling.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { tensorProblems } from "../../src/models/weights.ts";
import { sharedPath, sharedTest } from "../shared.ts";

async function rewritten(
  model: ModelSource,
  options: HuggingFaceOptions,
  body: (written: ModelSource) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await writeHuggingFaceFolder(`${folder}/out`, {
      config: model.config,
      tokenizer: await model.tokenizer().catch(() => ({ tokenizerJson: {}, tokenizerConfig: {} })),
      tensors: readArchitecture(model.config, model.path).tensors,
      read: (name) => model.read(name),
    }, options);
    assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name), ["out"]);
    const written = await openModel(`${folder}/out`);
    await body(written);
    written.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const sources = [
  "goldens/families/llama3_rope",
  "goldens/families/llama_tied_bias",
  "goldens/gguf/tied_q8_0.gguf",
  "goldens/gguf/untied_mixed.gguf",
  "models/stories260K",
];

for (const path of sources) {
  for (const [dtype, shardBytes] of [["f32", undefined], ["f16", 50_000], ["bf16", undefined]] as const) {
    sharedTest(`writeHuggingFaceFolder() writes ${path} in ${dtype} so that it reads back`, async () => {
      const model = await openModel(sharedPath(path));
      await rewritten(model, { dtype, shardBytes }, async (written) => {
        const [ours, theirs] = [written, model].map(({ config, path }) => readArchitecture(config, path));
        const { inverseFrequencies: f, description: _, ...a } = ours.config as DescribedConfig;
        const { inverseFrequencies: g, description: __, ...b } = theirs.config as DescribedConfig;
        assertEquals(a, b);
        f.forEach((value, i) => assert(Math.abs(value / g[i] - 1) < 1e-6));
        assertEquals(tensorProblems(ours, written.tensors), []);
        for (const name of written.tensors.keys()) {
          const expected = await model.read(name);
          const actual = await written.read(name);
          assertEquals([actual.dtype, actual.shape], [dtype, expected.shape]);
          assertEquals(actual.data, fromFloat32(dtype, toFloat32(expected.dtype, expected.data)), name);
        }
        const shards = [...Deno.readDirSync(written.path)].filter(({ name }) =>
          name.endsWith(".safetensors")
        );
        assertEquals(shards.length > 1, shardBytes !== undefined);
      });
      model.close();
    });
  }
}

sharedTest(
  "writeHuggingFaceFolder() passes tokenizer files through and writes those made from GGUF",
  async () => {
    const model = await openModel(sharedPath("models/minimind2-small"));
    await rewritten(model, { dtype: "f16" }, async (written) => {
      for (const name of ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]) {
        assertEquals(
          await Deno.readFile(`${written.path}/${name}`),
          await Deno.readFile(`${model.path}/${name}`),
        );
      }
      const { generationConfig } = await model.tokenizer();
      assertEquals((await written.tokenizer()).generationConfig, generationConfig);
    });
    model.close();

    const gguf = await openModel(sharedPath("goldens/gguf/untied_mixed.gguf"));
    await rewritten(gguf, { dtype: "f16" }, async (written) => {
      const [ours, theirs] = [await written.tokenizer(), await gguf.tokenizer()];
      assertEquals([ours.tokenizerJson, ours.tokenizerConfig], [
        theirs.tokenizerJson,
        theirs.tokenizerConfig,
      ]);
      assertEquals(ours.generationConfig?.eos_token_id, gguf.config.eos_token_id);
    });
    gguf.close();
  },
);

sharedTest(
  "writeHuggingFaceFolder() refuses NaN, overflow, another shape and a folder in use, and leaves nothing",
  async () => {
    const model = await openModel(sharedPath("goldens/families/llama_tied_bias"));
    const nothing = () => Promise.reject(new Error("was written"));
    const name = "model.norm.weight";
    const [width] = model.tensors.get(name)!.shape as [number];
    const wrong: [Float32Array<ArrayBuffer>, number[], string][] = [
      [new Float32Array(width).fill(NaN), [width], `${width} values that are NaN`],
      [new Float32Array(width).fill(70000), [width], `${width} values too large for f16`],
      [new Float32Array(width / 2), [width / 2], `has shape [${width / 2}], expected [${width}]`],
    ];
    for (const [data, shape, says] of wrong) {
      const broken: ModelSource = {
        ...model,
        read: async (wanted) => wanted === name ? { dtype: "f32", shape, data } : await model.read(wanted),
      };
      await assertRejects(() => rewritten(broken, { dtype: "f16" }, nothing), InputError, says);
    }
    await assertRejects(
      () =>
        rewritten(model, { dtype: "f32" }, async (written) => {
          await writeHuggingFaceFolder(written.path, {
            config: model.config,
            tokenizer: { tokenizerJson: {}, tokenizerConfig: {} },
            tensors: new Map(),
            read: nothing,
          }, { dtype: "f32" });
        }),
      InputError,
      "already there",
    );
    model.close();
  },
);

Deno.test("exportedConfig() writes the older generation's fields and no others of the newer", () => {
  const scaling = { rope_type: "linear", factor: 2 };
  const config = exportedConfig(
    {
      rope_parameters: { rope_theta: 5000, ...scaling },
      dtype: "float32",
      layer_types: ["full_attention"],
      hidden_size: 8,
      transformers_version: "5.0.0",
    },
    "bf16",
    "out",
  );
  assertEquals(config, { hidden_size: 8, rope_theta: 5000, rope_scaling: scaling, torch_dtype: "bfloat16" });
  const plain = exportedConfig({ rope_parameters: { rope_theta: 1e4, rope_type: "default" } }, "f16", "out");
  assertEquals(exportedConfig({ hidden_size: 8 }, "f32", "out"), {
    hidden_size: 8,
    rope_scaling: null,
    torch_dtype: "float32",
  });
  assertEquals(plain, { rope_theta: 1e4, rope_scaling: null, torch_dtype: "float16" });
});

Deno.test("ropeScalingOf() finds the parameters that real models used, others too, and none for arbitrary divisors", () => {
  const scalings: [
    factor: number,
    theta: number,
    headDim: number,
    low: number,
    high: number,
    context: number,
  ][] = [
    [8, 500_000, 128, 1, 4, 8192],
    [32, 500_000, 64, 1, 4, 8192],
    [4, 30_000, 32, 1, 3, 24],
    [5.5, 500_000, 128, 1, 2.5, 6000],
  ];
  for (const [factor, theta, headDim, low, high, context] of scalings) {
    const scaling = {
      rope_type: "llama3",
      factor,
      low_freq_factor: low,
      high_freq_factor: high,
      original_max_position_embeddings: context,
    };
    const size = { hidden_size: headDim, num_attention_heads: 1, rope_theta: theta };
    const frequencies = (rope_scaling: unknown) =>
      readArchitecture({ ...smallest, ...size, rope_scaling }, "config").config.inverseFrequencies;
    const [plain, scaled] = [frequencies(null), frequencies(scaling)];
    const factors = Float32Array.from(plain, (frequency, i) => frequency / scaled[i]);
    assertEquals(ropeScalingOf([...factors], theta), scaling);
  }
  assertEquals(ropeScalingOf([1, 1, 1, 1], 1e4), null);
  assertEquals(ropeScalingOf([4, 4, 4, 4], 1e4), { rope_type: "linear", factor: 4 });
  assertEquals(ropeScalingOf([1, 2, 3, 4], 1e4), undefined);
});

const smallest = {
  architectures: ["LlamaForCausalLM"],
  hidden_act: "silu",
  intermediate_size: 8,
  num_hidden_layers: 1,
  vocab_size: 8,
  max_position_embeddings: 8,
  rms_norm_eps: 1e-5,
};

Deno.test("pythonJson() gives the chosen numbers a decimal point, and nothing else", () => {
  const value = {
    factor: 8,
    other: 8,
    nested: { factor: -2 },
    list: [{ factor: 1.5 }],
    text: '"factor": 8,',
    last: { factor: 1e30 },
  };
  const text = pythonJson(value, ["factor", "last"]);
  assertEquals(JSON.parse(text), value);
  assertEquals(text.match(/: -?\d.*/g), [": 8.0,", ": 8,", ": -2.0", ": 1.5", ': 8,",', ": 1e+30"]);
});

Deno.test("configOfLayers() cuts the number of layers, and lists with an entry for each", () => {
  const config = {
    num_hidden_layers: 4,
    layer_types: ["a", "b", "c", "d"],
    no_rope_layers: [1, 1, 1, 0],
    // As many entries by chance.
    eos_token_id: [1, 2, 3, 4],
  };
  assertEquals(configOfLayers(config, [1, 3]), {
    num_hidden_layers: 2,
    layer_types: ["b", "d"],
    no_rope_layers: [1, 0],
    eos_token_id: [1, 2, 3, 4],
  });
  assertEquals(configOfLayers(config, [0, 1, 2, 3]), config);
  assertEquals(configOfLayers({ ...config, layer_types: ["a"] }, [0]).layer_types, ["a"]);
});
