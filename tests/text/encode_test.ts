// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import type { DatasetRow } from "../../src/text/dataset.ts";
import { encodeDataset, type EncodeOptions, encodeRow } from "../../src/text/encode.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { sharedTest } from "../shared.ts";
import { loadTokenizer, tinyConfig, tinyTokenizer, tinyTokenizerJson } from "./fixtures.ts";

const source = { file: "train.jsonl", line: 3 };
const text = (text: string, line = 3): DatasetRow => ({
  shape: "text",
  text,
  source: { file: "train.jsonl", line },
});
const prompt = (prompt: string, completion: string): DatasetRow => ({
  shape: "prompt",
  prompt,
  completion,
  source,
});

/** Ids and flags of a row under the tiny tokenizer (a to e are 3 to 7, "ab" 9, "abc" 10, BOS 1, EOS 2). */
function encoded(row: DatasetRow, options: Partial<EncodeOptions> = {}): [number[], number[]] {
  const { ids, supervised } = encodeRow(row, { tokenizer: tinyTokenizer(), contextLength: 99, ...options });
  return [[...ids], [...supervised]];
}

Deno.test("encodeRow() makes every token of a text a target but the first", () => {
  assertEquals(encoded(text("de")), [[1, 6, 7, 2], [0, 1, 1, 1]]);
  assertEquals(encoded(text("de"), { mask: "completion" }), [[1, 6, 7, 2], [0, 1, 1, 1]]);
  const tokenizer = TextTokenizer.fromJson(
    tinyTokenizerJson(),
    { ...tinyConfig, add_bos_token: false },
    "no BOS",
  );
  assertEquals(encoded(text("de"), { tokenizer }), [[6, 7, 2], [0, 1, 1]]);
});

Deno.test("encodeRow() supervises the completion and its end, or everything when asked", () => {
  assertEquals(encoded(prompt("de", "ab")), [[1, 6, 7, 9, 2], [0, 0, 0, 1, 1]]);
  assertEquals(encoded(prompt("de", "ab"), { mask: "all" }), [[1, 6, 7, 9, 2], [0, 1, 1, 1, 1]]);
  assertEquals(encoded(prompt("", "de")), [[1, 6, 7, 2], [0, 1, 1, 1]]);
});

Deno.test("encodeRow() counts a token across the border as completion", () => {
  assertEquals(encoded(prompt("dab", "ce")), [[1, 6, 10, 7, 2], [0, 0, 1, 1, 1]]);
});

Deno.test("encodeRow() ends a text with the token that was chosen", () => {
  assertEquals(encoded(text("d"), { endToken: "bos" })[0], [1, 6, 1]);
  assertEquals(encoded(text("d"), { endToken: "none" })[0], [1, 6]);
  assertEquals(encoded(text("d"), { endToken: 5 })[0], [1, 6, 5]);
  assertEquals(encoded(text("d</s>"), { specialInText: true })[0], [1, 6, 2]);
  assertThrows(() => encoded(text("d"), { endToken: 99 }), InputError, "99 is not in the vocabulary");
  const tokenizer = TextTokenizer.fromJson(tinyTokenizerJson(), {}, "bare");
  assertThrows(() => encoded(text("d"), { tokenizer }), InputError, "the tokenizer has no eos token");
});

sharedTest("encodeRow() writes stories15M's samples as BOS, text, and BOS again when asked", () => {
  const tokenizer = loadTokenizer("stories15M");
  const { ids, supervised } = encodeRow(text("Once upon a time"), {
    tokenizer,
    contextLength: 256,
    endToken: "bos",
  });
  assertEquals([...ids], [1, 9038, 2501, 263, 931, 1]);
  assertEquals([...supervised], [0, 1, 1, 1, 1, 1]);
});

Deno.test("encodeDataset() cuts, drops, refuses or splits what is too long, and counts it", () => {
  const rows = [text("dededede", 1), text("de", 2)];
  const encode = (tooLong: EncodeOptions["tooLong"], contextLength = 4) =>
    encodeDataset(rows, { tokenizer: tinyTokenizer(), contextLength, tooLong });
  const ids = (result: ReturnType<typeof encode>) => result.samples.map((s) => [...s.ids]);

  const cut = encode("cut");
  assertEquals(ids(cut), [[1, 6, 7, 6], [1, 6, 7, 2]]);
  assertEquals(cut.report, {
    rows: 2,
    rowsByShape: { text: 2, prompt: 0, messages: 0 },
    samples: 2,
    tokens: 8,
    supervisedTokens: 6,
    longest: 10,
    cut: 1,
    dropped: 0,
    split: 0,
    withoutTarget: 0,
    // Six of the nine targets of the long text; it ends no more, the short one does.
    lostTargets: 6,
    stopsLearnt: 1,
  });
  assertEquals(ids(encode(undefined)), ids(cut));
  const drop = encode("drop");
  assertEquals([ids(drop), drop.report.dropped], [[[1, 6, 7, 2]], 1]);
  assertThrows(
    () => encode("refuse"),
    InputError,
    "1 sample is longer than the context of 4 tokens:\n  train.jsonl:1: 10 tokens",
  );

  const split = encode("split");
  assertEquals(ids(split), [[1, 6, 7, 6], [6, 7, 6, 7], [7, 6, 7, 2], [1, 6, 7, 2]]);
  assert(split.samples.every((s) => s.supervised[0] === 0));
  const written = encodeDataset([{ ...rows[0]!, origin: "student" }, rows[1]!], {
    tokenizer: tinyTokenizer(),
    contextLength: 4,
    tooLong: "split",
  });
  assertEquals(written.samples.map((s) => s.origin), ["student", "student", "student", undefined]);
  // Nine targets of the long text and three of the short one, each predicted once.
  assertEquals([split.report.supervisedTokens, split.report.split], [12, 1]);
  assertThrows(() => encode("cut", 1), InputError, "context length");
});

Deno.test("encodeDataset() leaves out samples without a target and refuses to end with none", () => {
  const options = { tokenizer: tinyTokenizer(), contextLength: 3 };
  const { samples, report } = encodeDataset([prompt("dede", "ab"), text("d")], options);
  assertEquals([samples.length, report.cut, report.withoutTarget], [1, 1, 1]);
  assertThrows(
    () => encodeDataset([prompt("dede", "ab")], options),
    InputError,
    "no sample is left of 1 rows",
  );
  const split = encodeDataset([prompt("dede", "ab")], { ...options, tooLong: "split" });
  assertEquals(split.samples.map((s) => [[...s.ids], [...s.supervised]]), [[[7, 9, 2], [0, 1, 1]]]);
  assertEquals([split.report.split, split.report.withoutTarget], [1, 2]);
});

Deno.test("encodeRow() encodes messages by the template and needs one", () => {
  const row: DatasetRow = {
    shape: "messages",
    messages: [{ role: "user", content: "d" }, { role: "assistant", content: "e" }],
    source,
  };
  assertThrows(() => encoded(row), InputError, "train.jsonl:3: the row is a conversation");
  const template = ChatTemplate.fromConfig({
    bos_token: "<s>",
    chat_template:
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %} {{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %} {% endif %}",
  }, { where: "tiny" });
  assertEquals(encoded(row, { template }), [[1, 6, 8, 7, 2], [0, 0, 0, 1, 1]]);
  assertEquals(encoded(prompt("d", "e"), { template, promptsAsChat: true }), encoded(row, { template }));
  assertEquals(encoded(row, { template, mask: "all" }), [[1, 6, 8, 7, 2], [0, 1, 1, 1, 1]]);
});
