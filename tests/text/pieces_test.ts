/** Samples longer than the context, and masks that cannot be meant. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import type { DatasetRow } from "../../src/text/dataset.ts";
import { encodeDataset, type EncodeOptions, encodeRow } from "../../src/text/encode.ts";
import { tinyTokenizer } from "./fixtures.ts";

const source = { file: "d.jsonl", line: 3 };
const tokenizer = tinyTokenizer();

Deno.test("pieces of a split sample overlap as asked, and each target is predicted once, in the earliest of them", () => {
  for (let length = 3; length <= 12; length++) {
    for (let overlap = 1; overlap < length; overlap++) {
      for (let letters = 1; letters <= 40; letters += 3) {
        const text = Array.from({ length: letters }, (_, i) => "ade"[i % 3]).join("");
        const row: DatasetRow = { shape: "text", text, source };
        const whole = encodeRow(row, { tokenizer, contextLength: 99 });
        const { samples, report } = encodeDataset([row], {
          ...{ tokenizer, contextLength: length, overlap },
          tooLong: "split",
        });
        const what = `${letters} letters in pieces of ${length} with ${overlap}`;
        let at = 0;
        const predicted = new Uint8Array(whole.ids.length);
        for (const [i, { ids, supervised }] of samples.entries()) {
          assert(ids.length <= length, what);
          assertEquals([...ids], [...whole.ids.subarray(at, at + ids.length)], what);
          supervised.forEach((flag, j) => predicted[at + j]! += flag);
          // What comes after the first piece has the whole overlap before it.
          if (i > 0) assertEquals(supervised.indexOf(1), overlap, what);
          at += length - overlap;
        }
        assertEquals([...predicted], [...whole.supervised], what);
        assertEquals([report.lostTargets, report.split], [0, whole.ids.length > length ? 1 : 0], what);
      }
    }
  }
  for (const overlap of [0, 4, 1.5]) {
    const options: EncodeOptions = { tokenizer, contextLength: 4, overlap, tooLong: "split" };
    assertThrows(
      () => encodeDataset([], options),
      InputError,
      "the overlap must be a whole number from 1 to 3",
    );
  }
});

Deno.test("what is lost with long samples is counted, and whether the end of texts is learnt", () => {
  const row: DatasetRow = { shape: "prompt", prompt: "dede", completion: "eeee", source };
  const report = (options: Partial<EncodeOptions>) =>
    encodeDataset([row, { ...row, prompt: "" }], { tokenizer, contextLength: 7, ...options }).report;
  // BOS, four of the prompt, four of the completion, EOS.
  assertEquals(report({}).lostTargets, 3);
  assertEquals(report({ tooLong: "drop" }).lostTargets, 5);
  assertEquals([report({}).stopsLearnt, report({ contextLength: 10 }).stopsLearnt], [1, 2]);
  assertEquals(report({ endToken: "none" }).stopsLearnt, 0);
  assertEquals(report({ endToken: "bos" }).stopsLearnt, 1);
  assertEquals(report({ endToken: 5, contextLength: 10 }).stopsLearnt, 2);
});

Deno.test("a mask that learns nothing of an answer, or all of a question, is refused", () => {
  const template = (turns: string) => ChatTemplate.fromConfig({ chat_template: turns }, { where: "m" })!;
  const row: DatasetRow = {
    shape: "messages",
    messages: [{ role: "user", content: "de" }, { role: "assistant", content: "ed" }],
    source,
  };
  const encode = (turns: string, some: Partial<EncodeOptions> = {}) =>
    encodeRow(row, { tokenizer, template: template(turns), contextLength: 99, ...some });
  const silent = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}";
  const deaf = "{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}";
  assertThrows(
    () => encode(silent),
    InputError,
    "d.jsonl:3: no token would be learnt: the chat template writes nothing of what the assistant says",
  );
  assertThrows(() => encode(deaf), InputError, "d.jsonl:3: every token would be learnt");
  assert(encode(silent, { mask: "all" }).supervised.includes(1));
  assert(encode(deaf, { mask: "all" }).supervised.includes(1));
  // An empty answer, or none, is left out and counted; an empty question leaves the answer alone.
  const messages = [{ role: "user", content: "ab" }];
  const { report } = encodeDataset(
    [{ ...row, messages }, { ...row, messages: [...messages, { role: "assistant", content: " " }] }, {
      shape: "text",
      text: "a",
      source,
    }],
    { tokenizer, template: template(silent), contextLength: 99 },
  );
  assertEquals(report.withoutTarget, 2);
});
