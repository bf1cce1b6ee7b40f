/**
 * Uploaded datasets: one folder each below the data folder, whole or not there at all.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { createHash, randomBytes } from "node:crypto";
import { DiskFullError, freeBytes, writeTextAtomically } from "../formats/files.ts";
import { isDiskFull } from "../base/errors.ts";
import { HttpError } from "./http/http_error.ts";

/** An uploaded file. */
export interface Upload {
  readonly id: string;
  /** As its sender called it; only ever shown. */
  readonly filename: string;
  readonly purpose: string;
  readonly bytes: number;
  /** SHA-256, hex. */
  readonly sha256: string;
  readonly createdAt: string;
  /** Name of whoever sent it. */
  readonly owner: string;
  /** Absolute path of what was sent. */
  readonly path: string;
}

const ID = /^file-[0-9a-f]{24}$/;
const CONTENT = "content.jsonl";

/** Files that were uploaded. */
export class Uploads {
  readonly #folder: string;

  constructor(dataFolder: string) {
    this.#folder = join(dataFolder, "files");
  }

  /**
   * Keeps what is sent.
   *
   * @param limit most bytes
   * @throws {HttpError} 413 too long; 507 the disk is full
   */
  async add(
    content: ReadableStream<Uint8Array>,
    about: Pick<Upload, "filename" | "purpose" | "owner">,
    limit: number,
  ): Promise<Upload> {
    const id = `file-${randomBytes(12).toString("hex")}`;
    const [folder, unfinished] = [join(this.#folder, id), join(this.#folder, `.${id}.tmp`)];
    await Deno.mkdir(unfinished, { recursive: true });
    try {
      const path = join(unfinished, CONTENT);
      const { bytes, sha256 } = await write(path, content, limit);
      const meta = { id, ...about, bytes, sha256, createdAt: new Date().toISOString() };
      await writeTextAtomically(join(unfinished, "meta.json"), JSON.stringify(meta) + "\n");
      await Deno.rename(unfinished, folder);
      return { ...meta, path: join(folder, CONTENT) };
    } catch (error) {
      await Deno.remove(unfinished, { recursive: true }).catch(() => {});
      if (isDiskFull(error) || error instanceof DiskFullError) {
        const free = await freeBytes(this.#folder);
        throw new HttpError(
          507,
          `the service's disk is full${free === undefined ? "" : `: ${free} bytes are free`}`,
          {
            code: "disk_full",
            cause: error,
          },
        );
      }
      throw error;
    }
  }

  async get(id: string): Promise<Upload | undefined> {
    if (!ID.test(id)) return undefined;
    const folder = join(this.#folder, id);
    try {
      return {
        ...JSON.parse(await Deno.readTextFile(join(folder, "meta.json"))),
        path: join(folder, CONTENT),
      };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  /** The newest first. */
  async list(): Promise<Upload[]> {
    const uploads: Upload[] = [];
    try {
      for await (const { name } of Deno.readDir(this.#folder)) {
        const upload = await this.get(name);
        if (upload) uploads.push(upload);
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return uploads.sort((a, b) =>
      a.createdAt < b.createdAt || (a.createdAt === b.createdAt && a.id < b.id) ? 1 : -1
    );
  }

  /** Removes a file; runs that use it cannot be resumed. */
  async remove(id: string): Promise<void> {
    if (ID.test(id)) await Deno.remove(join(this.#folder, id), { recursive: true });
  }
}

async function write(
  path: string,
  content: ReadableStream<Uint8Array>,
  limit: number,
): Promise<{ bytes: number; sha256: string }> {
  using file = await Deno.open(path, { write: true, createNew: true });
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of content) {
    bytes += chunk.length;
    if (bytes > limit) {
      throw new HttpError(413, `a file may have at most ${limit} bytes`, { code: "too_large" });
    }
    hash.update(chunk);
    for (let done = 0; done < chunk.length;) done += await file.write(chunk.subarray(done));
  }
  await file.syncData();
  return { bytes, sha256: hash.digest("hex") };
}
