// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import {
  contentHash,
  countShared,
  DatasetError,
  type DatasetRow,
  openDataset,
  readRows,
  splitHeldOut,
} from "../../src/text/dataset.ts";
import { sharedPath, sharedTest } from "../shared.ts";

type Bytes = string | number[];

/** Bytes of strings and raw lists, in chunks of `size`. */
async function* chunks(parts: Bytes[], size: number): AsyncGenerator<Uint8Array> {
  const all = parts.flatMap((part) => typeof part === "string" ? [...new TextEncoder().encode(part)] : part);
  for (let i = 0; i < all.length; i += size) yield Uint8Array.from(all.slice(i, i + size));
}

async function read(parts: Bytes | Bytes[], options = {}, size = 7): Promise<DatasetRow[]> {
  const list = typeof parts === "string" || typeof parts[0] === "number"
    ? [parts as Bytes]
    : parts as Bytes[];
  return await Array.fromAsync(readRows(chunks(list, size), "train.jsonl", options));
}

Deno.test("readRows() reads the three shapes, mixed, with a byte order mark, blank lines and CRLF, in chunks of any size", async () => {
  const file = '\ufeff{"text": "ä🦙", "id": 7}\r\n\n  \n{"prompt": "", "completion": "c", "extra": 1}\n' +
    '{"messages": [{"role": "user", "content": "", "name": "n"}], "tools": [1]}';
  for (const size of [1, 2, 3, 7, 1000]) {
    assertEquals(await read(file, {}, size), [
      { shape: "text", text: "ä🦙", id: "7", source: { file: "train.jsonl", line: 1 } },
      { shape: "prompt", prompt: "", completion: "c", source: { file: "train.jsonl", line: 4 } },
      {
        shape: "messages",
        messages: [{ role: "user", content: "", name: "n" }],
        tools: [1],
        source: { file: "train.jsonl", line: 5 },
      },
    ]);
  }
});

Deno.test("readRows() takes who wrote a row from its source, where that is a name", async () => {
  const lines = ['"student"', '""', "7", '["a"]', "null"].map((s) => `{"text": "a", "source": ${s}}\n`);
  const rows = await read(lines.join(""));
  assertEquals(rows.map((row) => row.origin), ["student", undefined, undefined, undefined, undefined]);
  assertEquals(new Set(rows.map(contentHash)).size, 1);
});

for (
  const [line, message] of [
    ["{", "not valid JSON"],
    ['{"text": "a"} {"text": "b"}', "not valid JSON"],
    ["[1]", "expected a JSON object, found a list"],
    ["null", "expected a JSON object, found null"],
    ['{"question": "a", "answer": "b"}', 'its keys are: "question", "answer"'],
    ["{}", "its keys are: none"],
    ['{"text": ""}', "text is empty"],
    ['{"text": 1}', "text must be a string, found a number"],
    ['{"text": "\\ud83d"}', "half of a surrogate pair"],
    ['{"prompt": "a"}', "completion must be a string, found nothing"],
    ['{"completion": "a"}', "prompt must be a string, found nothing"],
    ['{"prompt": "a", "completion": ""}', "completion is empty"],
    ['{"text": "a", "messages": []}', "has text as well as messages"],
    ['{"messages": []}', "messages is empty"],
    ['{"messages": {}}', "messages must be a list"],
    ['{"messages": ["a"]}', "messages[0] must be an object"],
    ['{"messages": [{"role": "", "content": "a"}]}', "messages[0].role is empty"],
    [
      '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null}]}',
      "messages[1].content",
    ],
    ['{"text": "a", "id": []}', "id must be a string or a number"],
    ['{"messages": [{"role": "user", "content": "a"}], "tools": {}}', "tools must be a list"],
    [[0x22, 0xff, 0x22], "not valid UTF-8"],
    [[0xff, 0xfe, 0x7b, 0], "UTF-16"],
    [`{"text": "${"x".repeat(100)}"}`, "longer than 90 bytes"],
  ] as [Bytes, string][]
) {
  Deno.test(`readRows() refuses a line: ${message}`, async () => {
    const error = await assertRejects(() => read([line, "\n"], { maxLineBytes: 90 }), DatasetError, message);
    assert(error.message.startsWith("train.jsonl: 1 faulty line\n  train.jsonl:1: "), error.message);
  });
}

Deno.test("readRows() yields the good rows, then reports the faulty lines together, up to the limit", async () => {
  const good: number[] = [];
  const iterate = async (text: string, options: { maxErrors?: number }) => {
    for await (const row of readRows(chunks([text], 5), "f", options)) good.push(row.source.line);
  };
  const text = '{"text": "a"}\n1\n{"text": "b"}\n2\n{"text": "c"}\n';
  const error = await assertRejects(() => iterate(text, {}), DatasetError, "2 faulty lines");
  assertEquals(error.problems.map((p) => p.source.line), [2, 4]);
  assertEquals(good.splice(0), [1, 3, 5]);
  await assertRejects(
    () => iterate(text, { maxErrors: 1 }),
    DatasetError,
    "1 faulty line (reading stopped there",
  );
  assertEquals(good, [1]);
});

