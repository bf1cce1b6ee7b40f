/** The folder of a teacher's cache: rows in any order, by several writers, cut off, damaged, foreign. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { CacheFolder } from "../../src/distill/teacher/cache_folder.ts";
import { CacheWriter } from "../../src/distill/teacher/cache_writer.ts";
import { RowCodec, type RowFormat } from "../../src/distill/teacher/cached_rows.ts";
import { HiddenCodec } from "../../src/distill/teacher/hidden_rows.ts";
import { cacheKey, type CacheOrigin, sampleKey } from "../../src/distill/teacher/origin.ts";
import { rowsDigest } from "../../src/distill/teacher/shard.ts";
import { DiskFullError } from "../../src/formats/files.ts";
import { NO_TOKEN } from "../../src/losses/sparse_target.ts";
import { hiddenArrays } from "../../src/distill/program/fed/hidden_target.ts";
import { randomArray } from "../tensor/harness.ts";

const ORIGIN: CacheOrigin = {
  ...{ teacher: "a", tokenizer: "b", template: null, seed: null },
  format: { width: 6, precision: "bf16" },
};
const ROW = 12;

/** The i-th of some samples, with rows that tell which they are. */
function sample(i: number) {
  const ids = Int32Array.from({ length: 3 + i }, (_, t) => 100 * i + t);
  const key = sampleKey({ ids }, [0, 1 + (i % 2)]);
  return { key, rows: new Uint8Array(2 * ROW).fill(i + 1) };
}

async function inFolder(fn: (place: string) => Promise<void>): Promise<void> {
  const place = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    await fn(place);
  } finally {
    await Deno.remove(place, { recursive: true });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();
}

/** Rows of a sample as the disk has them. */
async function rowsOf(folder: CacheFolder, i: number): Promise<Uint8Array> {
  const { shard, begin, bytes, digest } = folder.entry(sample(i).key.hash)!;
  const rows = (await Deno.readFile(shard)).slice(begin, begin + bytes);
  assertEquals(rowsDigest(rows), digest);
  return rows;
}

Deno.test("samples are found by their tokens and counted positions, and by nothing else", () => {
  const ids = Int32Array.of(5, 6, 7);
  const hash = (...args: Parameters<typeof sampleKey>) => sampleKey(...args).hash;
  assertEquals(hash({ ids }, [0, 1]), hash({ ids: Int32Array.of(5, 6, 7) }, [0, 1]));
  assertNotEquals(hash({ ids }, [0, 1]), hash({ ids }, [0]));
  assertNotEquals(hash({ ids }, [0, 1]), hash({ ids: Int32Array.of(5, 6, 8) }, [0, 1]));
  assertNotEquals(hash({ ids: ids.subarray(0, 2) }, [7, 0]), hash({ ids }, [0]));
});

Deno.test("a writer takes samples in any order and as they come; what was written is not written again", () =>
  inFolder(async (place) => {
    // Two samples fill a shard.
    const writer = new CacheWriter(await CacheFolder.open(place, ORIGIN), 4 * ROW);
    for (const i of [4, 0, 2]) await writer.put(sample(i).key, sample(i).rows);
    assert(writer.has(sample(2).key) && !writer.has(sample(1).key));
    const { path } = writer.folder;
    assertEquals((await namesIn(`${path}/shards`)).length, 1);
    // A process that is killed here loses what waited.
    const reopened = await CacheFolder.open(place, ORIGIN);
    assertEquals([reopened.size, reopened.entry(sample(2).key.hash)], [2, undefined]);
    await writer.flush();
    await writer.flush();
    const again = new CacheWriter(await CacheFolder.open(place, ORIGIN));
    const before = await namesIn(`${path}/shards`);
    for (const i of [0, 2, 4]) await again.put(sample(i).key, sample(i).rows);
    await again.flush();
    assertEquals(await namesIn(`${path}/shards`), before);
    await again.put(sample(1).key, sample(1).rows);
    await again.flush();
    for (const i of [0, 1, 2, 4]) assertEquals(await rowsOf(again.folder, i), sample(i).rows);
    await assertRejects(
      () => again.put(sample(3).key, new Uint8Array(ROW)),
      Error,
      "12 bytes came for 2 rows of 12 bytes",
    );
  }));

