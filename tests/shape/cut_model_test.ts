/** Models made of some heads and channels of another: read, written, run. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { writeModelFolder } from "../../src/distill/export/exports.ts";
import { modelIdentity } from "../../src/distill/inputs/identity.ts";
import { cutModel, cutWidths } from "../../src/distill/inputs/cut_model.ts";
import { Model, type ModelOptions } from "../../src/distill/inputs/models.ts";
import { shapeWidthOf, type WidthCut, widthCutOf } from "../../src/distill/inputs/width_cut.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import { writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import { openModel } from "../../src/formats/open_model.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { Reader } from "../distill/logits.ts";
import { writeTinyGguf } from "../distill/tiny_gguf.ts";
import { type TinyFiles, type TinyModelOptions, tinySample, withTiny } from "../distill/tiny_model.ts";
import { assertWithin, maxDifference, modelTest, randomArray } from "../tensor/harness.ts";

const HIDDEN = 32;
/** Of the tiny model: groups of two query heads of 8, 44 channels. */
const [GROUP, HEAD, CHANNELS] = [16, 8, 44];

const numbers = (count: number, where: (i: number) => boolean) =>
  Array.from({ length: count }, (_, i) => i).filter(where);

/** Layers of different widths, one of them without attention. */
const UNEVEN: WidthCut = {
  groups: [[1], [], [0]],
  channels: [
    numbers(CHANNELS, (i) => i % 3 !== 1),
    numbers(CHANNELS, (i) => i > 20),
    numbers(CHANNELS, (i) => i < 5),
  ],
  compensation: [1, 2, 3].map((seed) => ({
    attention: Float64Array.from(randomArray(HIDDEN, seed, 0.5)),
    mlp: Float64Array.from(randomArray(HIDDEN, seed + 10, 0.5)),
  })),
};

const { compensation: _, ...UNCOMPENSATED } = UNEVEN;

/** A model as a run opens it, with logits of a text. */
async function logitsOf(gpu: Gpu, path: string, options: Partial<ModelOptions> = {}): Promise<Float32Array> {
  const model = await Model.open(path, { category: "weights", ...options });
  try {
    using reader = await Reader.open(gpu, model, 24);
    return (await reader.logits(tinySample(24, 0, 7).ids)).slice();
  } finally {
    model.close();
  }
}

/** The full model in which a cut is made by zeros: in the columns that read what is cut away, and by biases of its own. */
async function writeMasked(from: string, path: string, cut: WidthCut): Promise<void> {
  const source = await openModel(from);
  try {
    const config = { ...source.config, attention_bias: true, mlp_bias: true };
    const { tensors } = readArchitecture(config, path);
    await writeHuggingFaceFolder(path, {
      config,
      tokenizer: await source.tokenizer(),
      tensors,
      async read(name) {
        const shape = [...tensors.get(name)!];
        const stored = source.tensors.has(name) ? await source.read(name) : undefined;
        const data = stored
          ? toFloat32(stored.dtype, stored.data).slice()
          : new Float32Array(shape.reduce((a, b) => a * b, 1));
        const [, l, part, kind] = /layers\.(\d+)\.\w+\.(o_proj|down_proj)\.(\w+)$/.exec(name) ?? [];
        if (l === undefined) return { dtype: "f32", shape, data };
        const layer = Number(l);
        if (kind === "bias") {
          const bias = cut.compensation?.[layer]?.[part === "o_proj" ? "attention" : "mlp"];
          return { dtype: "f32", shape, data: data.map((x, i) => x + (bias?.[i] ?? 0)) };
        }
        const isKept = part === "o_proj"
          ? (j: number) => cut.groups[layer]!.includes(Math.floor(j / GROUP))
          : (j: number) => cut.channels[layer]!.includes(j);
        return { dtype: "f32", shape, data: data.map((x, i) => isKept(i % shape[1]!) ? x : 0) };
      },
    }, { dtype: "f32" });
  } finally {
    source.close();
  }
}

function cutTest(
  name: string,
  fn: (gpu: Gpu, files: TinyFiles) => Promise<void>,
  options: TinyModelOptions = {},
): void {
  modelTest(name, (gpu) => withTiny((files) => fn(gpu, files), options));
}

for (const biases of [false, true]) {
  const which = biases ? "with biases of its own" : "without biases";
  for (const [cut, how] of [[UNEVEN, "compensated"], [UNCOMPENSATED, "not compensated"]] as const) {
    cutTest(
      `a model ${which}, cut and ${how}, is the model with zeros in the place of what is cut`,
      async (gpu, files) => {
        await writeMasked(files.teacher, `${files.folder}/masked`, cut);
        const masked = await logitsOf(gpu, `${files.folder}/masked`);
        const logits = await logitsOf(gpu, files.teacher, { width: cut });
        assertWithin(logits, masked, 2e-5, "logits");
        assert(maxDifference(logits, await logitsOf(gpu, files.teacher)) > 0.1, "the cut changed nothing");
      },
      { biases },
    );
  }
}

