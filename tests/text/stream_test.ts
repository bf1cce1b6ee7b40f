/** Files too large for memory: looked at, and read row by row while they are needed. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { gzipSync } from "node:zlib";
import { InputError } from "../../src/base/errors.ts";
import { philox4x32 } from "../../src/base/random.ts";
import { type Batches, BatchStream } from "../../src/text/batch_stream.ts";
import { contentHash, DatasetError, type DatasetRow, openDataset } from "../../src/text/dataset.ts";
import { encodeDataset, type EncodeOptions, SampleEncoder } from "../../src/text/encode.ts";
import type { PackedBatch } from "../../src/text/packing.ts";
import { lookAt } from "../../src/text/stream/look.ts";
import { NumberList, NumberSet } from "../../src/text/stream/number_list.ts";
import { RowFile, shortHash } from "../../src/text/stream/row_file.ts";
import { type RowSet, StreamedBatches } from "../../src/text/stream/streamed_batches.ts";
import { tinyTokenizer } from "./fixtures.ts";

const tokenizer = tinyTokenizer();

async function withFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Rows of 1 to 30 letters, with blank lines, CRLF and a byte order mark; some rows say the same. */
function someLines(count: number): string {
  const line = (i: number) => {
    const text = Array.from({ length: 1 + (i * 7919) % 30 }, (_, j) => "abcde"[(i + j * j) % 5]).join("");
    return JSON.stringify(
      i % 3 ? { text: `ü${text}`, source: i % 2 ? "student" : 7 } : { prompt: text, completion: "d" },
    );
  };
  return "\ufeff" + Array.from({ length: count }, (_, i) => line(i) + (i % 5 ? "\n" : "\r\n\n")).join("");
}

Deno.test("a row file gives the rows that reading gives, each when it is asked for", () =>
  withFolder(async (folder) => {
    const path = `${folder}/a.jsonl`;
    await Deno.writeTextFile(path, someLines(300) + JSON.stringify({ text: "x".repeat(50_000) }));
    const rows = await openDataset(path);
    const file = await RowFile.open(path);
    const order = Array.from({ length: rows.length }, (_, i) => (i * 37) % rows.length);
    for (const i of order) assertEquals(file.row(i), rows[i]!);
    assertEquals([file.count, [...file.origins], file.duplicates], [301, ["student"], 0]);
    file.close();
    const limited = await RowFile.open(path, { limit: 7 });
    assertEquals([limited.count, limited.row(6)], [7, rows[6]!]);
    assertNotEquals(limited.identity, file.identity);
    // What is in the files decides, not their names.
    await Deno.copyFile(path, `${folder}/b.jsonl`);
    const copy = await RowFile.open(`${folder}/b.jsonl`);
    assertEquals(copy.identity, file.identity);
    await Deno.writeTextFile(`${folder}/b.jsonl`, "x\n".repeat(5000));
    assertThrows(() => copy.row(200), InputError, "it was right when the file was first read");
    copy.close();
    limited.close();
  }));

Deno.test("other formats are read from a copy, which goes when the file is closed", () =>
  withFolder(async (folder) => {
    const scratch = `${folder}/scratch`;
    const lines = Array.from({ length: 700 }, (_, i) => `"q\n${i}",ä${i},${i % 2 ? "student" : ""}`);
    await Deno.writeTextFile(`${folder}/t.csv`, `question,answer,who\n${lines.join("\n")}\n`);
    await Deno.writeFile(`${folder}/p.jsonl.gz`, gzipSync(someLines(90)));
    const columns = { prompt: "{question}?", completion: "answer", source: "who" };
    for (const [name, options] of [["t.csv", { columns }], ["p.jsonl.gz", {}]] as const) {
      const rows = await openDataset(`${folder}/${name}`, options);
      const file = await RowFile.open(`${folder}/${name}`, { ...options, scratch });
      assertEquals(Array.from({ length: file.count }, (_, i) => file.row(i)), rows);
      assertEquals([...Deno.readDirSync(scratch)].length, 1);
      file.close();
      assertEquals([...Deno.readDirSync(scratch)].length, 0);
    }
    await Deno.writeTextFile(`${folder}/t.csv`, "question,answer,who\na,,c\n");
    await assertRejects(
      () => RowFile.open(`${folder}/t.csv`, { columns, scratch }),
      DatasetError,
      "t.csv:2: ",
    );
    assertEquals([...Deno.readDirSync(scratch)].length, 0);
  }));