Deno.test("what comes while a shard is written waits for the next, and nothing is lost", () =>
  inFolder(async (place) => {
    const writer = new CacheWriter(await CacheFolder.open(place, ORIGIN), 2 * ROW);
    await Promise.all(Array.from({ length: 9 }, (_, i) => writer.put(sample(i).key, sample(i).rows)));
    await writer.flush();
    const folder = await CacheFolder.open(place, ORIGIN);
    assertEquals(folder.size, 9);
    for (let i = 0; i < 9; i++) assertEquals(await rowsOf(folder, i), sample(i).rows);
  }));

Deno.test("several that write one cache at once leave each sample there once", () =>
  inFolder(async (place) => {
    const write = async (order: number[]) => {
      const writer = new CacheWriter(await CacheFolder.open(place, ORIGIN), 2 * ROW);
      for (const i of order) await writer.put(sample(i).key, sample(i).rows);
      await writer.flush();
    };
    const order = Array.from({ length: 12 }, (_, i) => i);
    await Promise.all([
      write(order),
      write(order.toReversed()),
      write([...order.slice(6), ...order.slice(0, 6)]),
    ]);
    const folder = await CacheFolder.open(place, ORIGIN);
    assertEquals([folder.size, (await namesIn(`${folder.path}/shards`)).length], [12, 12]);
    for (const i of order) assertEquals(await rowsOf(folder, i), sample(i).rows);
  }));

Deno.test("a piece of work is claimed by one at a time", () =>
  inFolder(async (place) => {
    const [a, b] = [await CacheFolder.open(place, ORIGIN), await CacheFolder.open(place, ORIGIN)];
    const release = await a.claim("rows");
    assertEquals(await b.claim("rows"), undefined);
    await (await b.claim("others"))!();
    await release!();
    await (await b.claim("rows"))!();
    assertEquals(await namesIn(`${a.path}/claims`), []);
  }));

Deno.test("a full disk loses nothing: what waits is written once there is room", () =>
  inFolder(async (place) => {
    const folder = await CacheFolder.open(place, ORIGIN);
    const add = folder.add.bind(folder);
    const full = () => Promise.reject(new DiskFullError(place, 1, 0));
    Object.assign(folder, { add: full });
    const writer = new CacheWriter(folder, 2 * ROW);
    await assertRejects(() => writer.put(sample(0).key, sample(0).rows), DiskFullError);
    await assertRejects(() => writer.put(sample(1).key, sample(1).rows), DiskFullError);
    Object.assign(folder, { add });
    await writer.flush();
    for (const i of [0, 1]) assertEquals(await rowsOf(folder, i), sample(i).rows);
  }));

Deno.test("a cache of something else under the name of this one is refused with both hashes", () =>
  inFolder(async (place) => {
    const other: CacheOrigin = { ...ORIGIN, teacher: "another" };
    const mine = await CacheFolder.open(place, ORIGIN);
    const theirs = await CacheFolder.open(place, other);
    for (const folder of [mine, theirs]) {
      await folder.add([{ hash: sample(0).key.hash, rows: sample(0).rows }]);
    }
    const refused = async (...parts: string[]) => {
      const error = await assertRejects(() => CacheFolder.open(place, ORIGIN), InputError);
      for (const part of [...parts, "Remove this"]) {
        assertStringIncludes(`${error.message} ${error.hint}`, part);
      }
    };
    // A shard of another cache.
    const [shard] = await namesIn(`${theirs.path}/shards`);
    await Deno.copyFile(`${theirs.path}/shards/${shard}`, `${mine.path}/shards/${shard}`);
    await refused(shard!, `belongs to the cache ${cacheKey(other)}, not to ${cacheKey(ORIGIN)}`);
    await Deno.remove(`${mine.path}/shards/${shard}`);

    const about = `${mine.path}/cache.json`;
    const text = await Deno.readTextFile(about);
    for (
      const [written, ...parts] of [
        [text.replace(cacheKey(ORIGIN), cacheKey(other)), cacheKey(other), cacheKey(ORIGIN)],
        [text.replace('"format": 2', '"format": 3'), "it has format 3; this version reads 2"],
        ["{", "cache.json is no JSON"],
        ["[]", "cache.json is no object"],
      ] as const
    ) {
      await Deno.writeTextFile(about, written);
      await refused(...parts);
    }
    await Deno.writeTextFile(about, text);
    // Whatever happens to a shard, it is noticed.
    const own = `${mine.path}/shards/${(await namesIn(`${mine.path}/shards`))[0]}`;
    const bytes = await Deno.readFile(own);
    await Deno.writeFile(own, bytes.slice(0, -3));
    await refused(own);
    await Deno.writeFile(own, bytes);
    await Deno.rename(own, own.replace(/[0-9a-f]{4}\.safetensors/, "0000.safetensors"));
    await refused("which is its name");
  }));