cutTest("a cut model's folder and GGUF file give its own logits", async (gpu, files) => {
  const expected = await logitsOf(gpu, files.teacher, { width: UNEVEN });
  const folder = `${files.folder}/narrow`;
  const model = await Model.open(files.teacher, { category: "weights", width: UNEVEN });
  await writeModelFolder(folder, model);
  model.close();
  assertEquals(await logitsOf(gpu, folder), expected);
  const gguf = `${files.folder}/narrow.gguf`;
  await writeTinyGguf(folder, gguf, "F32");
  // llama.cpp takes a bias of queries to be as wide as the hidden states: those of zeros are not in the file, but are read from it.
  const file = await GgufFile.open(await openFile(gguf));
  assertEquals([...file.tensors.keys()].filter((name) => /^blk\.1\..*bias$/.test(name)), [
    "blk.1.attn_output.bias",
    "blk.1.ffn_down.bias",
  ]);
  file.close();
  assertWithin(await logitsOf(gpu, gguf), expected, 1e-5);
  const read = await openModel(gguf);
  const bias = "model.layers.1.self_attn.q_proj.bias";
  assertEquals((await read.read(bias)).data, new Float32Array(16));
  assertEquals((await read.readRows(bias, 3, 5)).data, new Float32Array(5));
  await assertRejects(() => read.readRows(bias, 14, 3), InputError, "rows 14 to 17");
  read.close();
});

cutTest("layers are cut before the width, which has an entry for each that is left", async (gpu, files) => {
  const width = {
    groups: [UNEVEN.groups[0]!, UNEVEN.groups[2]!],
    channels: [UNEVEN.channels[0]!, UNEVEN.channels[2]!],
    compensation: [UNEVEN.compensation![0]!, UNEVEN.compensation![2]!],
  };
  const short = await Model.open(files.teacher, { category: "weights", layers: [0, 2] });
  await writeModelFolder(`${files.folder}/short`, short);
  short.close();
  const expected = await logitsOf(gpu, `${files.folder}/short`, { width });
  assertEquals(await logitsOf(gpu, files.teacher, { width, layers: [0, 2] }), expected);
});

Deno.test("a cut model's config names its widths, and biases where they compensate", () =>
  withTiny(async ({ teacher }) => {
    const source = await openModel(teacher);
    const architecture = readArchitecture(source.config, teacher);
    const { config } = cutModel(source, architecture, UNEVEN);
    const { num_attention_heads, num_key_value_heads, head_dim, intermediate_size } = config;
    assertEquals([num_attention_heads, num_key_value_heads, head_dim, intermediate_size], [2, 1, HEAD, 29]);
    assertEquals([config.attention_bias, config.mlp_bias], [true, true]);
    const plain = cutModel(source, architecture, UNCOMPENSATED);
    assertEquals([plain.config.attention_bias, plain.config.mlp_bias], [undefined, undefined]);
    assertEquals([...plain.tensors.keys()].filter((name) => name.endsWith(".bias")), []);
    source.close();
  }));

Deno.test("a Mistral with biases becomes a Llama, without stays one", () =>
  withTiny(async ({ teacher }) => {
    const source = await openModel(teacher);
    const mistral = {
      ...source,
      config: {
        ...source.config,
        architectures: ["MistralForCausalLM"],
        model_type: "mistral",
        sliding_window: null,
      },
    };
    const architecture = readArchitecture(mistral.config, teacher);
    const { config } = cutModel(mistral, architecture, UNEVEN);
    assertEquals([config.architectures, config.model_type, "sliding_window" in config], [
      ["LlamaForCausalLM"],
      "llama",
      false,
    ]);
    const plain = cutModel(mistral, architecture, UNCOMPENSATED);
    assertEquals([plain.config.model_type, plain.config.sliding_window], ["mistral", null]);
    source.close();
  }));

Deno.test("a cut that keeps all is the model itself, whatever it compensates", () =>
  withTiny(async ({ teacher }) => {
    const source = await openModel(teacher);
    const all = { groups: [[0, 1], [0, 1], [0, 1]], channels: Array(3).fill(numbers(CHANNELS, () => true)) };
    const same = cutModel(source, readArchitecture(source.config, teacher), {
      ...all,
      compensation: UNEVEN.compensation!,
    });
    assertEquals([...same.tensors.keys()].sort(), [...source.tensors.keys()].sort());
    for (const name of source.tensors.keys()) {
      assertEquals(await same.read(name), await source.read(name), name);
    }
    source.close();
  }));

Deno.test("rows of a cut model's tensors can be read in pieces, filler and all", () =>
  withTiny(async ({ teacher }) => {
    const source = await openModel(teacher);
    const narrow = cutModel(source, readArchitecture(source.config, teacher), UNEVEN);
    for (const [name, { shape, exactDtype }] of narrow.tensors) {
      assertEquals(exactDtype, "bf16", name);
      const whole = await narrow.read(name);
      assertEquals(whole.shape, shape);
      const width = whole.data.length / shape[0]!;
      for (let first = 0; first < shape[0]!; first += 5) {
        const count = Math.min(5, shape[0]! - first);
        const { data } = await narrow.readRows(name, first, count);
        assertEquals(
          data,
          whole.data.subarray(first * width, (first + count) * width),
          `${name} from ${first}`,
        );
      }
    }
    await assertRejects(() => narrow.readRows("model.norm.weight", 30, 3), InputError, "rows 30 to 33");
    await assertRejects(() => narrow.read("model.layers.0.nothing"), InputError, "there is no tensor");
    source.close();
  }, { dtype: "bf16" }));

