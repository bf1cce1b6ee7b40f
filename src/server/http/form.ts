/**
 * Forms with a file, read as they come: the file is handed on piece by piece and is never in memory as a whole.
 *
 * @module
 */
import { Busboy, type BusboyInstance } from "@fastify/busboy";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { HttpError } from "./http_error.ts";

/** A file of a form. The form goes on once it is read to its end. */
export interface FormFile {
  /** Name of the form's field. */
  readonly field: string;
  /** As its sender calls it, without folders. */
  readonly filename: string;
  readonly content: AsyncIterable<Uint8Array>;
}

/** What there may be of a form beside the bytes of its one file. */
const LIMITS = { files: 1, fields: 16, fieldSize: 4096, headerPairs: 32, headerSize: 8192 };

/**
 * Reads a form to its end.
 *
 * @param mostBytes of the whole body
 * @param receive is called with the file, if there is one; reads it to its end or throws
 * @returns the other fields
 * @throws {HttpError} 400 no form; 413 longer than that; 415 said to be something else
 * @throws what `receive` throws; the rest of the form is not read then
 */
export async function readForm(
  { body, headers }: Request,
  mostBytes: number,
  receive: (file: FormFile) => Promise<void>,
): Promise<ReadonlyMap<string, string>> {
  const type = headers.get("Content-Type") ?? "";
  if (!/^multipart\/form-data\s*(;|$)/i.test(type)) {
    throw new HttpError(415, "send a form, with Content-Type: multipart/form-data", { code: "content_type" });
  }
  if (Number(headers.get("Content-Length") ?? 0) > mostBytes) throw tooLong(mostBytes);

  const fields = new Map<string, string>();
  let file: Readable | undefined;
  let received: Promise<void> | undefined;
  let refusal: unknown;
  try {
    const form: BusboyInstance = new Busboy({ headers: { "content-type": type }, limits: LIMITS });
    form.on("field", (name, value) => fields.set(name, value));
    form.on("file", (field, content, filename) => {
      // Told to whoever reads it, or to nobody any more: unheard, it would end the process.
      file = content.on("error", () => {});
      received = receive({ field, filename: filename ?? "", content: whole(content) }).catch((error) => {
        refusal = error;
        form.destroy(error);
      });
    });
    await pipeline(bounded(body, mostBytes), form);
  } catch (cause) {
    const error = broken(cause);
    // Whoever receives it waits for bytes that no longer come.
    file?.destroy(error);
    await received;
    refusal ??= error;
  }
  await received;
  if (refusal !== undefined) throw refusal;
  return fields;
}

async function* bounded(body: ReadableStream<Uint8Array> | null, most: number) {
  let bytes = 0;
  for await (const chunk of body ?? []) {
    if ((bytes += chunk.length) > most) throw tooLong(most);
    yield chunk;
  }
}

async function* whole(content: Readable): AsyncGenerator<Uint8Array> {
  try {
    yield* content;
  } catch (cause) {
    throw broken(cause);
  }
}

function broken(cause: unknown): HttpError {
  if (cause instanceof HttpError) return cause;
  return new HttpError(400, `the body is no multipart/form-data: ${(cause as Error).message}`, {
    code: "bad_request",
    cause,
  });
}

function tooLong(most: number): HttpError {
  return new HttpError(413, `a body may have at most ${most} bytes`, { code: "too_large" });
}
