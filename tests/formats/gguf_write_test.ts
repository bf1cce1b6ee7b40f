// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Tokenizer } from "@huggingface/tokenizers";
import { InputError } from "../../src/base/errors.ts";
import { type FloatData, toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { GgufFile, type GgufValue } from "../../src/formats/gguf/gguf.ts";
import { type GgufStorage, type TypeChoice, writeGgufModel } from "../../src/formats/gguf/export.ts";
import { ggufTokenizer } from "../../src/formats/gguf/tokenizer.ts";
import { ggufTokenizerMetadata } from "../../src/formats/gguf/tokenizer_write.ts";
import { quantizeQ8 } from "../../src/formats/gguf/blocks/quantize.ts";
import { chooseType, quantizers, type WrittenType } from "../../src/formats/gguf/mixture.ts";
import { unpackGguf } from "../../src/formats/gguf/types.ts";
import type { ModelSource } from "../../src/formats/model_source.ts";
import { memorySource } from "../../src/formats/source.ts";
import { openModel } from "../../src/formats/open_model.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { tensorProblems } from "../../src/models/weights.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { smallModel } from "./small_model.ts";

async function exported(
  model: ModelSource,
  tokenizerOf: ModelSource,
  body: (written: ModelSource, path: string) => Promise<void>,
  storage?: GgufStorage,
  report?: (types: readonly TypeChoice[]) => void,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const { config, tensors } = readArchitecture(model.config, model.path);
    const path = `${folder}/model.gguf`;
    await writeGgufModel(
      path,
      {
        name: "a model",
        about: { license: "mit" },
        architecture: "llama",
        config,
        tokenizer: { ...await tokenizerOf.tokenizer(), chatTemplate: "{{ messages }}" },
        tensors,
        read: (name) => model.read(name),
      },
      storage,
      report,
    );
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
        const numbers = (from: Record<string, unknown>) => {
          const { inverseFrequencies, description: _, ...rest } = readArchitecture(from, path)
            .config as DescribedConfig;
          return { inverseFrequencies, rest };
        };
        const { inverseFrequencies, rest: config } = numbers(written.config);
        const { inverseFrequencies: expected, rest } = numbers(model.config);
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

Deno.test("chooseType() mixes as llama-quantize does, and takes smaller blocks where rows are short", () => {
  const model = { layers: 8, tied: false };
  const types = (storage: GgufStorage, tied = false) =>
    ["token_embd", "output", "blk.0.attn_v", "blk.1.attn_v", "blk.3.ffn_down", "blk.3.attn_q"].map((name) =>
      chooseType(`${name}.weight`, [4, 512], storage, { ...model, tied }).type
    );
  assertEquals(types("Q4_K_M"), ["Q4_K", "Q6_K", "Q6_K", "Q4_K", "Q6_K", "Q4_K"]);
  assertEquals(types("Q4_K_M", true)[0], "Q6_K");
  assertEquals(types("Q4_0"), ["Q4_0", "Q6_K", "Q4_0", "Q4_0", "Q4_0", "Q4_0"]);
  assertEquals(types("Q6_K"), Array(6).fill("Q6_K"));
  const down = Array.from(
    { length: 22 },
    (_, i) => chooseType(`blk.${i}.ffn_down.weight`, [4, 512], "Q4_K_M", { layers: 22, tied: false }).type,
  );
  const more = down.flatMap((type, i) => type === "Q6_K" ? [i] : []);
  assertEquals(more, [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]);
  const short = (storage: GgufStorage, width: number, name = "blk.2.ffn_up.weight") => {
    const { type, instead } = chooseType(name, [4, width], storage, model);
    return [type, instead];
  };
  assertEquals(short("Q4_K_M", 96), ["Q5_0", "Q4_K"]);
  assertEquals(short("Q4_K_M", 96, "output.weight"), ["Q8_0", "Q6_K"]);
  assertEquals(short("Q4_K_M", 40), ["F16", "Q4_K"]);
  assertEquals(short("Q4_0", 40), ["F16", "Q4_0"]);
  assertEquals(chooseType("output_norm.weight", [512], "Q4_K_M", model).type, "F32");
});

Deno.test("writeGgufModel() writes each mixture so that it reads back as its quantisers round", async () => {
  const model = smallModel();
  const types = { Q4_K_M: "F32 Q4_K Q5_0 Q6_K Q8_0", Q6_K: "F32 Q6_K Q8_0", Q4_0: "F32 Q4_0 Q6_K" };
  for (const [storage, expected] of Object.entries(types)) {
    let told: readonly TypeChoice[] = [];
    await exported(
      model,
      model,
      async (written, path) => {
        assertEquals(told.map(({ type }) => type), [...written.tensors.values()].map(({ dtype }) => dtype));
        const file = await GgufFile.open(await openFile(path));
        const fileType = { Q4_K_M: 15, Q6_K: 18, Q4_0: 2 }[storage]!;
        assertEquals(file.metadata.get("general.file_type"), fileType);
        file.close();
        for (const [name, { dtype }] of written.tensors) {
          const original = (await model.read(name)).data as Float32Array;
          const quantize = quantizers[dtype as WrittenType];
          // Rows of q and k change their place whole, and blocks lie within rows.
          assertEquals(
            (await written.read(name)).data,
            quantize ? unpackGguf(dtype, quantize(original)) : original,
          );
        }
      },
      storage as GgufStorage,
      (types) => told = types,
    );
    assertEquals([...new Set(told.map(({ type }) => type))].sort().join(" "), expected);
  }
});

Deno.test("writeGgufModel() refuses values that no f16 can scale, but in f32", async () => {
  const model = smallModel();
  const large: ModelSource = {
    ...model,
    read: async (name) => {
      const tensor = await model.read(name);
      if (name.includes("mlp.up")) tensor.data[7] = 70000;
      return tensor;
    },
  };
  const error = await assertRejects(
    () => exported(large, model, () => Promise.resolve(), "Q4_0"),
    InputError,
    "values too large for Q4_0",
  );
  assert(error.hint?.includes("f32"));
  await exported(large, model, () => Promise.resolve(), "F32");
});

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
  const read = (parts: Record<string, unknown>, ignore_merges = false) => {
    const model = { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"], ignore_merges };
    const files = { tokenizerJson: { model, ...parts }, tokenizerConfig: {} };
    const metadata = ggufTokenizerMetadata(files, { vocabularySize: 4, eosTokens: [] }, "tokenizer.json");
    return ["tokens", "pre", "add_bos_token"].map((key) => metadata.get(`tokenizer.ggml.${key}`)?.value);
  };
  const tokens = ["a", "b", "ab", "[PAD3]"];
  const digits = String.raw`\p{N}`;
  assertEquals(read({ pre_tokenizer: bytes(true) }), [tokens, "gpt-2", false]);
  // GPT-NeoX composes characters, which llama.cpp leaves out.
  assertEquals(read({ pre_tokenizer: bytes(true), normalizer: { type: "NFC" } }), [tokens, "gpt-2", false]);
  const llama3 = {
    pre_tokenizer: sequence(split(words(`${digits}{1,3}`)), bytes(false)),
    post_processor: { type: "Sequence", processors: [{ type: "ByteLevel" }, template] },
  };
  assertEquals(read(llama3, true), [tokens, "llama-bpe", true]);
  assertEquals(read(llama3), [tokens, "dbrx", true]);
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
  assertThrows(() => read({ pre_tokenizer: qwen }, true), InputError, "pre_tokenizer is not known");
});

Deno.test("ggufTokenizerMetadata() writes Gemma's tokenizer: no leading space, longer halves first, tokens of the text's own", () => {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const tokens = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<tag>",
    ...bytes,
    "a",
    "b",
    "\u2581",
    "ab",
    "ba",
    "aba",
    "\u2581a",
  ];
  const added = tokens.slice(0, 5).map((content, id) => ({ id, content, special: id < 4 }));
  const files = (merges: string[][], pre_tokenizer: unknown) => ({
    tokenizerJson: {
      added_tokens: added,
      normalizer: { type: "Replace", pattern: { String: " " }, content: "\u2581" },
      pre_tokenizer,
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<bos>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        special_tokens: { "<bos>": { id: "<bos>", ids: [2], tokens: ["<bos>"] } },
      },
      decoder: { type: "Fuse" },
      model: {
        ...{ type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: true },
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges,
      },
    },
    tokenizerConfig: { bos_token: "<bos>", eos_token: "<eos>", unk_token: "<unk>" },
  });
  const split = { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false };
  // Of the ways to make "aba", the one with the longer left half first: ids would have it the other way round.
  const merges = [["ab", "a"], ["a", "ba"], ["a", "b"], ["b", "a"], ["\u2581", "a"]];
  const config = { vocabularySize: tokens.length, bosToken: 2, eosTokens: [1] };
  const metadata = ggufTokenizerMetadata(files(merges, split), config, "tokenizer.json");
  const value = (key: string) => metadata.get(`tokenizer.ggml.${key}`)?.value;
  assertEquals(["model", "add_space_prefix", "add_bos_token"].map(value), ["llama", false, true]);
  assertEquals([...(value("token_type") as Int32Array).slice(0, 6)], [3, 3, 3, 2, 4, 6]);
  const read = ggufTokenizer({
    metadata: new Map([...metadata].map(([key, { value }]) => [key, value as GgufValue])),
    source: memorySource("a.gguf", new Uint8Array()),
  });
  const [ours, theirs] = [read, files(merges, split)].map(({ tokenizerJson, tokenizerConfig }) =>
    new Tokenizer(tokenizerJson as object, tokenizerConfig)
  );
  for (const text of ["aba ab", " a", "ab<tag>é ba", "<bos>b  a"]) {
    assertEquals(ours.encode(text).ids, theirs.encode(text).ids, text);
  }
  const without = (merge: string[]) => merges.filter((other) => other !== merge);
  for (const changed of [without(merges[0]!), without(merges[2]!), [...merges, ["a", "\u2581"]]]) {
    assertThrows(
      () => ggufTokenizerMetadata(files(changed, split), config, "tokenizer.json"),
      InputError,
      "do not follow from scores",
    );
  }
  const elsewhere = { ...split, pattern: { String: "a" } };
  assertThrows(
    () => ggufTokenizerMetadata(files(merges, elsewhere), config, "tokenizer.json"),
    InputError,
    "treats spaces in a way",
  );
});

