// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { type FormFile, readForm } from "../../src/server/http/form.ts";
import { HttpError } from "../../src/server/http/http_error.ts";

const bytes = new TextEncoder().encode([
  "--x",
  'Content-Disposition: form-data; name="purpose"',
  "",
  "fine-tune",
  "--x",
  'Content-Disposition: form-data; name="file"; filename="/home/ada/rows.jsonl"',
  "Content-Type: application/jsonl",
  "",
  '{"text":"a\r\n--y"}\r\n'.repeat(50),
  "--x--",
  "",
].join("\r\n"));

/** Reads a form that comes in pieces of some lengths. */
async function read(
  content: Uint8Array,
  lengths: readonly number[],
  type = "multipart/form-data; boundary=x",
) {
  let at = 0;
  let piece = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= content.length) return controller.close();
      controller.enqueue(content.slice(at, at += lengths[piece++ % lengths.length]!));
    },
  });
  const request = new Request("http://localhost/", {
    method: "POST",
    body,
    headers: { "Content-Type": type },
  });
  let file = "";
  const fields = await readForm(request, 10_000, async ({ field, filename, content }) => {
    const decoder = new TextDecoder();
    for await (const chunk of content) file += decoder.decode(chunk, { stream: true });
    file = `${field} ${filename} ${file}`;
  });
  return { fields, file };
}

Deno.test("a form is the same in whatever pieces it comes", () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 8 }),
      async (lengths) => {
        const { fields, file } = await read(bytes, lengths);
        assertEquals([...fields], [["purpose", "fine-tune"]]);
        assertEquals(file, `file rows.jsonl ${'{"text":"a\r\n--y"}\r\n'.repeat(50)}`);
      },
    ),
    { numRuns: 60, seed: 7 },
  ));

Deno.test("a form that is cut or damaged is read or refused, and never waited for", () =>
  fc.assert(
    fc.asyncProperty(
      fc.nat(bytes.length),
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.integer({ min: 1, max: 300 }),
      async (cut, changes, length) => {
        const damaged = bytes.slice(0, cut);
        for (const [at, byte] of changes) if (at < cut) damaged[at] = byte;
        try {
          await read(damaged, [length]);
        } catch (error) {
          assert(error instanceof HttpError && error.status === 400, String(error));
        }
      },
    ),
    { numRuns: 400, seed: 7 },
  ));

Deno.test("what is no form, or is too long, is refused", async () => {
  const status = (...args: Parameters<typeof read>) => read(...args).then(() => 200, ({ status }) => status);
  assertEquals(await status(bytes, [100], "application/json"), 415);
  assertEquals(await status(bytes, [100], "multipart/form-data"), 400);
  assertEquals(await status(bytes, [100], "multipart/form-data; boundary="), 400);
  assertEquals(await status(bytes, [100], "multipart/form-dataxyz; boundary=x"), 415);
  assertEquals(await status(new Uint8Array(20_000), [3000]), 413);
  assertEquals(await status(new Uint8Array(), [1]), 400);
});

Deno.test("a sender that falls silent is given up; one that is only slow, or whose bytes are slowly taken, is not", async () => {
  const head = bytes.slice(0, 400);
  const send = async (pause: number, taking: number, ends: boolean, silence = 200) => {
    const pieces = [head, bytes.slice(400)];
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        const next = pieces.shift();
        if (next === undefined) return controller.close();
        if (next !== head) await new Promise((resolve) => setTimeout(resolve, pause));
        if (next === head || ends) controller.enqueue(next);
        else await new Promise(() => {});
      },
    }, { highWaterMark: 0 });
    const headers = { "Content-Type": "multipart/form-data; boundary=x" };
    const request = new Request("http://localhost/", { method: "POST", body, headers });
    const receive = async ({ content }: FormFile) => {
      for await (const _ of content) {
        if (taking < 0) throw new HttpError(400, "no");
        await new Promise((resolve) => setTimeout(resolve, taking));
      }
    };
    return await readForm(request, 10_000, receive, silence).then(() => 200, ({ status }) => status);
  };
  assertEquals(await send(0, 0, false), 408);
  assertEquals(await send(100, 0, true), 200);
  assertEquals(await send(0, 300, true), 200);
  assertEquals(await send(0, -1, false, 60_000), 400, "what is refused is refused at once");
});
