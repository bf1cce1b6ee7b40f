/**
 * The files that a run made and that clients may have.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { extname, isAbsolute, join } from "@std/path";
import { createHash } from "node:crypto";
import { placeOf } from "../hub/hub_cache.ts";
import type { Hide } from "./run_view.ts";

/** A file of a run. */
export interface Artifact {
  /** Path below the run's folder, with slashes. */
  readonly name: string;
  readonly bytes: number;
  readonly modifiedAt: string;
  /** What clients get instead of the file, where the file has paths of the machine in it. */
  readonly shown?: Uint8Array<ArrayBuffer>;
}

/** Folders and files of a run that clients may have. What else is there has paths of the machine in it. */
const FOLDERS = ["adapter", "teacher-adapter", "base", "merged"] as const;
const FILES = [
  "report.html",
  "metrics.jsonl",
  "model.gguf",
  "result.json",
  "shape.json",
  "shrink.json",
  "evaluation.json",
  "evaluation/evaluation.json",
] as const;

const TYPES: Readonly<Record<string, string>> = {
  ".json": "application/json",
  ".jsonl": "application/jsonl",
  ".html": "text/html; charset=utf-8",
  ".txt": "text/plain; charset=utf-8",
  ".md": "text/markdown; charset=utf-8",
};

/** Media types that files of runs have. */
export const MEDIA_TYPES: readonly string[] = [...Object.values(TYPES), "application/octet-stream"];

/** Files of a run, by name. What says where an adapter's base lies says it with a name. */
export async function listArtifacts(folder: string, hide: Hide): Promise<Artifact[]> {
  const found: Artifact[] = [];
  for (const name of FILES) await add(found, folder, name);
  for (const name of FOLDERS) await walk(found, folder, name);
  const shown = await Promise.all(found.map((artifact) => withoutPath(artifact, folder, hide)));
  return shown.sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Where files say in JSON which folder something lies in: an adapter's base, the model that a shape is of. */
const PATHS: Readonly<Record<string, readonly string[]>> = {
  // PEFT's key.
  "adapter_config.json": ["base_model_name_or_path"],
  "shape.json": ["model", "path"],
};

async function withoutPath(artifact: Artifact, folder: string, hide: Hide): Promise<Artifact> {
  const keys = PATHS[artifact.name.split("/").at(-1)!];
  if (!keys) return artifact;
  const text = await Deno.readTextFile(join(folder, artifact.name));
  const path = valueAt(text, keys);
  if (path === undefined || !isAbsolute(path)) return artifact;
  // The base that the run wrote lies among its files; one of the hub is known there to those who load adapters.
  const name = path === join(folder, "base") ? "base" : placeOf(path)?.repository ?? hide(path);
  // Only the value is replaced: PEFT's own way to write numbers stays.
  const shown = new TextEncoder().encode(text.replace(JSON.stringify(path), () => JSON.stringify(name)));
  return { ...artifact, bytes: shown.length, shown };
}

function valueAt(text: string, keys: readonly string[]): string | undefined {
  try {
    const value = keys.reduce((value, key) => value[key], JSON.parse(text));
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Links are left out at every level: one could lead anywhere. */
async function walk(found: Artifact[], folder: string, name: string): Promise<void> {
  try {
    if (!(await Deno.lstat(join(folder, name))).isDirectory) return;
    for await (const entry of Deno.readDir(join(folder, name))) {
      const path = `${name}/${entry.name}`;
      if (entry.isDirectory) await walk(found, folder, path);
      else if (entry.isFile) await add(found, folder, path);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function add(found: Artifact[], folder: string, name: string): Promise<void> {
  try {
    const { isFile, size, mtime } = await Deno.lstat(join(folder, name));
    if (isFile) found.push({ name, bytes: size, modifiedAt: (mtime ?? new Date(0)).toISOString() });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Media type of a file. */
export function mediaType(name: string): string {
  return TYPES[extname(name)] ?? "application/octet-stream";
}

/** SHA-256 of what is in memory, hex. */
export function hashBytes(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** SHA-256 of files, each computed once as long as it does not change. */
export class FileHashes {
  readonly #known = new Map<string, Promise<string>>();

  /** SHA-256 of a file, hex. */
  async of(path: string): Promise<string> {
    const { size, mtime, ino } = await Deno.stat(path);
    const key = JSON.stringify([path, size, mtime?.getTime(), ino]);
    let hash = this.#known.get(key);
    if (!hash) {
      if (this.#known.size >= 1000) this.#known.delete(this.#known.keys().next().value!);
      this.#known.set(key, hash = hashFile(path));
      hash.catch(() => this.#known.delete(key));
    }
    return await hash;
  }
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  using file = await Deno.open(path, { read: true });
  const buffer = new Uint8Array(1 << 20);
  for (;;) {
    const count = await file.read(buffer);
    if (count === null) return hash.digest("hex");
    hash.update(buffer.subarray(0, count));
  }
}

/** The bytes `first` to `last` of a file. */
export async function readRange(
  path: string,
  first: number,
  last: number,
): Promise<ReadableStream<Uint8Array>> {
  const file = await Deno.open(path, { read: true });
  await file.seek(first, Deno.SeekMode.Start);
  let left = last - first + 1;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const chunk = new Uint8Array(Math.min(left, 1 << 18));
      const count = left === 0 ? null : await file.read(chunk);
      if (count === null) {
        file.close();
        return controller.close();
      }
      left -= count;
      controller.enqueue(chunk.subarray(0, count));
    },
    cancel: () => file.close(),
  }, { highWaterMark: 0 });
}

/** A range of bytes, both ends included. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/**
 * The one range that a Range header asks for (RFC 9110, section 14).
 *
 * @returns undefined where there is none or it is to be ignored, null where it cannot be had
 */
export function parseRange(header: string | undefined, size: number): ByteRange | null | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? "");
  if (!match || (match[1] === "" && match[2] === "")) return undefined;
  const [from, to] = [match[1]!, match[2]!];
  if (from === "") {
    const count = Math.min(Number(to), size);
    return count === 0 ? null : { first: size - count, last: size - 1 };
  }
  const first = Number(from);
  const last = to === "" ? size - 1 : Math.min(Number(to), size - 1);
  if (to !== "" && Number(to) < first) return undefined;
  return first >= size ? null : { first, last };
}