Deno.test("a row file names faulty lines, leaves out copies and holds rows out by their hash", () =>
  withFolder(async (folder) => {
    const path = `${folder}/a.jsonl`;
    const text = (i: number) => JSON.stringify({ text: `row ${i}` }) + "\n";
    const numbers = Array.from({ length: 400 }, (_, i) => i);
    await Deno.writeTextFile(path, numbers.map((i) => text(i) + text(i)).join(""));
    const rows = await openDataset(path);
    const hash = (row: DatasetRow) => parseInt(contentHash(row).slice(0, 8), 16) / 2 ** 32;
    const file = await RowFile.open(path, { seen: new NumberSet(), heldOutShare: () => 0.05 });
    const expected = rows.filter((_, i) => i % 2 === 0);
    assertEquals(file.heldOut, expected.filter((row) => hash(row) < 0.05));
    const train = Array.from({ length: file.count }, (_, i) => file.row(i));
    assertEquals(train, expected.filter((row) => hash(row) >= 0.05));
    assertEquals(file.duplicates, 400);
    file.close();

    const held = new NumberSet();
    for (const row of rows.slice(0, 6)) held.add(shortHash(row));
    const other = await RowFile.open(path, { heldOut: held });
    assertEquals(other.shared, 6);
    other.close();
    await assertRejects(
      () => RowFile.open(path, { heldOutShare: () => 0 }),
      InputError,
      "no rows can be held out",
    );

    await Deno.writeTextFile(path, text(1) + "\n" + "{\n".repeat(30));
    const error = await assertRejects(
      () => RowFile.open(path),
      DatasetError,
      "10 faulty lines (reading stopped",
    );
    assertEquals(error.problems.map(({ source }) => source.line), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    await Deno.writeTextFile(path, "\n");
    await assertRejects(() => RowFile.open(path), InputError, "the dataset is empty");
  }));

/** Arrays of some batches. */
function drawn(batches: Batches, count: number): PackedBatch[] {
  return Array.from({ length: count }, () => {
    const { members, ...batch } = batches.next();
    return {
      ...batch,
      members: members.map(({ ids, supervised, source, origin }) => ({
        ids,
        supervised,
        source,
        ...(origin ? { origin } : {}),
      })),
    };
  });
}

async function setsOf(
  folder: string,
  sizes: Record<string, number>,
): Promise<(RowSet & { rows: DatasetRow[]; close(): void })[]> {
  const sets = [];
  for (const [name, count] of Object.entries(sizes)) {
    const path = `${folder}/${name}.jsonl`;
    await Deno.writeTextFile(path, someLines(count));
    const file = await RowFile.open(path);
    sets.push({
      ...{ name, weight: name.length, count: file.count, identity: file.identity, meanLength: 0 },
      rows: await openDataset(path),
      row: (i: number) => file.row(i),
      close: () => file.close(),
    });
  }
  return sets;
}

const options: EncodeOptions = { tokenizer, contextLength: 40 };
const streamed = (
  sets: readonly RowSet[],
  more: { by?: "rows" | "tokens"; seed?: number } = {},
  some = options,
) => {
  const encoder = new SampleEncoder(some);
  return new StreamedBatches(sets, {
    ...{ tokensPerBatch: 50, seed: 3, encoding: "e", ...more },
    encode: (row) => encoder.encode(row),
  });
};

Deno.test("batches from the disk are those from memory, for several epochs", () =>
  withFolder(async (folder) => {
    const [set] = await setsOf(folder, { a: 150 });
    const { samples } = encodeDataset(set!.rows, options);
    const memory = new BatchStream(samples, { tokensPerBatch: 50, seed: 3 });
    assertEquals(drawn(streamed([set!]), 200), drawn(memory, 200));
    assert(memory.state().epoch >= 2);
    set!.close();
  }));

Deno.test("a mixture from the disk draws as one from memory does, and tells its shares", () =>
  withFolder(async (folder) => {
    const sets = await setsOf(folder, { a: 70, bcd: 40 });
    const encoded = sets.map(({ rows }) => encodeDataset(rows, options).samples);
    for (const by of ["tokens", "rows"] as const) {
      const memory = new BatchStream(encoded.flat(), {
        ...{ tokensPerBatch: 50, seed: 3 },
        mixture: {
          by,
          sets: sets.map(({ name, weight }, i) => ({ name, weight, count: encoded[i]!.length })),
        },
      });
      const known = sets.map((set, i) => ({
        ...set,
        meanLength: encoded[i]!.reduce((sum, { ids }) => sum + ids.length, 0) / encoded[i]!.length,
      }));
      const disk = streamed(known, { by });
      assertEquals(drawn(disk, 150), drawn(memory, 150));
      assertEquals(disk.drawn(), memory.drawn());
    }
    sets.forEach((set) => set.close());
  }));

Deno.test("a stream from the disk goes on where it stood, from plain JSON, whatever waits; with split and dropped rows too", () =>
  withFolder(async (folder) => {
    const sets = await setsOf(folder, { a: 90, bcd: 30 });
    for (const by of [undefined, "tokens"] as const) {
      for (const tooLong of ["split", "drop"] as const) {
        const some = { ...options, contextLength: 9, tooLong, overlap: tooLong === "split" ? 3 : 1 };
        const of = (seed = 3) => streamed(by ? sets : sets.slice(0, 1), by ? { by, seed } : { seed }, some);
        const [whole, parts] = [of(), of()];
        const expected = drawn(whole, 80);
        for (const at of [0, 1, 17, 40]) {
          const first = of();
          drawn(first, at);
          const state = JSON.parse(JSON.stringify(first.state()));
          parts.restore(state);
          assertEquals(drawn(parts, 80 - at), expected.slice(at), `${by}, ${tooLong}, ${at}`);
          assertEquals(parts.drawn(), whole.drawn());
        }
        if (!by && tooLong === "split") {
          // Every target of an epoch once, and every row.
          const all = encodeDataset(sets[0]!.rows, some).report;
          const epoch: PackedBatch[] = [];
          const stream = of();
          while (stream.state().epoch === 0) epoch.push(...drawn(stream, 1));
          epoch.pop();
          assertEquals(epoch.reduce((sum, { supervised }) => sum + supervised, 0), all.supervisedTokens);
        }
        assertThrows(() => of(4).restore(whole.state()), InputError, "differ from those of the saved run");
      }
    }
    const { epoch, index, key } = streamed(sets.slice(0, 1)).state();
    assertThrows(
      () => streamed(sets.slice(0, 1)).restore({ epoch, index, key }),
      InputError,
      "differ from those",
    );
    const silent = streamed(sets.slice(0, 1), {}, { ...options, contextLength: 2, tooLong: "drop" });
    assertThrows(() => silent.next(), InputError, "no sample is left of the 90 rows of a");
    sets.forEach((set) => set.close());
  }));

Deno.test("a look at a large file checks what it can and tells how much there is", () =>
  withFolder(async (folder) => {
    const path = `${folder}/a.jsonl`;
    const line = (i: number) => JSON.stringify({ text: `row ${i} ${"x".repeat(90)}` });
    const lines = Array.from({ length: 60_000 }, (_, i) => line(i));
    await Deno.writeTextFile(path, lines.join("\n") + "\n");
    const whole = await lookAt(path, { milliseconds: 60_000, rows: 100 });
    assertEquals([whole.checked, whole.total, whole.isCounted, whole.rows.length], [
      60_000,
      60_000,
      true,
      100,
    ]);
    const places = whole.rows.map(({ source }) => source.line);
    assertEquals(places[0], 1);
    places.forEach((place, i) => assert(Math.abs(place - i * 600) < 1300, `${i}: ${place}`));
    // Without any time, some rows of each piece are read, or the look ends early.
    const hurried = await lookAt(path, { milliseconds: 0, rows: 100 });
    assert(hurried.checked < 6000 && hurried.rows.length >= 16, `${hurried.checked}`);
    assert(Math.abs(hurried.total - 60_000) < 6000, `${hurried.total}`);
    assertEquals(hurried.rows[0], whole.rows[0]);
    assertEquals((await lookAt(path, { limit: 500, rows: 100 })).total, 500);

    for (const i of [100, 200, 50_000]) lines[i] = "{";
    await Deno.writeTextFile(path, lines.join("\n"));
    const error = await assertRejects(() => lookAt(path, { milliseconds: 60_000 }), DatasetError);
    assertEquals(error.problems.map(({ source }) => source.line), [101, 201, 50_001]);
    await Deno.writeFile(`${folder}/a.jsonl.gz`, gzipSync(lines.slice(300, 40_000).join("\n")));
    assertEquals((await lookAt(`${folder}/a.jsonl.gz`, { milliseconds: 60_000 })).checked, 39_700);
  }));

Deno.test("lists and sets of numbers keep what they are given", () => {
  const [list, small, set] = [new NumberList(64), new NumberList(32), new NumberSet()];
  const value = (i: number) => {
    const [low, high] = philox4x32([i, 0, 0, 0], [1, 1]);
    return low + (high >>> 12) * 2 ** 32;
  };
  for (let i = 0; i < 150_000; i++) {
    list.push(i * 2 ** 20);
    small.push(i);
    assert(set.add(value(i)));
  }
  assertEquals([list.length, list.at(149_999), small.at(65_536)], [150_000, 149_999 * 2 ** 20, 65_536]);
  assertEquals([set.size, set.add(value(77)), set.has(value(149_999)), set.has(1)], [
    150_000,
    false,
    true,
    false,
  ]);
});