Deno.test("cutWidths() fills heads up to a number that divides the hidden size, groups kept whole", () => {
  const architecture = (heads: number, keyValueHeads: number, hidden = 64) =>
    readArchitecture({
      architectures: ["LlamaForCausalLM"],
      hidden_act: "silu",
      hidden_size: hidden,
      head_dim: 8,
      intermediate_size: 10,
      num_hidden_layers: 1,
      num_attention_heads: heads,
      num_key_value_heads: keyValueHeads,
      vocab_size: 8,
      max_position_embeddings: 8,
      rms_norm_eps: 1e-5,
    }, "test");
  const heads = (of: ReturnType<typeof architecture>, groups: number) => {
    const cut = { groups: [numbers(groups, () => true)], channels: [[3]] };
    const { attentionHeads, keyValueHeads } = cutWidths(of, cut);
    return [attentionHeads, keyValueHeads];
  };
  assertEquals(heads(architecture(8, 4), 3), [8, 4]);
  assertEquals(heads(architecture(8, 4), 2), [4, 2]);
  assertEquals(heads(architecture(8, 8), 5), [8, 8]);
  assertEquals(heads(architecture(8, 8), 3), [4, 4]);
  assertEquals(heads(architecture(8, 8), 0), [1, 1]);
  // The model's own heads do not divide it: no number of groups of three does.
  assertEquals(heads(architecture(12, 4), 3), [9, 3]);
});

Deno.test("the identity of a cut model is its own, and that of its cut", () =>
  withTiny(async ({ teacher }) => {
    const identity = async (width?: WidthCut) => {
      const model = await Model.open(teacher, { category: "weights", width });
      const found = [await modelIdentity(model), model.specs.prefix];
      model.close();
      return found;
    };
    const bias = UNEVEN.compensation![0]!;
    const other = {
      ...UNEVEN,
      compensation: [{ ...bias, mlp: bias.mlp.map((x) => -x) }, ...UNEVEN.compensation!.slice(1)],
    };
    const found = [
      await identity(),
      await identity(UNEVEN),
      await identity(UNCOMPENSATED),
      await identity(other),
    ];
    assertEquals(await identity(UNEVEN), found[1]);
    assertEquals(new Set(found.flat()).size, 8);
  }));

Deno.test("a cut goes through JSON unchanged; what is no cut is refused", () => {
  const json = JSON.parse(JSON.stringify(shapeWidthOf(UNEVEN)));
  assertEquals(widthCutOf(json, "shape.json"), UNEVEN);
  assertEquals(widthCutOf(shapeWidthOf(UNCOMPENSATED), "shape.json"), UNCOMPENSATED);
  for (const bias of ["no base64!", "AAAA"]) {
    const compensation = [{ ...json.compensation[0], mlp: bias }];
    const error = assertThrows(
      () => widthCutOf({ ...json, compensation }, "shape.json"),
      InputError,
    ) as InputError;
    assert(error.message.startsWith("shape.json: width.compensation.0.mlp must be"), error.message);
  }
});

Deno.test("a cut of another model is refused, naming what does not fit", () =>
  withTiny(async ({ teacher }) => {
    const source = await openModel(teacher);
    const architecture = readArchitecture(source.config, teacher);
    const refused = (change: Partial<WidthCut>, message: string) =>
      assertThrows(() => cutModel(source, architecture, { ...UNEVEN, ...change }), InputError, message);
    refused({ groups: UNEVEN.groups.slice(1) }, "groups of 2 layers; the model has 3");
    refused({ channels: [[1], [2], [CHANNELS]] }, "the channels of layer 2 must rise from 0 to at most 43");
    refused({ groups: [[1], [1, 0], [0]] }, "the groups of layer 1 must rise from 0 to at most 1");
    refused({ groups: [[1], [0, 0], [0]] }, "the groups of layer 1 must rise");
    refused({ groups: [[1], [-1], [0]] }, "the groups of layer 1 must rise");
    refused({ groups: [[1], [0.5], [0]] }, "the groups of layer 1 must rise");
    const [first, ...rest] = UNEVEN.compensation!;
    refused({ compensation: rest }, "the cut compensates 2 layers; the model has 3");
    const short = { ...first!, mlp: new Float64Array(31) };
    refused({ compensation: [short, ...rest] }, "the biases of layer 0 have 31 values, not 32");
    const broken = { ...first!, attention: new Float64Array(32).fill(NaN) };
    refused({ compensation: [broken, ...rest] }, "a bias of layer 0 is not a finite number");
    source.close();
    await assertRejects(
      () => Model.open(teacher, { category: "weights", layers: [0, 1], width: UNEVEN }),
      InputError,
      "groups of 3 layers; the model has 2",
    );
  }));