Deno.test("ggufTokenizer() knows the ways to cut of llama.cpp's names, and refuses others by name", () => {
  const read = (pre: string) => {
    const metadata = new Map<string, GgufValue>([
      ["tokenizer.ggml.model", "gpt2"],
      ["tokenizer.ggml.pre", pre],
      // Bytes as they are written in byte-level tokens, and pieces that show where a text was cut.
      ["tokenizer.ggml.tokens", [
        "a",
        "B",
        "1",
        "2",
        "3",
        "\u0120",
        "'",
        "12",
        "123",
        "aB",
        "Ba",
        "\u0120a",
        "'a",
      ]],
      ["tokenizer.ggml.merges", ["1 2", "12 3", "a B", "B a", "\u0120 a", "' a"]],
    ]);
    return ggufTokenizer({ metadata, source: memorySource("m.gguf", new Uint8Array()) });
  };
  const pieces = (pre: string, text: string) => {
    const { tokenizerJson, tokenizerConfig } = read(pre);
    return new Tokenizer(tokenizerJson as object, tokenizerConfig).encode(text, { add_special_tokens: false })
      .tokens;
  };
  for (
    const pre of [
      "default",
      "gpt-2",
      "olmo",
      "llama-bpe",
      "dbrx",
      "qwen2",
      "smollm",
      "refact",
      "tekken",
      "gpt-4o",
    ]
  ) {
    const isSingle = ["qwen2", "smollm", "refact", "tekken"].includes(pre);
    assertEquals(pieces(pre, "123"), isSingle ? ["1", "2", "3"] : ["123"], pre);
    assertEquals(
      pieces(pre, "aB a"),
      ["tekken", "gpt-4o"].includes(pre) ? ["a", "B", "\u0120a"] : ["aB", "\u0120a"],
      pre,
    );
    const keeps = ["llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o"].includes(pre);
    assertEquals(pieces(pre, "'a"), keeps ? ["'a"] : ["'", "a"], pre);
  }
  assertEquals(
    (read("tekken").tokenizerJson as { model: { ignore_merges: boolean } }).model.ignore_merges,
    true,
  );
  for (const pre of ["viking", "kimi-k2", "llama"]) {
    const error = assertThrows(() => read(pre), InputError, `tokenizer.ggml.pre is "${pre}"`);
    assert(error.hint?.includes("refact"));
  }
});
