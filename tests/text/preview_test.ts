// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import type { DatasetRow } from "../../src/text/dataset.ts";
import { encodeRow } from "../../src/text/encode.ts";
import { previewDataset, previewSample, renderPreview } from "../../src/text/preview.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { loadTokenizer, readJson, tinyTokenizer } from "./fixtures.ts";

const source = { file: "train.jsonl", line: 1 };
const prompt: DatasetRow = { shape: "prompt", prompt: "de", completion: "abc", source };

Deno.test("previewDataset() takes samples apart token by token and counts the whole dataset", () => {
  const rows: DatasetRow[] = [prompt, {
    shape: "text",
    text: "dededede",
    source: { file: "train.jsonl", line: 2 },
  }];
  const preview = previewDataset(rows, { tokenizer: tinyTokenizer(), contextLength: 5 }, 1);
  assertEquals(preview.samples, [{
    source,
    supervised: 2,
    pieces: [
      { id: 1, text: "<s>", supervised: false },
      { id: 6, text: "d", supervised: false },
      { id: 7, text: "e", supervised: false },
      { id: 10, text: "abc", supervised: true },
      { id: 2, text: "</s>", supervised: true },
    ],
  }]);
  assertEquals(preview.warnings, []);
  assertEquals(
    renderPreview(preview),
    "train.jsonl:1: 5 tokens, 2 supervised\n<s>de[[abc</s>]]\n\n" +
      "rows: 2 (1 text, 1 prompt/completion)\nsamples: 2, longest row 10 tokens\n" +
      "tokens: 10, of them 6 supervised (60.0 %)\ntoo long: 1 cut, 0 dropped, 0 split; without a target: 0\n",
  );
  assertStringIncludes(renderPreview(preview, { color: true }), "<s>de\x1b[32mabc</s>\x1b[39m\n");
});

Deno.test("previewDataset() says who wrote the rows", () => {
  const rows = ["student", "teacher", "student", undefined].map((origin) => ({
    ...prompt,
    ...(origin ? { origin } : {}),
  }));
  const preview = previewDataset(rows, { tokenizer: tinyTokenizer(), contextLength: 5 }, 1);
  assertEquals(preview.origins, [{ origin: "student", samples: 2 }, { origin: "teacher", samples: 1 }]);
  const text = renderPreview(preview);
  assertStringIncludes(text, "train.jsonl:1: 5 tokens, 2 supervised, source student\n");
  assertStringIncludes(text, "\nsamples by source: 2 student, 1 teacher\n");
});

Deno.test("previewDataset() warns of special tokens written out and of unknown tokens", () => {
  const row: DatasetRow = { shape: "prompt", prompt: "d</s>", completion: "e", source };
  const options = { tokenizer: tinyTokenizer(), contextLength: 20 };
  const { warnings } = previewDataset([prompt, row], options);
  assertEquals(warnings.length, 2);
  assertStringIncludes(
    warnings[0],
    '1 row contains the special token "</s>" written out (first: train.jsonl:1); it is kept as plain text',
  );
  assertStringIncludes(warnings[1], "unknown to the vocabulary");
  const asControl = previewDataset([row], { ...options, specialInText: true }).warnings;
  assertEquals(asControl.length, 1);
  assertStringIncludes(asControl[0], "becomes the control token");
});

Deno.test("previewDataset() warns when conversations lack the BOS token that texts get", () => {
  const options = { tokenizer: tinyTokenizer(), contextLength: 20, promptsAsChat: true };
  const template = (prefix: string) =>
    ChatTemplate.fromConfig({
      chat_template: prefix + "{% for m in messages %}{{ m.content }}</s>{% endfor %}",
    }, { where: "m" });
  assertEquals(previewDataset([prompt], { ...options, template: template("<s>") }).warnings, []);
  const { warnings } = previewDataset([prompt], { ...options, template: template("") });
  assertStringIncludes(warnings[0], "1 of 1 samples do not begin with the BOS token 1");
});

sharedTest("previewSample() joins to the text of the sample, whatever the characters", () => {
  const tokenizer = loadTokenizer("minimind2-small");
  const config = readJson(sharedPath("models/minimind2-small/tokenizer_config.json")) as Record<
    string,
    unknown
  >;
  const template = ChatTemplate.fromConfig(config, { where: "m" });
  const row: DatasetRow = {
    shape: "messages",
    messages: [{ role: "user", content: "🦙 你好" }, { role: "assistant", content: "\x1b[31mé🦙" }],
    source,
  };
  const options = { tokenizer, template, contextLength: 200 };
  const encoded = encodeRow(row, options);
  const sample = previewSample(encoded, tokenizer);
  assertEquals(sample.pieces.map((piece) => piece.text).join(""), tokenizer.decode(encoded.ids));
  assert(sample.pieces.some((piece) => piece.text === ""));
  const text = renderPreview(previewDataset([row], options));
  assertStringIncludes(text, "<|im_start|>assistant\n[[\\x1b[31mé🦙<|im_end|>]]\n");
});
