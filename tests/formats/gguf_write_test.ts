// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Tokenizer } from "@huggingface/tokenizers";
import { InputError } from "../../src/base/errors.ts";
import { type FloatData, toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import { type GgufStorage, writeGgufModel } from "../../src/formats/gguf/export.ts";
import { ggufTokenizerMetadata } from "../../src/formats/gguf/tokenizer_write.ts";
import { quantizeQ8 } from "../../src/formats/gguf/blocks/quantize.ts";
import { unpackGguf } from "../../src/formats/gguf/types.ts";
import type { ModelSource } from "../../src/formats/model_source.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { tensorProblems } from "../../src/models/weights.ts";
import { sharedPath, sharedTest } from "../shared.ts";

async function exported(
  model: ModelSource,
  tokenizerOf: ModelSource,
  body: (written: ModelSource, path: string) => Promise<void>,
  storage?: GgufStorage,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const { config, tensors } = readArchitecture(model.config, model.path);
    const path = `${folder}/model.gguf`;
    await writeGgufModel(path, {
      name: "a model",
      about: { license: "mit" },
      architecture: "llama",
      config,
      tokenizer: { ...await tokenizerOf.tokenizer(), chatTemplate: "{{ messages }}" },
      tensors,
      read: (name) => model.read(name),
    }, storage);
    const written = await openModel(path);
    await body(written, path);
    written.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What Q8_0 makes of a tensor: the reference for a whole written file. */
function throughQ8(values: Float32Array): FloatData {
  return unpackGguf("Q8_0", quantizeQ8(values));
}

sharedTest(
  "writeGgufModel() writes stories15M so that it reads back: config, Q8_0 values, tokenizer",
  async () => {
    const model = await openModel(sharedPath("models/stories15M"));
    await exported(model, model, async (written, path) => {
      const architecture = readArchitecture(written.config, path);
      assertEquals(architecture.config, readArchitecture(model.config, model.path).config);
      assertEquals(tensorProblems(architecture, written.tensors), []);
      for (const [name, { dtype, shape }] of written.tensors) {
        assertEquals(dtype, shape.length === 1 ? "F32" : "Q8_0");
        const original = toFloat32("f32", (await model.read(name)).data);
        const { data } = await written.read(name);
        // Whole rows move under permutation and blocks lie within rows, so the order of the two does not matter.
        assertEquals(data, shape.length === 1 ? original : throughQ8(original), name);
      }
      assert(Deno.statSync(path).size < 17_500_000);

      const ours = await written.tokenizer();
      const theirs = await model.tokenizer();
      assertEquals(ours.chatTemplate, "{{ messages }}");
      const text = (merges: unknown[]) =>
        merges.map((merge) => Array.isArray(merge) ? merge.join(" ") : merge);
      type Bpe = { model: { merges: unknown[]; vocab: Record<string, number> } };
      const [read, original] = [ours.tokenizerJson as Bpe, theirs.tokenizerJson as Bpe];
      assertEquals(text(read.model.merges), text(original.model.merges));
      assertEquals(read.model.vocab, original.model.vocab);
      const tokenizer = new Tokenizer(ours.tokenizerJson as object, ours.tokenizerConfig);
      const plain = new Tokenizer(
        { ...ours.tokenizerJson as object, added_tokens: [] },
        ours.tokenizerConfig,
      );
      type Vectors = { vectors: { text: string; llama_cpp_ids: number[] }[] };
      const { vectors }: Vectors = JSON.parse(
        await Deno.readTextFile(sharedPath("vectors/llama2-exact.vectors.json")),
      );
      for (const { text, llama_cpp_ids } of vectors) {
        assertEquals(
          plain.encode(text, { add_special_tokens: false }).ids,
          llama_cpp_ids,
          JSON.stringify(text),
        );
      }
      assert(vectors.length > 40);
      assertEquals(tokenizer.encode("<s>a</s>").ids.filter((id) => id < 3), [1, 1, 2]);
    });
    model.close();
  },
);

sharedTest(
  "writeGgufModel() keeps llama3 frequencies, two end tokens, an untied head and biases",
  async () => {
    const tokenizers = { llama3_rope: "untied_mixed", llama_tied_bias: "tied_q8_0" };
    for (const [family, gguf] of Object.entries(tokenizers)) {
      const model = await openModel(sharedPath(`goldens/families/${family}`));
      const tokenizer = await openModel(sharedPath(`goldens/gguf/${gguf}.gguf`));
      await exported(model, tokenizer, async (written, path) => {
        const { inverseFrequencies, ...config } = readArchitecture(written.config, path).config;
        const { inverseFrequencies: expected, ...rest } = readArchitecture(model.config, model.path).config;
        assertEquals(config, rest);
        inverseFrequencies.forEach((value, i) => assert(Math.abs(value / expected[i] - 1) < 1e-7));
        for (const name of model.tensors.keys()) {
          assertEquals(await written.read(name), await model.read(name));
        }
        const [ours, theirs] = [await written.tokenizer(), await tokenizer.tokenizer()];
        assertEquals(ours.tokenizerJson, theirs.tokenizerJson);
        assertEquals(ours.tokenizerConfig, theirs.tokenizerConfig);
      }, "F32");
      model.close();
      tokenizer.close();
    }
  },
);

sharedTest("writeGgufModel() in Q8_0 makes the very bytes of the reference's tensors", async () => {
  const model = await openModel(sharedPath("goldens/families/llama_tied_bias"));
  const reference = await openModel(sharedPath("goldens/gguf/tied_q8_0.gguf"));
  const golden = await GgufFile.open(await openFile(reference.path));
  await exported(model, reference, async (_, path) => {
    const written = await GgufFile.open(await openFile(path));
    assertEquals([...written.tensors.keys()].sort(), [...golden.tensors.keys()].sort());
    for (const [name, { type, begin, end }] of golden.tensors) {
      const ours = written.entry(name);
      assertEquals(ours.type, type);
      const bytes = await written.source.read(ours.begin, ours.end - ours.begin);
      assertEquals(bytes, await golden.source.read(begin, end - begin), name);
    }
    for (const [key, value] of golden.metadata) {
      // A token that nothing merges into has a score of no consequence.
      if (key === "general.name" || key === "tokenizer.ggml.scores") continue;
      assertEquals(written.metadata.get(key), value, key);
    }
    written.close();
  });
  for (const file of [model, reference, golden]) file.close();
});

sharedTest(
  "writeGgufModel() names rows that do not fill blocks F16, and writes byte-level tokenizers",
  async () => {
    for (const [folder, f16] of [["stories260K", "down_proj"], ["minimind2-small", "none"]]) {
      const model = await openModel(sharedPath(`models/${folder}`));
      await exported(model, model, async (written) => {
        for (const [name, { dtype, shape }] of written.tensors) {
          assertEquals(dtype, shape.length === 1 ? "F32" : name.includes(f16) ? "F16" : "Q8_0");
        }
        const [ours, theirs] = [await written.tokenizer(), await model.tokenizer()];
        const [a, b] = [ours, theirs].map((files) =>
          new Tokenizer(files.tokenizerJson as object, files.tokenizerConfig)
        );
        for (
          const text of [
            "Once upon a time, it's 1999!",
            "  \n\n a\tb",
            "naïve 東京 🙂",
            "<|im_start|>user\nhi<|im_end|>",
          ]
        ) {
          const options = { add_special_tokens: false };
          assertEquals(a.encode(text, options).ids, b.encode(text, options).ids, text);
        }
      });
      model.close();
    }
  },
);

sharedTest(
  "writeGgufModel() refuses values that are not finite and a tokenizer it cannot express",
  async () => {
    const model = await openModel(sharedPath("goldens/families/llama_tied_bias"));
    const tokenizer = await openModel(sharedPath("goldens/gguf/tied_q8_0.gguf"));
    const broken: ModelSource = {
      ...model,
      read: async (name) => {
        const tensor = await model.read(name);
        if (name.includes("1.mlp.up")) tensor.data[7] = NaN;
        return tensor;
      },
    };
    const nothing = () => Promise.reject(new Error("was written"));
    await assertRejects(() => exported(broken, tokenizer, nothing), InputError, "1 values that are NaN");
    const shuffled: ModelSource = {
      ...tokenizer,
      tokenizer: async () => {
        const files = await tokenizer.tokenizer();
        const json = structuredClone(files.tokenizerJson) as { model: { merges: unknown[] } };
        json.model.merges.push(json.model.merges.shift());
        return { ...files, tokenizerJson: json };
      },
    };
    // Another order of merges is another order of scores; only splits of one token out of order cannot be expressed.
    await exported(model, shuffled, () => Promise.resolve());
    const dropped: ModelSource = {
      ...tokenizer,
      tokenizer: async () => {
        const files = await tokenizer.tokenizer();
        const json = structuredClone(files.tokenizerJson) as { model: { merges: unknown[] } };
        json.model.merges.pop();
        return { ...files, tokenizerJson: json };
      },
    };
    await assertRejects(() => exported(model, dropped, nothing), InputError, "do not follow from scores");
    model.close();
    tokenizer.close();
  },
);

Deno.test("ggufTokenizerMetadata() finds how a byte-level tokenizer cuts and whether it adds BOS", () => {
  const split = (Regex: string) => ({
    type: "Split",
    pattern: { Regex },
    behavior: "Isolated",
    invert: false,
  });
  const bytes = (use_regex: boolean) => ({ type: "ByteLevel", add_prefix_space: false, use_regex });
  const words = (digits: string) =>
    String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|` + digits +
    String.raw`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
  const sequence = (...pretokenizers: unknown[]) => ({ type: "Sequence", pretokenizers });
  const template = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "a" } }, { Sequence: { id: "A" } }],
  };
  const read = (parts: Record<string, unknown>) => {
    const model = { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"] };
    const files = { tokenizerJson: { model, ...parts }, tokenizerConfig: {} };
    const metadata = ggufTokenizerMetadata(files, { vocabularySize: 4, eosTokens: [] }, "tokenizer.json");
    return ["tokens", "pre", "add_bos_token"].map((key) => metadata.get(`tokenizer.ggml.${key}`)?.value);
  };
  const tokens = ["a", "b", "ab", "[PAD3]"];
  const digits = String.raw`\p{N}`;
  assertEquals(read({ pre_tokenizer: bytes(true) }), [tokens, "gpt-2", false]);
  assertEquals(
    read({
      pre_tokenizer: sequence(split(words(`${digits}{1,3}`)), bytes(false)),
      post_processor: { type: "Sequence", processors: [{ type: "ByteLevel" }, template] },
    }),
    [tokens, "llama-bpe", true],
  );
  const qwen = sequence(split(words(digits)), bytes(false));
  assertEquals(read({ pre_tokenizer: qwen, normalizer: { type: "NFC" } }), [tokens, "qwen2", false]);
  const smollm = sequence({ type: "Digits", individual_digits: true }, bytes(true));
  assertEquals(read({ pre_tokenizer: smollm, post_processor: template }), [tokens, "smollm", true]);
  for (
    const unknown of [
      { pre_tokenizer: sequence(split(words("x")), bytes(false)) },
      { pre_tokenizer: bytes(true), normalizer: { type: "NFKC" } },
      { pre_tokenizer: sequence(split(digits)) },
      { pre_tokenizer: null },
    ]
  ) assertThrows(() => read(unknown), InputError, "pre_tokenizer is not known");
});
