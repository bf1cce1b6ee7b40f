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

/** A sender that is silent for so long is taken to be gone, milliseconds: what it sends keeps a place from others. */
const SILENCE_MS = 60_000;

/**
 * Reads a form to its end.
 *
 * @param mostBytes of the whole body
 * @param receive is called with the file, if there is one; reads it to its end or throws
 * @param silence milliseconds after which a sender that says nothing is taken to be gone
 * @returns the other fields
 * @throws {HttpError} 400 no form; 408 its sender fell silent; 413 longer than that; 415 said to be something else
 * @throws what `receive` throws; the rest of the form is not read then
 */
export async function readForm(
  { body, headers }: Request,
  mostBytes: number,
  receive: (file: FormFile) => Promise<void>,
  silence = SILENCE_MS,
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
  const reader = body?.getReader();
  // Not waited for: whoever sends may never answer.
  const leave = () => void reader?.cancel().catch(() => {});
  try {
    const form: BusboyInstance = new Busboy({ headers: { "content-type": type }, limits: LIMITS });
    // The next bytes may take long to come.
    form.on("error", leave);
    form.on("field", (name, value) => fields.set(name, value));
    form.on("file", (field, content, filename) => {
      // Told to whoever reads it, or to nobody any more: unheard, it would end the process.
      file = content.on("error", () => {});
      received = receive({ field, filename: filename ?? "", content: whole(content) }).catch((error) => {
        refusal = error;
        form.destroy(error);
      });
    });
    await pipeline(bounded(reader, mostBytes, silence), form);
  } catch (cause) {
    const error = broken(cause);
    // Whoever receives it waits for bytes that no longer come.
    file?.destroy(error);
    await received;
    refusal ??= error;
    leave();
  }
  await received;
  if (refusal !== undefined) throw refusal;
  return fields;
}

async function* bounded(
  reader: ReadableStreamDefaultReader<Uint8Array> | undefined,
  most: number,
  silence: number,
): AsyncGenerator<Uint8Array> {
  for (let bytes = 0; reader;) {
    const { done, value } = await within(silence, reader.read());
    if (done) return;
    if ((bytes += value.length) > most) throw tooLong(most);
    yield value;
  }
}

async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(silent(milliseconds)), milliseconds);
  return await Promise.race([promise, late.promise]).finally(() => clearTimeout(timer));
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

function silent(milliseconds: number): HttpError {
  return new HttpError(408, `nothing of the body came for ${milliseconds / 1000} s`, { code: "timeout" });
}

function tooLong(most: number): HttpError {
  return new HttpError(413, `a body may have at most ${most} bytes`, { code: "too_large" });
}
