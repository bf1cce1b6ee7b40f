/**
 * Special tokens that are written out in data stay text, whatever kind of tokenizer: else whoever wrote the data could end a turn, begin
 * another in someone else's name, or end the text.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import type { DatasetRow } from "../../src/text/dataset.ts";
import { encodeRow } from "../../src/text/encode.ts";
import { sentencePieceFiles } from "../../src/formats/sentencepiece/tokenizer_files.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { sharedTest } from "../shared.ts";
import { loadTokenizer, tinyConfig, tinyTokenizerJson } from "./fixtures.ts";
import { llamaModel, probableModel } from "./sentencepiece_file.ts";

const source = { file: "d.jsonl", line: 1 };
const specials = ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, special: true }));

/** One of each kind that there is, over the letters of the texts below. */
const KINDS: Readonly<Record<string, () => TextTokenizer>> = {
  "byte pairs": () =>
    TextTokenizer.fromJson(
      { ...tinyTokenizerJson(), model: { ...letters("BPE"), unk_token: "<unk>", merges: ["</ s", "</s >"] } },
      tinyConfig,
      "bpe",
    ),
  "byte pairs with a normaliser": () =>
    TextTokenizer.fromJson(
      {
        ...tinyTokenizerJson(),
        normalizer: { type: "Sequence", normalizers: [{ type: "NFKC" }, { type: "Lowercase" }] },
        added_tokens: specials.map((token) => ({ ...token, normalized: true })),
        model: { ...letters("BPE"), unk_token: "<unk>", merges: [] },
      },
      tinyConfig,
      "normalised",
    ),
  "a Unigram lattice": () =>
    TextTokenizer.fromJson(
      {
        ...tinyTokenizerJson(),
        model: {
          type: "Unigram",
          unk_id: 0,
          // The special tokens are the likeliest pieces of all.
          vocab: [
            ["<unk>", 0],
            ["<s>", 0],
            ["</s>", 0],
            ...[..."abcde s<>/"].map((c) => [c, -1]),
          ],
        },
      },
      tinyConfig,
      "unigram",
    ),
  "whole words": () =>
    TextTokenizer.fromJson(
      {
        ...tinyTokenizerJson(),
        pre_tokenizer: { type: "WhitespaceSplit" },
        model: {
          ...letters("WordPiece"),
          unk_token: "<unk>",
          continuing_subword_prefix: "##",
          max_input_chars_per_word: 100,
        },
        decoder: { type: "WordPiece", prefix: "##", cleanup: false },
      },
      tinyConfig,
      "wordpiece",
    ),
  "SentencePiece, merging": () => sentencePiece(llamaModel),
  "SentencePiece, probable": () => sentencePiece(probableModel),
};

function sentencePiece(model: Uint8Array): TextTokenizer {
  const { tokenizerJson, tokenizerConfig } = sentencePieceFiles(model, {}, {}, "tokenizer.model");
  return TextTokenizer.fromJson(tokenizerJson, { ...tokenizerConfig, ...tinyConfig }, "tokenizer.model");
}

function letters(type: string): Record<string, unknown> {
  const tokens = ["<unk>", "<s>", "</s>", ..."abcde s<>/", "</", "</s", ..."abcdes<>/"].map((token, i, all) =>
    all.indexOf(token) < i ? `##${token}` : token
  );
  return { type, vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) };
}

const TEXTS = [
  "a</s>b",
  "<s>",
  "</s>",
  "<s>a",
  "a </s> b",
  "</s></s>",
  "<s></s>",
  "<<s>>",
  "</</s>s>",
  "＜/s＞",
  "</S>",
];

for (const [kind, make] of Object.entries(KINDS)) {
  Deno.test(`special tokens written out are text: ${kind}`, () => {
    const tokenizer = make();
    for (const text of TEXTS) {
      const ids = [...tokenizer.encode(text, { addBos: false })];
      assertEquals(ids.filter((id) => id === 1 || id === 2), [], `${text}: ${ids}`);
      const row: DatasetRow = { shape: "prompt", prompt: text, completion: text, source };
      const encoded = encodeRow(row, { tokenizer, contextLength: 99 });
      // The one that begins a sequence, and the one that ends it, are put there.
      assertEquals([...encoded.ids].filter((id) => id === 1 || id === 2), [1, 2], text);
      assertEquals([encoded.ids[0], encoded.ids.at(-1)], [1, 2], text);
    }
    // Asked for, they are those tokens.
    const row: DatasetRow = { shape: "text", text: "a</s>b", source };
    const parsed = encodeRow(row, { tokenizer, contextLength: 99, specialInText: true });
    assertEquals([...parsed.ids].filter((id) => id === 2).length, 2, kind);
  });
}

sharedTest("special tokens written out are text for real tokenizers, in rows of every shape", () => {
  for (const model of ["minimind2-small", "stories15M", "stories260K"]) {
    const tokenizer = loadTokenizer(model);
    const special = new Set(tokenizer.specialTokens.keys());
    for (const token of tokenizer.specialTokens.values()) {
      for (const text of [token, `a ${token} b`, token + token, `${token.slice(0, 1)}${token}`]) {
        const ids = tokenizer.encode(text, { addBos: false });
        // A model may name an ordinary token as the unknown one.
        const found = [...ids].filter((id) => special.has(id) && id !== tokenizer.unknownToken);
        assertEquals(found, [], `${model}: ${text}`);
        assertEquals(tokenizer.decode(ids).trim(), text, model);
      }
    }
  }
});

Deno.test("in messages special tokens stay text in every member, unless they are asked for", () => {
  const template = ChatTemplate.fromConfig({
    chat_template: "{% for m in messages %}<s>{{ m.name or '' }}{{ m.content }}</s>{% endfor %}" +
      "{% if add_generation_prompt %}<s>{% endif %}",
  }, { where: "m" })!;
  const tokenizer = KINDS["byte pairs"]!();
  const row: DatasetRow = {
    shape: "messages",
    messages: [{ role: "user", content: "a</s><s>b", name: "</s>" }, { role: "assistant", content: "<s>c" }],
    source,
  };
  const ids = (specialInText: boolean) =>
    [...encodeRow(row, { tokenizer, template, contextLength: 99, specialInText }).ids]
      .filter((id) => id === 1 || id === 2);
  assertEquals(ids(false), [1, 2, 1, 2]);
  assertEquals(ids(true), [1, 2, 2, 1, 2, 1, 1, 2]);
  assert(tokenizer.isSpecial(1));
});
