/// <reference types="../../types/browser.d.ts" />
/**
 * A tab as the system that a run works on; in the bundle for a browser it takes the place of `src/base/system.ts`. What was picked or lies
 * on a server is read from where it is, under the path that it is given here; all that is written is kept in the tab's IndexedDB.
 *
 * @module
 */
import type { FileInfo, OpenFile, OpenOptions, System } from "../base/system.ts";
import { type Entry, KeptFiles } from "./kept_files.ts";
import { blobFile, type TabFile } from "./tab_file.ts";

class NotFound extends Error {
  readonly code = "ENOENT";
}
class PermissionDenied extends Error {
  readonly code = "EACCES";
}
class NotCapable extends Error {}

/** Files that are read where they lie, by path. */
const shown = new Map<string, TabFile>();
let kept: Promise<KeptFiles> | undefined;

/** What the tab keeps. */
export function keptFiles(): Promise<KeptFiles> {
  return kept ??= KeptFiles.open();
}

/** Shows files in a folder, in the place of those that were shown in it. */
export function showFiles(folder: string, files: Readonly<Record<string, TabFile>>): void {
  for (const path of shown.keys()) if (path.startsWith(`${folder}/`)) shown.delete(path);
  for (const [name, file] of Object.entries(files)) shown.set(`${folder}/${name}`, file);
}

async function entryAt(path: string): Promise<Entry | undefined> {
  return await (await keptFiles()).get(path);
}

const isShownFolder = (path: string) => [...shown.keys()].some((file) => file.startsWith(`${path}/`));

async function stat(path: string): Promise<FileInfo> {
  const file = shown.get(path);
  if (file) return info(file.size, null);
  if (path === "/" || isShownFolder(path)) return info(undefined, null);
  const entry = await entryAt(path);
  if (!entry) throw new NotFound(`there is no ${path}`);
  return info(entry.content?.size, new Date(entry.modified));
}

/** @param size That of a file; undefined for a folder */
function info(size: number | undefined, mtime: Date | null): FileInfo {
  return { isFile: size !== undefined, isDirectory: size === undefined, size: size ?? 0, mtime };
}

async function open(path: string, options: OpenOptions = { read: true }): Promise<OpenFile> {
  const there = shown.get(path);
  const writes = options.write || options.append;
  if (there) {
    if (writes) throw new PermissionDenied(`${path} can only be read`);
    return new Reading(there);
  }
  const entry = await entryAt(path);
  if (!writes) {
    if (!entry) throw new NotFound(`there is no ${path}`);
    // A folder is opened to be flushed, which it needs not.
    return new Reading(entry.content ? blobFile(entry.content) : undefined);
  }
  if (entry && options.createNew) throw new Error(`${path} is there already`);
  if (!entry && !options.create && !options.createNew) throw new NotFound(`there is no ${path}`);
  const begin = options.truncate ? undefined : entry?.content;
  const file = new Writing(path, begin ? [begin] : []);
  await file.sync();
  return file;
}

/** A file that is read. */
class Reading implements OpenFile {
  readonly #file: TabFile | undefined;
  #at = 0;

  /** @param file undefined for a folder */
  constructor(file: TabFile | undefined) {
    this.#file = file;
  }

