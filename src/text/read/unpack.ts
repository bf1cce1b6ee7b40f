/**
 * What was packed into a file with gzip or zstd, as it comes.
 *
 * Deno's own are not used: its `DecompressionStream` takes one part of a gzip file of several, and its streams of zstd end without a word
 * where a file is cut off or damaged.
 *
 * @module
 */
import { Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { Decompress } from "fzstd";
import { InputError } from "../../base/errors.ts";

/** What is around a file of text. */
export type Compression = "gzip" | "zstd";

/**
 * Unpacks a file, also one of several parts.
 *
 * @param path how to name the file in errors
 * @throws {InputError} it is cut off or damaged
 */
export async function* unpacked(
  source: AsyncIterable<Uint8Array>,
  compression: Compression,
  path: string,
): AsyncGenerator<Uint8Array> {
  try {
    yield* compression === "gzip" ? gunzip(source) : unzstd(source);
  } catch (cause) {
    if (cause instanceof InputError) throw cause;
    throw new InputError(`cannot be unpacked: ${cause instanceof Error ? cause.message : cause}`, {
      where: path,
      hint: "It is cut off or damaged: fetch it again.",
      cause,
    });
  }
}

async function* gunzip(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const packed = Readable.from(copies(source));
  const unpack = createGunzip();
  packed.on("error", (error) => unpack.destroy(error));
  try {
    for await (const chunk of packed.pipe(unpack)) yield chunk as Uint8Array;
  } finally {
    packed.destroy();
  }
}

/** A source may reuse its chunk, and a stream reads ahead. */
async function* copies(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) yield chunk.slice();
}

/** Bytes that are unpacked together: four may stand for 128 KiB, and what they come to is held. */
const PIECE = 4096;

async function* unzstd(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let ready: Uint8Array[] = [];
  const unpack = new Decompress((chunk) => {
    if (chunk.length > 0) ready.push(chunk);
  });
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; at += PIECE) {
      unpack.push(chunk.slice(at, at + PIECE));
      yield* ready;
      ready = [];
    }
  }
  unpack.push(new Uint8Array(), true);
  yield* ready;
}
