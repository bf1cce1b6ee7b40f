/// <reference types="../../types/browser.d.ts" />
/**
 * Files that a tab reads by ranges: those that were picked, and those of a server.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

/** Bytes that lie somewhere and are read in pieces. */
export interface TabFile {
  readonly size: number;
  /** The bytes from `offset` on, all `length` of them. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** The same without waiting; absent where that cannot be. */
  readSync?(offset: number, length: number): Uint8Array<ArrayBuffer>;
}

/** A file that was picked, or that the tab keeps: it stays where it is, and only what is asked for is read. */
export function blobFile(blob: Blob): TabFile {
  // Only workers have one.
  const Reader = globalThis.FileReaderSync;
  const slice = (offset: number, length: number) => blob.slice(offset, offset + length);
  return {
    size: blob.size,
    read: async (offset, length) => new Uint8Array(await slice(offset, length).arrayBuffer()),
    ...(Reader
      ? {
        readSync: (offset: number, length: number) =>
          new Uint8Array(new Reader().readAsArrayBuffer(slice(offset, length))),
      }
      : {}),
  };
}

/**
 * A file of a server, whose size is asked for once. A server that knows no ranges sends all of it, which is then kept.
 *
 * @throws {InputError} it cannot be had
 */
export async function remoteFile(url: string): Promise<TabFile> {
  const first = await fetched(url, { headers: { Range: "bytes=0-0" } });
  const range = /^bytes \d+-\d+\/(\d+)$/.exec(first.headers.get("Content-Range") ?? "");
  // An empty file has no first byte.
  if (first.status === 416) return blobFile(new Blob());
  if (first.status !== 206 || !range) return blobFile(await first.blob());
  await first.body?.cancel();
  const size = Number(range[1]);
  return {
    size,
    async read(offset, length) {
      if (length === 0) return new Uint8Array();
      const response = await fetched(url, { headers: { Range: `bytes=${offset}-${offset + length - 1}` } });
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (response.status === 206 && bytes.length === length) return bytes;
      throw new InputError(
        `its bytes ${offset} to ${offset + length - 1} were asked for, and it sent ${bytes.length}`,
        {
          where: url,
          hint: "The file changed meanwhile, or the connection broke: resume the run.",
        },
      );
    },
  };
}

/** Times that a broken connection is tried. */
const TRIES = 3;

async function fetched(url: string, init: RequestInit): Promise<Response> {
  for (let tries = 1;; tries++) {
    let response: Response;
    try {
      response = await fetch(url, init);
    } catch (cause) {
      if (tries < TRIES) {
        await new Promise((resolve) => setTimeout(resolve, 500 * tries));
        continue;
      }
      throw new InputError(`the server cannot be reached: ${(cause as Error).message}`, {
        where: url,
        hint: "Look whether it runs, then resume the run.",
        cause,
      });
    }
    if (response.ok || response.status === 416) return response;
    throw new InputError(`the server answers ${response.status}`, {
      where: url,
      hint: response.status === 401 || response.status === 403
        ? "Sign in on the service's own page, then come back."
        : "Look whether the file is still there.",
    });
  }
}
