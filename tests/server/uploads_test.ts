/** Uploads: streamed to the disk, bounded, and whole or not there at all. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertLess, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { Service } from "../../src/server/service.ts";
import { defaults, prepare, type TestService, withListening, withService } from "./harness.ts";
import { withFolder } from "../runs/fake_run.ts";
import { refusal } from "./small_app.ts";

const MEBIBYTE = 1 << 20;
const encoder = new TextEncoder();
/** A mebibyte of rows. */
const rows = encoder.encode(`{"text":"${"a".repeat(1012)}"}\n`.repeat(1024));

const HEAD = '--x\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n';
const PURPOSE = '\r\n--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune';
const END = "\r\n--x--\r\n";

/** A form that is made piece by piece while it is read; `wait` holds it back before its end. */
function form(
  pieces: readonly (string | Uint8Array)[],
  wait?: Promise<void>,
): { body: ReadableStream<Uint8Array>; headers: Record<string, string> } {
  const left = [...pieces];
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = left.shift();
      if (left.length === 0) await wait;
      if (next === undefined) return controller.close();
      controller.enqueue(typeof next === "string" ? encoder.encode(next) : next.slice());
    },
  }, { highWaterMark: 0 });
  return { body, headers: { "Content-Type": "multipart/form-data; boundary=x" } };
}

const ofMebibytes = (count: number, wait?: Promise<void>) =>
  form([HEAD, ...Array<Uint8Array>(count).fill(rows), PURPOSE, END], wait);

const send = ({ request }: TestService, { body, headers }: ReturnType<typeof form>, more = {}) =>
  request("/v1/files", { method: "POST", body, headers: { ...headers, ...more } });

/** Names in the folder of uploads. */
const kept = async (folder: string) =>
  (await Array.fromAsync(Deno.readDir(`${folder}/service/files`)).catch(() => [])).map(({ name }) => name);

Deno.test("uploads of hundreds of MiB at once take little memory, and are what was sent", () =>
  withService(async (test) => {
    await (await send(test, ofMebibytes(1))).json();
    const before = Deno.memoryUsage().rss;
    let most = before;
    const watching = setInterval(() => most = Math.max(most, Deno.memoryUsage().rss), 5);
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => send(test, ofMebibytes(64))),
    );
    clearInterval(watching);
    const hash = createHash("sha256");
    for (let i = 0; i < 64; i++) hash.update(rows);
    const sha256 = hash.digest("hex");
    for (const answer of answers) {
      const file = await answer.json();
      assertEquals([file.bytes, file.sha256, file.filename], [64 * rows.length, sha256, "rows.jsonl"]);
    }
    assertLess((most - before) / MEBIBYTE, 200, "MiB for 512 MiB of uploads");
  }, { uploads: { atOnce: 8 } }));

Deno.test("what does not come to its end leaves nothing behind", () =>
  withService(async (test) => {
    const { folder } = test;
    const refused = async (pieces: (string | Uint8Array)[], text: string) => {
      const answer = await send(test, form(pieces));
      const told = await answer.clone().text();
      assertEquals((await refusal(answer))[0], 400, told);
      assertStringIncludes(told, text);
      assertEquals(await kept(folder), []);
    };
    await refused([HEAD, rows], "no multipart/form-data");
    await refused([HEAD, rows, "\r\n--x\r\nContent-"], "no multipart/form-data");
    await refused([], "no multipart/form-data");
    await refused([HEAD, rows, END], "purpose");
    await refused([HEAD, rows, PURPOSE.replace("fine-tune", "vision"), END], "purpose");
    await refused([PURPOSE, END], "file");
    await refused([HEAD.replace('"file"', '"other"'), rows, PURPOSE, END], "file");
    await refused([HEAD, PURPOSE, END], "no rows");
    await refused([HEAD, '{"text":"a"}\n{]\n', PURPOSE, END], "line 2 is not JSON");
    await refused([HEAD, '{"text":"a"}\n{', "]\n", rows, PURPOSE, END], "line 2 is not JSON");
    await refused([HEAD, '{"text":"a"}\n', "[1]", PURPOSE, END], "line 2 is no object");
    const gone = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(encoder.encode(HEAD)),
      pull: (controller) => controller.error(new Error("the line is dead")),
    });
    const answer = await send(test, { ...form([]), body: gone });
    assertEquals([answer.status, await kept(folder)], [400, []]);
    await answer.body?.cancel();

    const split = rows.subarray(0, 4000);
    const good = await send(test, form([PURPOSE.slice(2), "\r\n", HEAD, split, rows.subarray(4000), END]));
    assertEquals((await good.json()).bytes, rows.length, "a purpose may come first, a row in pieces");
    assertEquals((await kept(folder)).length, 1);
  }));