Deno.test("what was recorded is found by its whole identity", () =>
  inFolder(async (place) => {
    const folder = await CacheFolder.open(place, ORIGIN);
    const id = "0123456789abcdef0123";
    assertEquals(await folder.record("held-out", id), undefined);
    await folder.keep("held-out", id, { loss: 1.5 });
    await folder.keep("held-out", id, { loss: 2 });
    assertEquals(await folder.record("held-out", id), { loss: 1.5 });
    await assertRejects(
      () => folder.record("held-out", id.slice(0, 16) + "ffff"),
      InputError,
      "is not the record",
    );
  }));

Deno.test("stored ids outside of the vocabulary are refused when they are read", () => {
  for (const vocabulary of [50, 70_000]) {
    const format: RowFormat = {
      ...{ target: { kind: "top-k", entries: 2, temperatures: [1] }, precision: "f32", vocabulary },
    };
    const codec = new RowCodec(format);
    const bytes = new ArrayBuffer(codec.bytes);
    const row = (id: number) => ({ ids: Uint32Array.of(1, id), values: Float32Array.of(3, 2), tails: [0] });
    const feed = codec.feed(1);
    assert(codec.write(row(vocabulary - 1), bytes, 0));
    feed.read(bytes, 0, 0);
    assertEquals(codec.write(row(vocabulary), bytes, 0), false);
    assertThrows(() => feed.read(bytes, 0, 0), InputError, `a stored row names token ${vocabulary}`);
    codec.write(row(NO_TOKEN), bytes, 0);
    feed.read(bytes, 0, 0);
  }
});

Deno.test("hidden states come back as they were rounded, at odd widths, and what is not finite is noticed", () => {
  for (const width of [1, 5, 8]) {
    const row = randomArray(width, width, 3);
    for (const precision of ["f32", "bf16", "int8"] as const) {
      const codec = new HiddenCodec({ width, precision });
      const bytes = new ArrayBuffer(2 * codec.bytes);
      assert(codec.write(row, bytes, codec.bytes));
      const rounded = codec.rounded(row);
      const most = { f32: 0, bf16: 2 ** -8, int8: 1 / 127 }[precision] * Math.max(...row.map(Math.abs));
      assert(rounded.every((x, c) => Math.abs(x - row[c]!) <= most));
      const { rows, scales } = hiddenArrays(3, width, precision);
      const feed = codec.feed(3);
      feed.read(bytes, codec.bytes, 1);
      const [stored] = [...feed.inputs.values()];
      assertEquals(stored!.length, rows.length);
      assertEquals(feed.inputs.size, scales ? 2 : 1);
      assert(
        stored!.subarray(0, stored!.length / 3).every((word) => word === 0),
        "other positions are left alone",
      );
      assertEquals(codec.write(row.map((x, c) => c === width - 1 ? NaN : x), bytes, 0), false);
      assertEquals(codec.write(row.fill(0), bytes, 0), true);
      assertEquals([...codec.rounded(row)], [...row]);
      row.set(randomArray(width, width, 3));
    }
  }
});