  stat(): Promise<FileInfo> {
    return Promise.resolve(info(this.#file?.size, null));
  }

  async read(bytes: Uint8Array): Promise<number | null> {
    const count = this.#left(bytes);
    if (count > 0) bytes.set(await this.#file!.read(this.#at, count));
    return this.#took(bytes, count);
  }

  readSync(bytes: Uint8Array): number | null {
    const count = this.#left(bytes);
    if (count > 0) bytes.set(this.#file!.readSync!(this.#at, count));
    return this.#took(bytes, count);
  }

  #left(bytes: Uint8Array): number {
    return Math.max(0, Math.min(bytes.length, (this.#file?.size ?? 0) - this.#at));
  }

  #took(bytes: Uint8Array, count: number): number | null {
    this.#at += count;
    return count === 0 && bytes.length > 0 ? null : count;
  }

  seek(offset: number): Promise<number> {
    return Promise.resolve(this.seekSync(offset));
  }

  seekSync(offset: number): number {
    return this.#at = offset;
  }

  write(): Promise<number> {
    return Promise.reject(new PermissionDenied("the file was opened to be read"));
  }

  writeSync(): number {
    throw new PermissionDenied("the file was opened to be read");
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  tryLock(): Promise<boolean> {
    return Promise.resolve(true);
  }

  close(): void {}

  [Symbol.dispose](): void {}
}

/** A file that is written: it is kept when it is flushed. */
class Writing implements OpenFile {
  readonly #path: string;
  #parts: BlobPart[];

  constructor(path: string, parts: BlobPart[]) {
    this.#path = path;
    this.#parts = parts;
  }

  get #content(): Blob {
    const whole = new Blob(this.#parts);
    // One part in the place of many, which the browser may put on the disk.
    this.#parts = [whole];
    return whole;
  }

  stat(): Promise<FileInfo> {
    return Promise.resolve(info(this.#content.size, null));
  }

  write(bytes: Uint8Array): Promise<number> {
    // What was given may be written over.
    this.#parts.push(bytes.slice());
    return Promise.resolve(bytes.length);
  }

  async sync(): Promise<void> {
    await (await keptFiles()).put([[this.#path, { content: this.#content, modified: Date.now() }]]);
  }

  /** Nothing is locked: a run holds a lock of the browser's as a whole. */
  tryLock(): Promise<boolean> {
    return Promise.resolve(true);
  }

  read(): Promise<number | null> {
    return Promise.reject(new PermissionDenied("the file was opened to be written"));
  }

  readSync(): number | null {
    throw new PermissionDenied("the file was opened to be written");
  }

  writeSync(): number {
    throw new PermissionDenied("a tab cannot write without waiting");
  }

  seek(): Promise<number> {
    return Promise.reject(new PermissionDenied("the file is written from its end"));
  }

  seekSync(): number {
    throw new PermissionDenied("the file is written from its end");
  }

  close(): void {}

  [Symbol.dispose](): void {}
}

async function mkdir(path: string, options: { recursive?: boolean } = {}): Promise<void> {
  const files = await keptFiles();
  if (!options.recursive) {
    if (await files.get(path)) throw new Error(`${path} is there already`);
    return await files.put([[path, { modified: Date.now() }]]);
  }
  const parts = path.split("/").filter((part) => part !== "");
  for (let count = 1; count <= parts.length; count++) {
    const folder = `/${parts.slice(0, count).join("/")}`;
    if (!await files.get(folder)) await files.put([[folder, { modified: Date.now() }]]);
  }
}

async function* readDir(folder: string): ReturnType<System["readDir"]> {
  if (isShownFolder(folder)) {
    const names = [...shown.keys()].filter((path) => path.startsWith(`${folder}/`))
      .map((path) => path.slice(folder.length + 1).split("/"));
    for (const name of new Set(names.map(([first]) => first!))) {
      const isFile = shown.has(`${folder}/${name}`);
      yield { name, isFile, isDirectory: !isFile };
    }
    return;
  }
  const files = await keptFiles();
  if (!await files.get(folder)) throw new NotFound(`there is no ${folder}`);
  for (const name of await files.list(folder)) {
    const isFile = (await files.get(`${folder}/${name}`))?.content !== undefined;
    yield { name, isFile, isDirectory: !isFile };
  }
}

const blobAt = async (path: string): Promise<Blob> => {
  const content = (await entryAt(path))?.content;
  if (!content) throw new NotFound(`there is no ${path}`);
  return content;
};

async function readFile(path: string): Promise<Uint8Array<ArrayBuffer>> {
  const file = shown.get(path);
  return file ? await file.read(0, file.size) : new Uint8Array(await (await blobAt(path)).arrayBuffer());
}

async function remove(path: string): Promise<void> {
  const files = await keptFiles();
  if (!await files.get(path)) throw new NotFound(`there is no ${path}`);
  await files.remove(path);
}

function cannot(what: string): never {
  throw new NotCapable(`a tab cannot ${what}`);
}

/** A tab. */
export const system: System = {
  ...{ stat, lstat: stat, open, readFile, readDir, mkdir, remove },
  realPath: async (path) => (await stat(path), path),
  openSync(path) {
    const file = shown.get(path);
    if (!file?.readSync) cannot("read the rows of this file one by one: set data.streaming to false");
    return new Reading(file);
  },
  readTextFile: async (path) => new TextDecoder().decode(await readFile(path)),
  makeTempDir: () => cannot("make folders for a while"),
  makeTempFile: () => cannot("make files for a while"),
  rename: async (from, to) => await (await keptFiles()).rename(from, to),
  removeSync: () => cannot("remove a file without waiting"),
  cwd: () => "/",
  systemMemoryInfo: () => cannot("tell how much memory is free"),
  permissions: {
    query: () => Promise.resolve({ state: "granted" }),
    querySync: () => ({ state: "denied" }),
  },
  env: { get: () => undefined },
  errors: { NotFound, PermissionDenied, NotCapable },
  SeekMode: { Start: 0 },
};

/** How much more the browser keeps for this page. */
export async function statfs(_path: string): Promise<{ bavail: number; bsize: number }> {
  const { quota = 0, usage = 0 } = await navigator.storage.estimate();
  return { bavail: Math.max(0, quota - usage), bsize: 1 };
}
