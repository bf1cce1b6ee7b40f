/** Datasets in all formats: the same rows, whatever they lie in, and what is said of files that are not what they seem. */
// @ts-types="../../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { InputError } from "../../../src/base/errors.ts";
import { DatasetError, type DatasetRow, openDataset, type ReadOptions } from "../../../src/text/dataset.ts";
import { sharedPath, sharedTest } from "../../shared.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const fixture = (name: string) => decodeURIComponent(new URL(`fixtures/${name}`, import.meta.url).pathname);

/** Reads a file of some bytes under a name. */
async function read(
  name: string,
  content: string | Uint8Array,
  options: ReadOptions = {},
): Promise<DatasetRow[]> {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/${name}`;
    await Deno.writeFile(path, typeof content === "string" ? utf8(content) : content);
    return (await openDataset(path, options)).map((row) => ({
      ...row,
      source: { ...row.source, file: row.source.file.slice(folder.length + 1) },
    }));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const plain = (rows: DatasetRow[]) => rows.map(({ source, ...row }) => [source.line, row]);
const prompts = (rows: DatasetRow[]) =>
  rows.map((row) => row.shape === "prompt" ? [row.source.line, row.prompt, row.completion] : []);

const ROWS = [
  { prompt: "1 + 1?", completion: "2" },
  { prompt: 'say "ja, ü"', completion: "two\nlines" },
  { prompt: "", completion: "c" },
];
const JSONL = ROWS.map((row) => JSON.stringify(row)).join("\n");
const EXPECTED = ROWS.map(({ prompt, completion }, i) => [i + 1, prompt, completion]);

Deno.test("a file is read by its name: JSON Lines, JSON, and both packed", async () => {
  const files: Record<string, string | Uint8Array> = {
    "a.jsonl": JSONL,
    "a.ndjson": JSONL,
    "no-ending": JSONL,
    "a.JSONL.GZ": gzipSync(JSONL),
    "a.jsonl.zst": zstdCompressSync(utf8(JSONL)),
    "packed": gzipSync(JSONL),
    "lines.json": JSONL,
    "one-line.json": JSON.stringify(ROWS),
    "list.json": "\n" + JSON.stringify(ROWS, null, 2),
    "list.json.gz": gzipSync(JSON.stringify(ROWS, null, 2)),
    "data.json": JSON.stringify({ version: 1, data: ROWS }, null, 1),
    "flat-data.json": JSON.stringify({ data: ROWS }),
    "marked.json": "\ufeff" + JSON.stringify(ROWS),
  };
  for (const [name, content] of Object.entries(files)) {
    assertEquals(prompts(await read(name, content)), EXPECTED, name);
  }
  // gzip files may have several parts, such as those that were written on and on.
  const [first, ...others] = JSONL.split("\n");
  const parts = new Uint8Array([...gzipSync(first + "\n"), ...gzipSync(others.join("\n"))]);
  assertEquals(prompts(await read("parts.jsonl.gz", parts)), EXPECTED);
});

Deno.test("tables may have quotes, separators and line ends in their fields; rows are named by their lines", async () => {
  const csv = '\ufeffprompt,completion,id\r\n1 + 1?,2,\r\n\r\n"say ""ja, ü""","two\nlines",x\r\n"",c,7\r\n';
  assertEquals(plain(await read("a.csv", csv)), [
    [2, { shape: "prompt", prompt: "1 + 1?", completion: "2" }],
    [4, { shape: "prompt", prompt: 'say "ja, ü"', completion: "two\nlines", id: "x" }],
    [6, { shape: "prompt", prompt: "", completion: "c", id: "7" }],
  ]);
  // A quote within a field that does not begin with one is itself.
  assertEquals(prompts(await read("q.csv", 'prompt,completion\na "b" c,5" disk\n')), [[
    2,
    'a "b" c',
    '5" disk',
  ]]);
  assertEquals(prompts(await read("a.tsv", 'prompt\tcompletion\na, b\t"c\td"\n')), [[2, "a, b", "c\td"]]);
  assertEquals(prompts(await read("a.csv.gz", gzipSync("prompt,completion\na,b"))), [[2, "a", "b"]]);
  const messages = 'messages,tools\n"[{""role"": ""user"", ""content"": ""a""}]","[{""name"": ""t""}]"\n';
  assertEquals(plain(await read("m.csv", messages)), [
    [2, { shape: "messages", messages: [{ role: "user", content: "a" }], tools: [{ name: "t" }] }],
  ]);
  // Many more than are handed on together, in chunks that end anywhere.
  const many = Array.from({ length: 3000 }, (_, i) => `"p\n${i}",ü${i}`);
  const rows = await read("many.csv", `prompt,completion\n${many.join("\n")}\n`);
  assertEquals(rows.length, 3000);
  assertEquals(prompts(rows.slice(-1)), [[2 + 2 * 2999, "p\n2999", "ü2999"]]);
});

Deno.test("Parquet is read whatever packs its pages, with lists of turns, and rows are numbered over its groups", async () => {
  for (const packing of ["snappy", "zstd", "gzip", "brotli"]) {
    const path = fixture(`${packing}.parquet`);
    const rows = await openDataset(path, { columns: { messages: "messages", tools: "tools", id: "n" } });
    assertEquals(plain(rows)[0], [1, {
      shape: "messages",
      // A member that only some turns have is null in the others.
      messages: [{ role: "user", content: "a" }, { role: "assistant", content: "b", name: "n" }],
      tools: [{ name: "t" }],
      id: "1",
    }], packing);
    assertEquals(rows.map(({ source, id }) => [source.line, id]), [
      [1, "1"],
      [2, "2"],
      [3, "3"],
      [4, "9007199254740992"],
    ]);
    assertEquals((await openDataset(path)).length, 4);
    const columns = { prompt: "{question}\n{choices}", completion: "answer" };
    const error = await assertRejects(
      () => openDataset(path, { columns }),
      DatasetError,
      "completion is empty",
    );
    assertEquals(error.problems.map(({ source }) => source.line), [4]);
  }
});

Deno.test("Parquet that is nested, cut off or lacks a column is refused by name", async () => {
  const path = fixture("zstd.parquet");
  for (
    const [columns, message] of [
      [{ prompt: "question", completion: "messages" }, 'the column "messages" is nested (a list)'],
      [{ prompt: "question", completion: "extra" }, 'the column "extra" is nested (of a)'],
      [
        { prompt: "Question", completion: "answer" },
        'there is no column "Question"; there are: "question", ',
      ],
      [{ prompt: "{question}{chioces}", completion: "answer" }, 'did you mean "choices"?'],
    ] as const
  ) {
    const error = await assertRejects(() => openDataset(path, { columns }), InputError, message);
    assert(error.message.startsWith(path), error.message);
  }
  const bytes = await Deno.readFile(path);
  await assertRejects(
    () => read("cut.parquet", bytes.subarray(0, 900)),
    InputError,
    "cannot be read as Parquet",
  );
  // The first page is damaged, the footer is not.
  const damaged = bytes.slice();
  damaged.fill(0xff, 4, 60);
  const columns = { prompt: "question", completion: "question" };
  await assertRejects(
    () => read("damaged.parquet", damaged, { columns }),
    InputError,
    "damaged.parquet, rows 1 to 3: cannot be read as Parquet",
  );
});

for (
  const [name, content, message] of [
    ["a.jsonl", gzipSync("{}"), "is compressed with gzip, but is not named so"],
    ["a.csv", utf8("PAR1...."), "is Parquet, but is not named so"],
    ["a.jsonl.gz", JSONL, "is named as compressed with gzip, but does not begin like it"],
    [
      "a.parquet",
      "version https://git-lfs.github.com/spec/v1",
      "is named as Parquet, but does not begin like it",
    ],
    ["a.jsonl", "PK\x03\x04", "is a zip archive"],
    ["a.jsonl.gz", gzipSync(JSONL).subarray(0, 30), "cannot be unpacked"],
    ["a.jsonl.zst", zstdCompressSync(utf8(JSONL.repeat(50))).subarray(0, 40), "cannot be unpacked"],
    ["a.jsonl", JSON.stringify(ROWS), "expected a JSON object, found a list"],
    ["a.json", "[1, 2", "is not valid JSON"],
    ["a.json", '{"rows": [1],\n "x": 2}', 'found an object with "rows", "x"'],
    ["a.json", "7", "found a number"],
    ["a.json", "[]", "the dataset is empty"],
    ["a.json", "[1]", "a.json:1: expected a JSON object, found a number"],
    ["a.json", new Uint8Array([0xff, 0xfe, 0x5b, 0]), "UTF-16"],
    ["a.csv", "", "the file is empty"],
    ["a.csv", "prompt,completion\n", "the dataset is empty"],
    ["a.csv", "prompt,completion\na,b\nc\nd,e,f\n", "a.csv:3: has 1 field, the header 2\n"],
    ["a.csv", 'prompt,completion\na,b\nc,"d\n', "a.csv:3: a quote is opened that is never closed"],
    ["a.csv", 'prompt,completion\na,b\nc,"d\ne,f\ng,h\n', "a.csv:3: a quote is opened that is never closed"],
    ["a.csv", "prompt,prompt\na,b\n", 'two columns are called "prompt"'],
    ["a.csv", "prompt;completion\na;b\n", 'the header has ";" where "," separates columns'],
    ["a.csv", "question,answer\na,b\n", 'its columns are: "question", "answer"'],
    [
      "a.csv",
      new Uint8Array([...utf8("prompt,completion\na,b\n"), 0xff]),
      "a.csv:3: the line is not valid UTF-8",
    ],
  ] as [string, string | Uint8Array, string][]
) {
  Deno.test(`openDataset() refuses ${name}: ${message}`, async () => {
    const error = await assertRejects(() => read(name, content), InputError);
    assertStringIncludes(error.message, message);
    assertStringIncludes(error.message, name);
  });
}

sharedTest("the validation questions of MMLU are read as tables with their answers mapped", async () => {
  const folder = sharedPath("data/mmlu-val");
  let rows = 0;
  for await (const { name } of Deno.readDir(folder)) {
    // They have no header, so one is put before them; some begin with a byte order mark.
    const text = (await Deno.readTextFile(`${folder}/${name}`)).replace(/^\ufeff/, "");
    rows += (await read(name, `question,a,b,c,d,answer\n${text}`, {
      columns: { prompt: "{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: ", completion: "answer" },
    })).length;
  }
  assertEquals(rows, 1531);
});
