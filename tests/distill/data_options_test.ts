/** What a recipe may ask of its data: columns of other names, no copies, special tokens, pieces that overlap. Nothing here needs a GPU. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { gzipSync } from "node:zlib";
import { InputError } from "../../src/base/errors.ts";
import { dataWarnings } from "../../src/distill/inputs/data_warnings.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { parseRecipe, RecipeError } from "../../src/distill/recipe/parse.ts";
import type { RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { setName } from "../../src/distill/recipe/data_sets.ts";
import { contentHash } from "../../src/text/dataset.ts";
import { type TinyFiles, tinyRecipe, withTiny } from "./tiny_model.ts";

/** What a recipe's data become. */
async function prepared(files: TinyFiles, data: Partial<RecipeInput["data"]>) {
  const opened = await prepareRun(tinyRecipe(files, { data: data as RecipeInput["data"] }));
  opened.close();
  return opened;
}

const jsonl = (rows: unknown[]) => rows.map((row) => JSON.stringify(row) + "\n").join("");

Deno.test("what is wrong with the columns, the overlap and the rest is told with its place in the recipe", () => {
  const problems = (data: unknown) => {
    try {
      parseRecipe({ teacher: { model: "t" }, student: { model: "s" }, data });
      return {};
    } catch (error) {
      if (!(error instanceof RecipeError)) throw error;
      return Object.fromEntries(error.problems.map(({ path, message }) => [path, message]));
    }
  };
  const found = (more: object) => problems({ train: "a.csv", ...more });
  assertEquals(found({ columns: { prompt: "q", completion: "{a} {b}" }, deduplicate: true }), {});
  assertStringIncludes(
    found({ columns: { prompt: "q" } })["data.columns"]!,
    "must say where text, prompt and",
  );
  assertStringIncludes(found({ columns: { text: "a", messages: "b" } })["data.columns"]!, "one of them");
  assertEquals(found({ columns: { prompt: "q", chosen: "a", rejected: "b" } }), {});
  assertStringIncludes(
    found({ columns: { text: "a", system: "s" } })["data.columns"]!,
    "a system's text goes",
  );
  assertStringIncludes(found({ columns: { text: "{a" } })["data.columns.text"]!, "belongs to no {column}");
  assertStringIncludes(found({ columns: { promt: "a" } })["data.columns.promt"]!, 'did you mean "prompt"?');
  assertStringIncludes(found({ overlap: 8 })["data.overlap"]!, "set tooLong: split");
  assertStringIncludes(
    found({ overlap: 8, tooLong: "split", contextLength: 8 })["data.overlap"]!,
    "must be below contextLength",
  );
  assertStringIncludes(found({ specialTokens: "pars" })["data.specialTokens"]!, 'did you mean "parse"?');
  assertStringIncludes(
    problems({ train: [{ path: "a.csv", columns: { text: "}" } }] })["data.train.0.columns.text"]!,
    "belongs to no",
  );
  assertEquals([setName("x/a.jsonl.gz"), setName("b.csv.ZST"), setName("c.gz")], ["a", "b", "c"]);
});

Deno.test("sets of several formats are read, each by its own columns or those of all", () =>
  withTiny(async (files) => {
    const [table, packed] = [`${files.folder}/t.csv`, `${files.folder}/p.jsonl.gz`];
    await Deno.writeTextFile(table, "question,answer\nthe sun,is hot\nthe moon,is cold\n");
    await Deno.writeFile(packed, gzipSync(jsonl([{ body: "a hat" }, { body: "a mat" }])));
    const { sets } = await prepared(files, {
      train: [{ path: table }, { path: packed, columns: { text: "body" } }],
      heldOut: [{ path: table, name: "h" }],
      columns: { prompt: "{question} ", completion: "answer" },
    });
    assertEquals(sets.train.map(({ name, report }) => [name, report.rowsByShape]), [
      ["t", { text: 0, prompt: 2, messages: 0 }],
      ["p", { text: 2, prompt: 0, messages: 0 }],
    ]);
    assertEquals(sets.heldOut[0]!.rows.map((row) => row.shape === "prompt" && row.prompt), [
      "the sun ",
      "the moon ",
    ]);
    const wrong = { train: [{ path: table, columns: { text: "Question" } }] };
    const error = await assertRejects(() => prepared(files, wrong), InputError);
    assertStringIncludes(error.message, "data.train.0: ");
    assertStringIncludes(error.message, 'did you mean "question"?');
  }));