Deno.test("readRows() goes on after a line that is too long, whatever the chunks", async () => {
  for (const size of [3, 64, 1000]) {
    const text = `{"text": "${"x".repeat(500)}"}\n{"text": "b"}\n`;
    const rows: DatasetRow[] = [];
    await assertRejects(async () => {
      for await (const row of readRows(chunks([text], size), "f", { maxLineBytes: 100 })) rows.push(row);
    }, DatasetError);
    assertEquals(rows.map((row) => row.source.line), [2]);
  }
});

Deno.test("openDataset() refuses a missing file, a folder and an empty dataset", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/a.jsonl`;
  await assertRejects(() => openDataset(path), InputError, "there is no such file");
  await assertRejects(() => openDataset(folder), InputError, "this is a folder");
  await Deno.writeTextFile(path, "\n \n");
  await assertRejects(() => openDataset(path), InputError, "the dataset is empty");
  await Deno.writeTextFile(path, '{"text": "a"}');
  assertEquals((await openDataset(path)).length, 1);
  await Deno.writeTextFile(path, "x\n".repeat(30));
  await assertRejects(() => openDataset(path), DatasetError, "10 faulty lines (reading stopped");
  await Deno.remove(folder, { recursive: true });
});

sharedTest("openDataset() reads a real file of a thousand rows once its keys are renamed", async () => {
  const path = await Deno.makeTempFile();
  const lines = (await Deno.readTextFile(sharedPath("data/gsm8k/test.jsonl"))).trim().split("\n");
  await Deno.writeTextFile(
    path,
    lines.map((line) => {
      const { question, answer } = JSON.parse(line);
      return JSON.stringify({ prompt: question, completion: answer });
    }).join("\n"),
  );
  const rows = await openDataset(path);
  assertEquals(rows.length, lines.length);
  assertEquals(rows.at(-1)?.source.line, lines.length);
  await Deno.remove(path);
});

const texts = (count: number): DatasetRow[] =>
  Array.from(
    { length: count },
    (_, i) => ({ shape: "text", text: `row ${i}`, source: { file: "f", line: i + 1 } }),
  );

const names = (rows: DatasetRow[]) => rows.map((row) => row.shape === "text" ? row.text : "").sort();

Deno.test("splitHeldOut() goes by content alone: order, ids, places and other rows make no difference", () => {
  const rows = texts(2000);
  const { train, heldOut } = splitHeldOut(rows);
  assertEquals(train.length + heldOut.length, 2000);
  assert(heldOut.length > 70 && heldOut.length < 130, `${heldOut.length}`);
  const moved = rows.toReversed().map((row, i) => ({
    ...row,
    id: String(i),
    source: { file: "g", line: i },
  }));
  assertEquals(names(splitHeldOut(moved).heldOut), names(heldOut));
  const half = new Set(names(splitHeldOut(rows.slice(0, 1000)).heldOut));
  assertEquals([...half], names(heldOut).filter((name) => Number(name.slice(4)) < 1000));
  const doubled = splitHeldOut([...rows, ...rows]);
  assertEquals(countShared(doubled.train, doubled.heldOut), 0);
  // Frozen: saved figures depend on which rows are held out.
  assertEquals(names(splitHeldOut(texts(40)).heldOut), ["row 32"]);
});

Deno.test("splitHeldOut() always leaves a row on either side, and needs two different ones", () => {
  for (const fraction of [0, 1e-9, 0.5, 1]) {
    for (const count of [2, 3, 10]) {
      const { train, heldOut } = splitHeldOut(texts(count), fraction);
      assert(train.length > 0 && heldOut.length > 0, `${count} rows, ${fraction}`);
    }
  }
  assertThrows(() => splitHeldOut([...texts(1), ...texts(1)]), InputError, "fewer than two different rows");
});

Deno.test("contentHash() tells shapes apart and ignores the order of keys", () => {
  const source = { file: "f", line: 1 };
  const a: DatasetRow = { shape: "prompt", prompt: "a", completion: "b", source };
  assertEquals(
    contentHash(a),
    contentHash({ completion: "b", id: "x", prompt: "a", shape: "prompt", source }),
  );
  assert(contentHash(a) !== contentHash({ shape: "text", text: "ab", source }));
  assert(contentHash(a) !== contentHash({ shape: "prompt", prompt: "ab", completion: "", source }));
});
