/** What a tab puts in the place of Deno, as far as it works without a browser. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { DeviceError, InputError } from "../../src/base/errors.ts";
import { failureOf } from "../../src/tab/failure.ts";
import { createHash as tabHash } from "../../src/tab/hash.ts";
import { csvRecords, unpacked } from "../../src/tab/packed_formats.ts";
import { blobFile, remoteFile } from "../../src/tab/tab_file.ts";

const BYTES = Uint8Array.from({ length: 10_007 }, (_, i) => (i * 31) % 251);

/** A server of one file; `how` is what it makes of a range that it is asked for. */
async function withServer(
  how: "ranges" | "whole" | "short" | "refuses",
  use: (url: string, asked: string[]) => Promise<void>,
): Promise<void> {
  const asked: string[] = [];
  await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, ({ headers }) => {
    const range = headers.get("Range")!;
    asked.push(range);
    if (how === "refuses") return new Response("no", { status: 401 });
    if (how === "whole") return new Response(BYTES);
    const [first, last] = /^bytes=(\d+)-(\d+)$/.exec(range)!.slice(1).map(Number) as [number, number];
    const end = how === "short" && first > 0 ? last : last + 1;
    return new Response(BYTES.subarray(first, end), {
      status: 206,
      headers: { "Content-Range": `bytes ${first}-${end - 1}/${BYTES.length}` },
    });
  });
  await use(`http://127.0.0.1:${server.addr.port}/model.safetensors`, asked);
}

Deno.test("a tab's hashes are those of node:crypto, of texts and of views", () => {
  for (const length of [0, 1, 55, 56, 64, 10_007]) {
    const part = BYTES.subarray(0, length);
    const both = [createHash("sha256"), tabHash("sha256")].map((hash) =>
      hash.update(part).update("Größe \u{1f9ea}").update(Int32Array.of(-1, 7)).digest("hex")
    );
    assertEquals(both[1], both[0]);
  }
  // Half of a pair of surrogates is one of U+FFFD for both.
  assertEquals(
    tabHash("sha256").update("\ud800").digest("hex"),
    createHash("sha256").update("\ud800").digest("hex"),
  );
});

Deno.test("a file of a server is read by ranges, no more of it than is asked for", () =>
  withServer("ranges", async (url, asked) => {
    const file = await remoteFile(url);
    assertEquals(file.size, BYTES.length);
    assertEquals(await file.read(5, 100), BYTES.slice(5, 105));
    assertEquals(await file.read(file.size - 1, 1), BYTES.slice(-1));
    assertEquals((await file.read(file.size, 0)).length, 0);
    assertEquals(asked, ["bytes=0-0", "bytes=5-104", "bytes=10006-10006"]);
  }));

Deno.test("a file of a server without ranges is fetched once", () =>
  withServer("whole", async (url, asked) => {
    const file = await remoteFile(url);
    assertEquals([file.size, await file.read(7, 9), await file.read(0, 3)], [
      BYTES.length,
      BYTES.slice(7, 16),
      BYTES.slice(0, 3),
    ]);
    assertEquals(asked.length, 1);
  }));

Deno.test("a server that sends too little, or nothing, is told of", async () => {
  await withServer("short", async (url) => {
    const file = await remoteFile(url);
    await assertRejects(() => file.read(5, 100), InputError, "bytes 5 to 104 were asked for, and it sent 99");
  });
  await withServer("refuses", async (url) => {
    const error = await assertRejects(() => remoteFile(url), InputError, "the server answers 401");
    assertMatch(error.hint!, /^Sign in/);
  });
});

Deno.test("a picked file is read in pieces", async () => {
  const file = blobFile(new Blob([BYTES]));
  assertEquals([file.size, await file.read(10_000, 7)], [BYTES.length, BYTES.slice(10_000)]);
});

Deno.test("what a tab cannot read is refused with what to do", async () => {
  const table = await assertRejects(
    () => Array.fromAsync(csvRecords(undefined, "/datasets/a/a.csv")),
    InputError,
    "a.csv",
  );
  assertMatch(table.hint!, /JSON Lines/);
  await assertRejects(
    () => Array.fromAsync(unpacked(undefined, "gzip", "/datasets/a/a.jsonl.gz")),
    InputError,
    "unpack gzip",
  );
});

Deno.test("errors are told without commands of a terminal", () => {
  const lost = new DeviceError("the GPU device was lost (unknown): gone", {
    hint: "run `limbeck resume` to continue",
  });
  assertMatch(failureOf(lost).hint!, /^Reload the page and resume the run/);
  const wrong = new InputError("is wrong", { where: "recipe", hint: "`limbeck init` writes a recipe" });
  assertEquals(failureOf(wrong), { code: "bad_input", message: "recipe: is wrong" });
  const full = failureOf(Object.assign(new Error("no more"), { code: "ENOSPC" }));
  assertEquals([full.code, /Remove runs/.test(full.hint!)], ["disk_full", true]);
  assertEquals(failureOf(new TypeError("x is undefined")).code, "internal");
});
