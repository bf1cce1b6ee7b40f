/** Privileged text: what a teacher reads more than the student, to the token. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { rowsBeside } from "../../src/distill/program/privileged.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import { contentHash, type DatasetRow } from "../../src/text/dataset.ts";
import { encodeDataset, type EncodedSample, type EncodeOptions, encodeRow } from "../../src/text/encode.ts";
import { insertion, privilegedIds } from "../../src/text/privileged.ts";
import { previewDataset, renderPreview } from "../../src/text/preview.ts";
import { Columns } from "../../src/text/read/columns.ts";
import { rowOf } from "../../src/text/read/rows.ts";
import { tinyTokenizer } from "./fixtures.ts";

const source = { file: "d.jsonl", line: 1 };
const tokenizer = tinyTokenizer();
const template = ChatTemplate.fromConfig({
  chat_template: "{% for m in messages %}{% if m.role == 'user' %}<s>{{ m.content }} " +
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
}, { where: "m" })!;
const options: EncodeOptions = { tokenizer, template, contextLength: 99, privileged: true };

const text = (ids: Int32Array) => Array.from(ids, (id) => tokenizer.decode([id])).join("|");
/** What the student reads, and what the teacher reads. */
const both = (row: DatasetRow, change: Partial<EncodeOptions> = {}) => {
  const { ids, privileged } = encodeRow(row, { ...options, ...change });
  return [text(ids), privileged && text(privilegedIds(ids, privileged))];
};

Deno.test("a teacher reads a row's privileged text after the token that begins texts, and the same tokens then", () => {
  const row: DatasetRow = { shape: "prompt", prompt: "ab", completion: "cd", privileged: "dd", source };
  const [student, teacher] = both(row);
  assertEquals(student, text(encodeRow({ ...row, privileged: "x" }, { ...options, privileged: false }).ids));
  assertEquals(teacher, student!.replace("<s>|", "<s>|d|d|"));
  assertEquals(
    both({ shape: "text", text: "ab", privileged: "dd", source })[1]!.startsWith("<s>|d|d|"),
    true,
  );
  // Who does not ask for it, and rows without it.
  assertEquals(encodeRow(row, { ...options, privileged: false }).privileged, undefined);
  assertEquals(both({ shape: "text", text: "ab", source })[1], undefined);
});

Deno.test("in a conversation privileged text stands before what the user says first, in either shape of row", () => {
  const turns: DatasetRow = {
    ...{ shape: "messages", privileged: "d", source },
    messages: [{ role: "user", content: "a" }, { role: "assistant", content: "e" }, {
      role: "user",
      content: "c",
    }],
  };
  const [student, teacher] = both(turns, { mask: "all" });
  assertEquals(teacher, student!.replace("<s>|", "<s>|d|"));
  const row: DatasetRow = { shape: "prompt", prompt: "a", completion: "e", privileged: "d", source };
  const [own, told] = both(row, { promptsAsChat: true });
  assertEquals(told, own!.replace("<s>|", "<s>|d|"));
  const noUser: DatasetRow = { ...turns, messages: [{ role: "assistant", content: "e" }] };
  assertThrows(() => both(noUser), InputError, "no user whose turn");
});

Deno.test("a preview shows what the teacher alone reads", () => {
  const row: DatasetRow = { shape: "prompt", prompt: "ab", completion: "cd", privileged: "dd", source };
  const shown = previewDataset([row, { ...row, privileged: "" }], options);
  assertEquals(shown.samples[0]!.privileged, { at: 1, text: "dd" });
  assertStringIncludes(renderPreview(shown), "the teacher alone reads, after 1 of them: dd\n");
});

Deno.test("text that joins with what follows it is refused by its line, and so are pairs", () => {
  const ids = (...list: number[]) => Int32Array.from(list);
  assertEquals(insertion(ids(1, 5, 6), ids(1, 8, 9, 5, 6), source), { at: 1, ids: ids(8, 9) });
  // What is put in may begin or end as what it stands between.
  assertEquals(
    privilegedIds(ids(1, 5, 5), insertion(ids(1, 5, 5), ids(1, 5, 5, 5, 5), source)),
    ids(1, 5, 5, 5, 5),
  );
  for (
    const [student, teacher] of [[ids(1, 5, 6), ids(1, 8, 7, 6)], [ids(1, 5), ids(1, 5)], [ids(1, 5), ids(1)]]
  ) {
    const error = assertThrows(() => insertion(student!, teacher!, source), InputError, "tokens in common");
    assertEquals(error.where, "d.jsonl:1");
  }
  const pair: DatasetRow = {
    shape: "pair",
    prompt: "a",
    chosen: "b",
    rejected: "c",
    privileged: "d",
    source,
  };
  assertThrows(() => encodeRow(pair, options), InputError, "chosen and a rejected");
});

Deno.test("a cut sample keeps what the teacher reads, unless the cut comes before it", () => {
  const row: DatasetRow = { shape: "text", text: "abcdeabcde", privileged: "dd", source };
  const [sample] = encodeDataset([row], { ...options, contextLength: 4 }).samples;
  assertEquals([sample!.ids.length, sample!.privileged!.at], [4, 1]);
});

Deno.test("each row of the student stands beside the teacher's that predicts the same token", () => {
  const sample = (length: number, at?: number, more = 0): EncodedSample => ({
    ids: Int32Array.from({ length }, (_, i) => i + 10),
    supervised: new Uint8Array(length).fill(1),
    source,
    ...(at === undefined ? {} : { privileged: { at, ids: new Int32Array(more).fill(7) } }),
  });
  const members = [sample(4, 1, 3), sample(3), sample(3, 0, 2), sample(4, 2, 1), sample(1)];
  const student = members.flatMap(({ ids }) => [...ids]);
  const teacher = members.flatMap(({ ids, privileged }) =>
    privileged ? [...privilegedIds(ids, privileged)] : [...ids]
  );
  const ends = members.reduce<number[]>((all, { ids }) => [...all, (all.at(-1) ?? 0) + ids.length], []);
  const rows = rowsBeside(members, student.length + 3);
  for (const [t, row] of rows.entries()) {
    const isLast = t >= student.length || ends.includes(t + 1);
    assertEquals(row === -1, isLast, `row ${t}`);
    if (!isLast) assertEquals(teacher[row + 1], student[t + 1], `row ${t}`);
  }
});

Deno.test("privileged text is read from its member or a template of columns, and copies are found without it", () => {
  const plain = rowOf({ prompt: "a", completion: "b", privileged: "c" }, source);
  assertEquals(plain.privileged, "c");
  assertEquals(
    rowOf({ text: "a", privileged: 7 }, source).privileged,
    undefined,
    "another's column of the name",
  );
  const columns = new Columns({ prompt: "q", completion: "a", privileged: "It is {a}.\n" });
  const read = rowOf(columns.read({ q: "1 + 1?", a: 2 }), source);
  assertEquals(read, {
    shape: "prompt",
    prompt: "1 + 1?",
    completion: "2",
    privileged: "It is 2.\n",
    source,
  });
  const messages = [{ role: "user", content: "a" }];
  const hash = (privileged?: string) =>
    contentHash({ shape: "messages", messages, source, ...(privileged ? { privileged } : {}) });
  assertEquals(hash("x"), hash());
});
