/** Columns of other names, templates of several, and the forms that conversations have elsewhere. */
// @ts-types="../../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DatasetError, readRows } from "../../../src/text/dataset.ts";
import { type ColumnNames, Columns } from "../../../src/text/read/columns.ts";
import { RowProblem } from "../../../src/text/read/rows.ts";

async function* bytes(text: string): AsyncGenerator<Uint8Array> {
  yield new TextEncoder().encode(text);
}

async function rowsOf(lines: unknown[], columns?: ColumnNames): Promise<Record<string, unknown>[]> {
  const text = lines.map((line) => JSON.stringify(line)).join("\n");
  const rows = await Array.fromAsync(readRows(bytes(text), "d.jsonl", columns ? { columns } : {}));
  return rows.map(({ source: _, ...row }) => row);
}

Deno.test("Columns reads names and templates, with numbers and lists as text", () => {
  const read = (columns: ColumnNames, value: unknown) => new Columns(columns).read(value);
  assertEquals(read({ prompt: "q", completion: "a" }, { q: "x", a: 2, prompt: "not asked for" }), {
    prompt: "x",
    completion: "2",
  });
  assertEquals(
    read({ text: "Q: {q}\n{choices}\n{{{q}}} {yes}" }, { q: "x", choices: ["a", 2], yes: true }),
    { text: "Q: x\na\n2\n{x} true" },
  );
  assertEquals(read({ text: "{a}{b}" }, { a: null, b: "" }), { text: "" });
  assertEquals(read({ text: "constant {{}}" }, {}), { text: "constant {}" });
  // A value with braces is no template.
  assertEquals(read({ text: "{a}" }, { a: "{b}" }), { text: "{b}" });
  assertEquals(new Columns({ prompt: "{q}{c}", completion: "a", messages: "m" }).wanted, [
    "q",
    "c",
    "a",
    "m",
  ]);
  for (const template of ["{", "a}", "{}", "{a{b}}", "{a"]) {
    assertThrows(() => new Columns({ text: template }), RowProblem, "belongs to no {column}");
  }
  // Not a column, though every object has one.
  assertThrows(
    () => read({ text: "toString" }, {}),
    RowProblem,
    'there is no column "toString"; there are: none',
  );
  assertThrows(
    () => read({ text: "{a}" }, { a: [{}] }),
    RowProblem,
    "a must be text, a number or a list of texts",
  );
});

Deno.test("rows are read from the columns that are named, and what is missing is told with the nearest name", async () => {
  const line = { question: "q", answer: "a", who: "student", nr: 4 };
  assertEquals(
    await rowsOf([line], { prompt: "question", completion: "answer", source: "who", id: "nr" }),
    [{ shape: "prompt", prompt: "q", completion: "a", origin: "student", id: "4" }],
  );
  const error = await assertRejects(
    () => rowsOf([line, { question: "q" }], { prompt: "questoin", completion: "answer" }),
    DatasetError,
  );
  assertEquals(error.problems.map(({ message }) => message), [
    'there is no column "questoin"; there are: "question", "answer", "who", "nr"; did you mean "question"?',
    'there is no column "questoin"; there are: "question"; did you mean "question"?',
  ]);
  // Who wrote a row, and its name, may be absent.
  assertEquals((await rowsOf([{ t: "x" }], { text: "t", source: "who", id: "nr" })).length, 1);
});

Deno.test("a column for the system's text makes a conversation, or begins one", async () => {
  const system = { role: "system", content: "Be kind." };
  const turns = [{ role: "user", content: "q" }, { role: "assistant", content: "a" }];
  const columns = { prompt: "p", completion: "c", system: "s" };
  assertEquals(await rowsOf([{ p: "q", c: "a", s: "Be kind." }, { p: "q", c: "a", s: "" }], columns), [
    { shape: "messages", messages: [system, ...turns] },
    { shape: "prompt", prompt: "q", completion: "a" },
  ]);
  assertEquals(await rowsOf([{ m: turns, s: "Be kind." }], { messages: "m", system: "s" }), [
    { shape: "messages", messages: [system, ...turns] },
  ]);
});

Deno.test("conversations are read in the forms that they have elsewhere", async () => {
  const calls = [{ type: "function", function: { name: "f", arguments: "{}" } }];
  assertEquals(
    await rowsOf([
      { conversations: [{ from: "human", value: "a" }, { from: "gpt", value: "b" }] },
      { conversations: '[{"role": "user", "content": "a"}]' },
      { conversations: [{ role: "assistant", content: null, tool_calls: calls }] },
      {
        conversations: [{
          role: "user",
          content: [{ type: "text", text: "a" }, { type: "text", text: "b" }],
        }],
      },
    ], { messages: "conversations" }),
    [
      { shape: "messages", messages: [{ role: "user", content: "a" }, { role: "assistant", content: "b" }] },
      { shape: "messages", messages: [{ role: "user", content: "a" }] },
      { shape: "messages", messages: [{ role: "assistant", content: "", tool_calls: calls }] },
      { shape: "messages", messages: [{ role: "user", content: "ab" }] },
    ],
  );
  for (
    const [message, problem] of [
      [{ from: "nobody", value: "a" }, 'messages[0].from is "nobody"'],
      [{ from: "human" }, "messages[0].value must be a string"],
      [
        { role: "user", content: [{ type: "image_url" }] },
        "messages[0].content must be a string, found a list",
      ],
      [{ role: "assistant", tool_calls: [] }, "messages[0].content must be a string, found nothing"],
    ] as const
  ) {
    await assertRejects(() => rowsOf([{ messages: [message] }]), DatasetError, problem);
  }
});
