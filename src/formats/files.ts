/**
 * Files on disk: byte sources over an open handle, and writing that leaves either the old content or the new, never a part.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename, dirname, join } from "@std/path";
import { type OpenFile, statfs, system } from "../base/system.ts";
import { InputError, isDiskFull, LimbeckError } from "../base/errors.ts";
import { type ByteSource, checkRange } from "./source.ts";

/** The disk cannot hold what was to be written. Nothing of it is left behind. */
export class DiskFullError extends LimbeckError {
  override readonly code = "disk_full";
  /** Bytes that the whole file or folder needs, as far as known. */
  readonly bytesNeeded: number;

  constructor(path: string, bytesNeeded: number, bytesFree: number | undefined, cause?: unknown) {
    const free = bytesFree === undefined ? "" : `, and ${bytesFree} are free in ${dirname(path)}`;
    super(`${path}: disk full: at least ${bytesNeeded} bytes are needed${free}`, {
      hint: "Free space there or choose another output folder. Nothing was left behind.",
      cause,
    });
    this.bytesNeeded = bytesNeeded;
  }
}

/** Whether there is something at `path`, links followed; false also where one may not look. */
export function exists(path: string): Promise<boolean> {
  return system.stat(path).then(() => true, () => false);
}

/** Whether something has the name `path`, be it a link that leads nowhere. */
export function isTaken(path: string): Promise<boolean> {
  return system.lstat(path).then(() => true, () => false);
}

/** Whether there is a file at `path`, links followed. */
export function isFile(path: string): Promise<boolean> {
  return system.stat(path).then((info) => info.isFile, () => false);
}

/** Where a writer puts its bytes, in order. */
export interface ByteSink {
  /** Bytes written so far. */
  readonly position: number;
  /** Appends all of `bytes`. */
  write(bytes: Uint8Array): Promise<void>;
}

/**
 * Opens a file as a byte source. Reads go through one handle, one after another, so they may be started at once.
 *
 * @throws {InputError} when there is no such file or it cannot be opened.
 */
export async function openFile(path: string): Promise<ByteSource> {
  let file: OpenFile;
  try {
    file = await system.open(path, { read: true });
  } catch (error) {
    throw unreadable(path, error);
  }
  const info = await file.stat();
  if (!info.isFile) {
    file.close();
    throw new InputError("is not a regular file", { where: path });
  }

  let last: Promise<unknown> = Promise.resolve();
  const source = {
    name: path,
    size: info.size,
    read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
      const result = last.then(async () => {
        checkRange(source, offset, length);
        const bytes = new Uint8Array(length);
        await file.seek(offset, system.SeekMode.Start);
        for (let done = 0; done < length;) {
          const count = await file.read(bytes.subarray(done));
          if (count === null) {
            throw new InputError("the file became shorter while it was read", { where: path });
          }
          done += count;
        }
        return bytes;
      });
      last = result.catch(() => {});
      return result;
    },
    close: () => file.close(),
  };
  return source;
}

/** Turns a failure to open or read `path` into an error that says what to do. */
export function unreadable(path: string, error: unknown): InputError {
  if (error instanceof system.errors.NotFound) {
    return new InputError("there is no such file or folder", {
      where: path,
      hint: "Check the path.",
      cause: error,
    });
  }
  if (error instanceof system.errors.PermissionDenied || error instanceof system.errors.NotCapable) {
    return new InputError("may not be read", { where: path, hint: "Check its permissions.", cause: error });
  }
  return new InputError(`cannot be read: ${error instanceof Error ? error.message : error}`, {
    where: path,
    cause: error,
  });
}

/**
 * Requires that a file can have its name: that the folder it goes to is there.
 *
 * @throws {InputError} if it is not
 */
export async function requireFolderOf(path: string): Promise<void> {
  const folder = dirname(path);
  const info = await system.stat(folder).catch((error) => {
    throw unreadable(folder, error);
  });
  if (!info.isDirectory) throw new InputError("is not a folder", { where: folder });
}

const UNWRITABLE: Readonly<Record<string, string>> = {
  ENOENT: "there is no such folder",
  ENOTDIR: "a part of its path is a file, not a folder",
  EISDIR: "there is a folder of this name",
  EACCES: "permission is denied",
  EPERM: "permission is denied",
  EROFS: "the file system is read-only",
  ENAMETOOLONG: "the name is too long",
};

/** Turns a system's refusal to write `path` into an error that says what to do; other errors come back as they are. */
export function unwritable(path: string, error: unknown): unknown {
  if (error instanceof LimbeckError || !(error instanceof Error)) return error;
  const reason = "code" in error ? UNWRITABLE[String(error.code)] : undefined;
  const denied = error instanceof system.errors.NotCapable ? "this process has no permission to" : undefined;
  if (!reason && !denied) return error;
  return new InputError(`cannot be written: ${reason ?? denied}`, {
    where: path,
    hint: "Choose another place, or correct the permissions of this one.",
    cause: error,
  });
}

/**
 * Writes a file whole or not at all: into a temporary file in the same folder, which is flushed to the disk and then takes
 * the name. What was at `path` before stays until that moment.
 *
 * @param writer Called once with the sink; what it writes is streamed, not collected.
 * @param options.size Bytes the file will have, when known: checked against the free space first and against what was written.
 * @throws {DiskFullError} when the disk cannot hold it; the temporary file is gone then.
 * @throws {InputError} when the system does not let it be written there.
 *
 * @example
 * ```ts
 * await writeAtomically("out/adapter_config.json", (sink) => sink.write(new TextEncoder().encode("{}\n")));
 * ```
 */