Deno.test("copies are left out over all training sets, and what is held out is never learnt", () =>
  withTiny(async (files) => {
    const other = `${files.folder}/other.jsonl`;
    const rows = Array.from({ length: 30 }, (_, i) => ({ text: `row number ${i}` }));
    await Deno.writeTextFile(files.train, jsonl([...rows, { ...rows[3], id: 7 }, rows[29]!]));
    await Deno.writeTextFile(other, jsonl([{ text: "new" }, rows[0]!, { text: "new" }]));
    await Deno.writeTextFile(files.heldOut, jsonl([rows[5]!, rows[5]!, { text: "unseen" }]));
    const data = { train: [{ path: files.train }, { path: other }], heldOut: files.heldOut };
    const kept = await prepared(files, { ...data, deduplicate: true });
    assertEquals(kept.sets.train.map(({ samples, duplicates }) => [samples.length, duplicates]), [[29, 3], [
      1,
      2,
    ]]);
    // What is measured stays as it is.
    assertEquals([kept.heldOut.length, kept.sets.heldOut[0]!.rows.length], [3, 3]);
    const codes = dataWarnings(kept).map(({ code, message }) => `${code}: ${message}`);
    assertEquals(codes, ["duplicates_left_out: 5 training rows left out: they say the same as others"]);
    const plain = await prepared(files, data);
    assertEquals(plain.train.length, 35);
    assert(dataWarnings(plain).some(({ code }) => code === "held_out_seen"));
    await Deno.writeTextFile(other, jsonl([rows[0]!]));
    await assertRejects(
      () => prepared(files, { ...data, deduplicate: true }),
      InputError,
      "data.train.1: ",
    );
  }));

Deno.test("rows fall on the same side of the held-out split in every file, order and recipe", () =>
  withTiny(async (files) => {
    const rows = Array.from({ length: 400 }, (_, i) => ({ text: `row number ${i}` }));
    const other = `${files.folder}/other.csv`;
    await Deno.writeTextFile(files.train, jsonl([...rows, ...rows.slice(100)]));
    await Deno.writeTextFile(other, "body\n" + rows.toReversed().map(({ text }) => `${text}\n`).join(""));
    const sides = async (data: Partial<RecipeInput["data"]>) => {
      const { trainRows, heldOutRows } = await prepared(files, { ...data, heldOut: undefined });
      const [train, held] = [trainRows, heldOutRows].map((some) => new Set(some.map(contentHash)));
      assertEquals([...train!].filter((hash) => held!.has(hash)), []);
      return [...held!].sort();
    };
    const all = await sides({ train: files.train });
    assert(all.length > 8 && all.length < 40, `${all.length}`);
    const others: Partial<RecipeInput["data"]>[] = [
      { train: files.train, deduplicate: true },
      { train: other, columns: { text: "body" }, contextLength: 16, tooLong: "split" },
      { train: [{ path: other, columns: { text: "body" } }, { path: files.train }] },
    ];
    for (const data of others) assertEquals(await sides(data), all);
  }));

Deno.test("special tokens in the data are text unless the recipe asks for them; pieces overlap as it says", () =>
  withTiny(async (files) => {
    await Deno.writeTextFile(files.train, jsonl([{ text: "the end</s>the end" }, { text: "x".repeat(99) }]));
    const ids = async (data: object) =>
      (await prepared(files, { train: files.train, ...data })).train.map(({ ids }) => [...ids]);
    const inner = ([first]: number[][]) => first!.slice(1, -1).filter((id) => id < 3);
    assertEquals(inner(await ids({})), []);
    assertEquals(inner(await ids({ specialTokens: "text" })), []);
    assertEquals(inner(await ids({ specialTokens: "parse" })), [2]);
    assertNotEquals(await ids({ tooLong: "split", overlap: 20 }), await ids({ tooLong: "split" }));
    assertEquals((await ids({ tooLong: "split", overlap: 63 })).length, 1 + 101 - 63);
  }));
