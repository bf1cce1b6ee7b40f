/**
 * What the program asks of the system that it runs on: files, free memory, the environment. On Deno that is Deno itself. This is the one
 * file of the rooms below `hub` that names it: in the bundle for a browser another takes its place, see `src/tab/bundle.ts`, so that a
 * whole run works there on what a tab has.
 *
 * @module
 */

/** What is known of a file or a folder. */
export interface FileInfo {
  readonly isFile: boolean;
  readonly isDirectory: boolean;
  /** Bytes. */
  readonly size: number;
  readonly mtime: Date | null;
}

/** An open file. */
export interface OpenFile extends Disposable {
  stat(): Promise<FileInfo>;
  /** Reads into `bytes` from where the last read ended; returns how many there were, or null at the end. */
  read(bytes: Uint8Array): Promise<number | null>;
  readSync(bytes: Uint8Array): number | null;
  /** Appends as many of `bytes` as it can; returns how many. */
  write(bytes: Uint8Array): Promise<number>;
  writeSync(bytes: Uint8Array): number;
  /** Sets where the next read begins. */
  seek(offset: number, whence: SeekMode): Promise<number>;
  seekSync(offset: number, whence: SeekMode): number;
  /** Puts what was written where a power cut leaves it. */
  sync(): Promise<void>;
  /** Locks it for this process alone, unless another has; the lock ends with {@linkcode close}. */
  tryLock(exclusive: boolean): Promise<boolean>;
  close(): void;
}

/** From where `seek` counts: from the beginning of the file. Its value is that of Deno's and of POSIX. */
type SeekMode = 0;

/** How a file is opened. */
export interface OpenOptions {
  readonly read?: boolean;
  readonly write?: boolean;
  readonly append?: boolean;
  readonly create?: boolean;
  /** Fails where there is one. */
  readonly createNew?: boolean;
  readonly truncate?: boolean;
}

type ErrorClass = abstract new (...args: never[]) => Error;

/** The part of Deno that a run works with. */
export interface System {
  stat(path: string): Promise<FileInfo>;
  lstat(path: string): Promise<FileInfo>;
  realPath(path: string): Promise<string>;
  open(path: string, options?: OpenOptions): Promise<OpenFile>;
  openSync(path: string, options?: OpenOptions): OpenFile;
  readFile(path: string): Promise<Uint8Array<ArrayBuffer>>;
  readTextFile(path: string): Promise<string>;
  readDir(path: string): AsyncIterable<{ name: string; isFile: boolean; isDirectory: boolean }>;
  mkdir(path: string, options?: { recursive?: boolean }): Promise<void>;
  makeTempDir(options?: { dir?: string; prefix?: string }): Promise<string>;
  makeTempFile(options?: { dir?: string; suffix?: string }): Promise<string>;
  /** Gives a file or a folder another name at once: nobody sees it under neither. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string, options?: { recursive?: boolean }): Promise<void>;
  removeSync(path: string): void;
  cwd(): string;
  systemMemoryInfo(): { available: number };
  readonly permissions: {
    query(permission: { name: "sys"; kind: "statfs" }): Promise<{ state: string }>;
    querySync(permission: { name: "env"; variable: string }): { state: string };
  };
  readonly env: { get(name: string): string | undefined };
  readonly errors: Readonly<Record<"NotFound" | "PermissionDenied" | "NotCapable", ErrorClass>>;
  readonly SeekMode: { readonly Start: SeekMode };
}

/** The one that this program runs on. */
export const system: System = Deno;

/** Room on the disk that a path lies on: free blocks, and the bytes of one. */
export { statfs } from "node:fs/promises";
