/**
 * Recognises what often lies where a model's file should be, because fetching it went wrong.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { ByteSource } from "./source.ts";

/** Bytes at the beginning of a file that tell. */
const HEAD = 64;

/**
 * Refuses a Git LFS pointer and a web page.
 *
 * @throws {InputError} naming the file, what it is and how to get the right one
 */
export async function refuseWrongDownload(source: ByteSource): Promise<void> {
  const head = await source.read(0, Math.min(HEAD, source.size));
  checkDownload(new TextDecoder().decode(head), source.name);
}

/** The same for text that has been read. */
export function checkDownload(text: string, where: string): void {
  const head = text.slice(0, HEAD).trimStart().toLowerCase();
  if (head.startsWith("version https://git-lfs")) {
    throw new InputError("is a Git LFS pointer, not the file itself", {
      where,
      hint: "Run `git lfs pull` in the folder, or download the file.",
    });
  }
  if (head.startsWith("<!doctype") || head.startsWith("<html")) {
    throw new InputError("is a web page, not the file itself", {
      where,
      hint:
        "The download got the site's page about the file, perhaps a request to sign in; download it again.",
    });
  }
}
