/**
 * The lock by which one process alone works on a run.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname, join } from "@std/path";
import { InputError, isDiskFull } from "../../base/errors.ts";
import { DiskFullError, freeBytes, unwritable } from "../../formats/files.ts";

/** Another process, or another part of this one, has the lock. */
export class LockedError extends InputError {
  override readonly code = "locked";
}

/** Name of the file in a run's folder. */
const LOCK_FILE = "run.lock";

/** The file whose lock tells that someone works on the run of a folder. */
export function lockFile(folder: string): string {
  return join(folder, LOCK_FILE);
}

/**
 * Takes the system's advisory lock, which ends with the process however it ends: there are no stale locks.
 * The file's text only tells people who holds it.
 */
export function lock(folder: string): Promise<() => void> {
  return acquireLock(lockFile(folder), folder, "another process works on this run");
}

/**
 * Locks any file, which is made where it is not there.
 *
 * @param message of the error when another process has it
 * @returns lets go of it
 * @throws {InputError} another process has it
 */
export async function acquireLock(
  path: string,
  where: string = path,
  message = "another process has locked this file",
): Promise<() => void> {
  const file = await openLock(path);
  if (!await takeExclusively(file)) {
    file.close();
    const holder = await Deno.readTextFile(path).catch(() => "");
    throw new LockedError(`${message}${holder ? `: ${holder.trim()}` : ""}`, {
      where,
      hint: "Wait for it to end, or stop it first.",
    });
  }
  try {
    await file.truncate(0);
    await file.write(new TextEncoder().encode(`process ${Deno.pid}, since ${new Date().toISOString()}\n`));
  } catch {
    // On a full disk the run is locked all the same.
  }
  let held = true;
  return () => {
    if (!held) return;
    held = false;
    file.close();
  };
}

/** How long to wait for those who only look to let go, milliseconds. */
const LOOK_MS = 2;

/**
 * Who looks whether a file is locked holds a shared lock for a moment ({@linkcode isFileLocked}). That must not keep the file from whoever
 * wants to work, so it is waited for; one that works holds it alone.
 */
async function takeExclusively(file: Deno.FsFile): Promise<boolean> {
  while (!await file.tryLock(true)) {
    if (!await file.tryLock(false)) return false;
    await file.unlock();
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS * (1 + Math.random())));
  }
  return true;
}

async function openLock(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path, { read: true, write: true, create: true });
  } catch (error) {
    throw isDiskFull(error)
      ? new DiskFullError(path, 1, await freeBytes(dirname(path)), error)
      : unwritable(path, error);
  }
}

/** Whether a process works on the run of a folder at this moment. */
export function isLocked(folder: string): boolean {
  return isFileLocked(lockFile(folder));
}

/** Whether a process, this one included, holds the lock of a file. */
export function isFileLocked(path: string): boolean {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, { read: true });
  } catch {
    return false;
  }
  try {
    return !file.tryLockSync(false);
  } finally {
    file.close();
  }
}