Deno.test("a client that leaves in the middle of an upload leaves nothing behind, and its place is free again", () =>
  withListening(async ({ url, folder }) => {
    const never = new Promise<void>(() => {});
    for (let i = 0; i < 3; i++) {
      const leave = new AbortController();
      const { body, headers } = ofMebibytes(2, never);
      const sent = fetch(`${url}/v1/files`, { method: "POST", body, headers, signal: leave.signal });
      while ((await kept(folder)).length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      leave.abort();
      await sent.catch(() => {});
      while ((await kept(folder)).length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }, { uploads: { atOnce: 1 } }));

Deno.test("one identity sends so many files at once, so long ones, and so many bytes in all", () => {
  const [ada, bob] = [newToken("ada", "submit"), newToken("bob", "submit")];
  const as = ({ secret }: typeof ada) => ({ Authorization: `Bearer ${secret}` });
  const uploads = { fileBytes: 2 * rows.length, ownerBytes: 3 * rows.length, atOnce: 2, allAtOnce: 3 };
  return withService(async (test) => {
    const goOn = Promise.withResolvers<void>();
    const slow = [1, 1].map(() => send(test, ofMebibytes(1, goOn.promise), as(ada)));
    const full = await send(test, ofMebibytes(1), as(ada));
    assert(Number(full.headers.get("Retry-After")) > 0);
    assertEquals(await refusal(full), [429, "too_many_uploads"]);
    const third = send(test, ofMebibytes(1, goOn.promise), as(bob));
    assertEquals(await refusal(send(test, ofMebibytes(1), as(bob))), [503, "too_many_uploads"]);
    goOn.resolve();
    for (const answer of await Promise.all([...slow, third])) {
      assertEquals(answer.status, 200);
      await answer.body?.cancel();
    }
    assertEquals(await refusal(send(test, ofMebibytes(3), as(bob))), [413, "too_large"]);
    const more = await send(test, ofMebibytes(2), as(ada));
    assertStringIncludes(await more.clone().text(), "DELETE /v1/files/{id} makes room");
    assertEquals(await refusal(more), [413, "upload_quota"]);
    assertEquals((await kept(test.folder)).length, 3);
    const { data } = (await test.call("GET", "/v1/files", undefined, as(bob))).body as {
      data: { id: string }[];
    };
    assertEquals((await send(test, ofMebibytes(2), as(bob))).status, 200);
    const twice = [...data, ...data];
    const removed = await Promise.all(
      twice.map(({ id }) => test.call("DELETE", `/v1/files/${id}`, undefined, as(ada))),
    );
    assert(
      removed.every(({ status }) => status === 200 || status === 403 || status === 404),
      "removed twice",
    );
    assertEquals((await send(test, ofMebibytes(2), as(ada))).status, 200, "what is removed makes room");
  }, { tokens: TokenList.parse(`${ada.line}\n${bob.line}`, "tokens"), uploads });
});

Deno.test("a service that starts removes what an earlier one had not received to its end", () =>
  withFolder(async (folder) => {
    await prepare(folder);
    const unfinished = `${folder}/service/files/.file-0123456789abcdef01234567.tmp`;
    await Deno.mkdir(unfinished, { recursive: true });
    const service = await Service.start(defaults(folder));
    assertEquals(await kept(folder), []);
    await service.close(1);
  }));
