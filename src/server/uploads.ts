/**
 * Uploaded datasets: one folder each below the data folder, whole or not there at all.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join, SEPARATOR } from "@std/path";
import { createHash, randomBytes } from "node:crypto";
import { DiskFullError, freeBytes, writeTextAtomically } from "../formats/files.ts";
import { isDiskFull } from "../base/errors.ts";
import { HttpError } from "./http/http_error.ts";
import { Places } from "./http/places.ts";

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

/** Bounds of what is uploaded. */
export interface UploadLimits {
  /** Bytes of a file. */
  readonly fileBytes: number;
  /** Bytes of all files of one owner. */
  readonly ownerBytes: number;
  /** Files that one owner sends at once, and all do. */
  readonly atOnce: number;
  readonly allAtOnce: number;
}

/** Bounds where the operator sets none. */
export const UPLOAD_LIMITS: UploadLimits = {
  fileBytes: 100 << 20,
  ownerBytes: 4 * 2 ** 30,
  atOnce: 4,
  allAtOnce: 16,
};

const ID = /^file-[0-9a-f]{24}$/;
const UNFINISHED = /^\.file-[0-9a-f]{24}\.tmp$/;
const CONTENT = "content.jsonl";

/** Files that were uploaded. One service at a time works on them. */
export class Uploads {
  readonly limits: UploadLimits;
  readonly #folder: string;
  readonly #places: Places;
  /** Bytes of each owner, those that are being sent among them; counted once. */
  #held: Promise<Map<string, number>> | undefined;
  /** Paths of uploads in a text. */
  readonly #paths: RegExp;

  /** @param folder that they lie in */
  constructor(folder: string, limits: Partial<UploadLimits> = {}) {
    this.#folder = folder;
    this.limits = { ...UPLOAD_LIMITS, ...limits };
    const { atOnce: each, allAtOnce: all } = this.limits;
    this.#places = new Places({ each, all, what: "uploads", code: "too_many_uploads" });
    const literal = (this.#folder + SEPARATOR).replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    this.#paths = new RegExp(`${literal}(file-[0-9a-f]{24})[\\\\/]content\\.jsonl`, "g");
  }

  /** Removes what a service that was killed had not received to its end. */
  async clean(): Promise<void> {
    for (const name of await this.#names()) {
      if (UNFINISHED.test(name)) await Deno.remove(join(this.#folder, name), { recursive: true });
    }
  }

  /**
   * Keeps a file that comes. What was written of it is gone where it does not come to its end.
   *
   * @param receive writes what comes, and says at its end what it is
   * @throws {HttpError} 413 too long, or the owner's files are too many bytes; 429 its owner sends as many as one may; 503 as many as may
   * are being sent; 507 the disk is full
   * @throws what `receive` throws
   */
  async add(
    owner: string,
    receive: (
      write: (content: AsyncIterable<Uint8Array>) => Promise<void>,
    ) => Promise<Pick<Upload, "filename" | "purpose">>,
  ): Promise<Upload> {
    using _place = this.#places.take(owner);
    const held = await this.#heldBytes();
    const id = `file-${randomBytes(12).toString("hex")}`;
    const [folder, unfinished] = [join(this.#folder, id), join(this.#folder, `.${id}.tmp`)];
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      await Deno.mkdir(unfinished, { recursive: true });
      let about: Pick<Upload, "filename" | "purpose">;
      {
        using file = await Deno.open(join(unfinished, CONTENT), { write: true, createNew: true });
        about = await receive(async (content) => {
          for await (const chunk of content) {
            bytes += chunk.length;
            held.set(owner, (held.get(owner) ?? 0) + chunk.length);
            this.#checkRoom(bytes, held.get(owner)!);
            hash.update(chunk);
            for (let done = 0; done < chunk.length;) done += await file.write(chunk.subarray(done));
          }
        });
        await file.syncData();
      }
      const createdAt = new Date().toISOString();
      const meta = { id, ...about, owner, bytes, sha256: hash.digest("hex"), createdAt };
      await writeTextAtomically(join(unfinished, "meta.json"), JSON.stringify(meta) + "\n");
      await Deno.rename(unfinished, folder);
      return { ...meta, path: join(folder, CONTENT) };
    } catch (error) {
      held.set(owner, (held.get(owner) ?? 0) - bytes);
      await Deno.remove(unfinished, { recursive: true }).catch(() => {});
      if (!isDiskFull(error) && !(error instanceof DiskFullError)) throw error;
      const free = await freeBytes(this.#folder);
      const room = free === undefined ? "" : `: ${free} bytes are free`;
      throw new HttpError(507, `the service's disk is full${room}`, { code: "disk_full", cause: error });
    }
  }

  #checkRoom(bytes: number, held: number): void {
    const { fileBytes, ownerBytes } = this.limits;
    if (bytes > fileBytes) {
      throw new HttpError(413, `a file may have at most ${fileBytes} bytes`, { code: "too_large" });
    }
    if (held > ownerBytes) {
      throw new HttpError(
        413,
        `your files may have ${ownerBytes} bytes together; DELETE /v1/files/{id} makes room`,
        { code: "upload_quota" },
      );
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
    for (const name of await this.#names()) {
      const upload = await this.get(name);
      if (upload) uploads.push(upload);
    }
    return uploads.sort((a, b) =>
      a.createdAt < b.createdAt || (a.createdAt === b.createdAt && a.id < b.id) ? 1 : -1
    );
  }

  /** A text in which ids stand for the paths of uploads. */
  hide(text: string): string {
    return text.replace(this.#paths, "$1");
  }

  /** Removes a file; runs that use it cannot be resumed. */
  async remove({ id, owner, bytes }: Upload): Promise<void> {
    const held = await this.#heldBytes();
    const gone = join(this.#folder, `.${id}.tmp`);
    try {
      await Deno.rename(join(this.#folder, id), gone);
    } catch (error) {
      // Of several who remove it one does.
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    held.set(owner, (held.get(owner) ?? 0) - bytes);
    await Deno.remove(gone, { recursive: true });
  }

  async #names(): Promise<string[]> {
    try {
      return (await Array.fromAsync(Deno.readDir(this.#folder))).map(({ name }) => name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  #heldBytes(): Promise<Map<string, number>> {
    return this.#held ??= (async () => {
      const held = new Map<string, number>();
      for (const { owner, bytes } of await this.list()) held.set(owner, (held.get(owner) ?? 0) + bytes);
      return held;
    })();
  }
}