export async function writeAtomically(
  path: string,
  writer: (sink: ByteSink) => Promise<void>,
  options: { size?: number } = {},
): Promise<void> {
  const folder = dirname(path);
  if (options.size !== undefined) await requireSpace(path, options.size);
  const temporary = join(folder, `.${basename(path)}.${crypto.randomUUID().slice(0, 8)}.tmp`);
  let position = 0;
  let wanted = 0;
  try {
    const file = await system.open(temporary, { write: true, createNew: true });
    try {
      await writer({
        get position() {
          return position;
        },
        async write(bytes: Uint8Array) {
          wanted = position + bytes.length;
          for (let done = 0; done < bytes.length;) {
            const count = await file.write(bytes.subarray(done));
            done += count;
            position += count;
          }
        },
      });
      if (options.size !== undefined && position !== options.size) {
        throw new LimbeckError(
          `${path}: ${position} bytes were written where ${options.size} were announced`,
        );
      }
      await file.sync();
    } finally {
      file.close();
    }
    await system.rename(temporary, path);
    await syncFolder(folder);
  } catch (error) {
    await system.remove(temporary).catch(() => {});
    throw isDiskFull(error)
      ? new DiskFullError(
        path,
        options.size ?? Math.max(wanted, position + 1),
        await freeBytes(folder),
        error,
      )
      : unwritable(path, error);
  }
}

/** Writes a text file whole or not at all; see {@linkcode writeAtomically}. */
export function writeTextAtomically(path: string, text: string): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  return writeAtomically(path, (sink) => sink.write(bytes), { size: bytes.length });
}

/**
 * Fills a folder whole or not at all: `fill` writes into a temporary folder beside it, which then takes the name.
 *
 * @param options.replace Allows a folder that is already there; it is moved away at the last moment and then removed.
 * @throws {InputError} when `path` exists and `replace` is not set.
 * @throws {DiskFullError} when the disk cannot hold it; the temporary folder is gone then.
 */
export async function writeFolderAtomically(
  path: string,
  fill: (temporary: string) => Promise<void>,
  options: { replace?: boolean } = {},
): Promise<void> {
  const taken = await isTaken(path);
  if (taken && !options.replace) {
    throw new InputError("is already there", {
      where: path,
      hint: "Choose another output folder, or remove this one.",
    });
  }
  const parent = dirname(path);
  const stem = join(parent, `.${basename(path)}.${crypto.randomUUID().slice(0, 8)}`);
  const temporary = `${stem}.tmp`;
  const previous = `${stem}.old`;
  let moved = false;
  try {
    await system.mkdir(parent, { recursive: true });
    await system.mkdir(temporary);
    await fill(temporary);
    await syncFolder(temporary);
    if (taken) {
      await system.rename(path, previous);
      moved = true;
    }
    await system.rename(temporary, path);
    await syncFolder(parent);
  } catch (error) {
    const written = await folderBytes(temporary);
    await system.remove(temporary, { recursive: true }).catch(() => {});
    if (moved) await system.rename(previous, path).catch(() => {});
    if (error instanceof DiskFullError || isDiskFull(error)) {
      const last = error instanceof DiskFullError ? error.bytesNeeded : 1;
      throw new DiskFullError(path, written + last, await freeBytes(parent), error);
    }
    throw unwritable(path, error);
  }
  if (moved) await system.remove(previous, { recursive: true });
}

async function folderBytes(folder: string): Promise<number> {
  let sum = 0;
  try {
    for await (const { name } of system.readDir(folder)) sum += (await system.stat(join(folder, name))).size;
  } catch {
    // It only makes a number in a message more exact.
  }
  return sum;
}

/**
 * Removes what processes that were killed in the middle of {@linkcode writeFolderAtomically} left in `parent`. Nobody may be writing
 * there.
 */
export async function removeUnfinishedFolders(parent: string): Promise<void> {
  const unfinished: string[] = [];
  try {
    for await (const { name, isDirectory } of system.readDir(parent)) {
      if (isDirectory && /^\..+\.[0-9a-f]{8}\.(tmp|old)$/.test(name)) unfinished.push(join(parent, name));
    }
  } catch (error) {
    if (!(error instanceof system.errors.NotFound)) throw error;
  }
  for (const path of unfinished) await system.remove(path, { recursive: true });
}

/** Bytes free to us in a folder, or undefined where the system does not say or `--allow-sys=statfs` was not given. */
export async function freeBytes(folder: string): Promise<number | undefined> {
  // Asked first, because on a terminal the call itself would stop and ask the user.
  if ((await system.permissions.query({ name: "sys", kind: "statfs" })).state !== "granted") return undefined;
  try {
    const info = await statfs(folder);
    return info.bavail * info.bsize;
  } catch {
    return undefined;
  }
}

async function requireSpace(path: string, size: number): Promise<void> {
  const free = await freeBytes(dirname(path));
  if (free !== undefined && size > free) throw new DiskFullError(path, size, free);
}

/** A rename survives a power cut only when its folder is flushed too; not every system lets a folder be opened. */
async function syncFolder(folder: string): Promise<void> {
  try {
    using handle = await system.open(folder, { read: true });
    await handle.sync();
  } catch (error) {
    if (isDiskFull(error)) throw error;
  }
}
