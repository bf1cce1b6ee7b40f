/**
 * A file of JSON lines that survives kills and full disks: a line is on the disk, whole, when a call returns, or it is not in the file.
 *
 * @module
 */
import { isDiskFull } from "../base/errors.ts";
import { DiskFullError, unwritable } from "../formats/files.ts";

/** Lines of values. Nobody else may have the file open. */
export class LineFile<T> {
  readonly path: string;
  #file: Deno.FsFile;
  /** Bytes of whole lines. */
  #end: number;

  private constructor(path: string, file: Deno.FsFile, end: number) {
    [this.path, this.#file, this.#end] = [path, file, end];
  }

  /** Opens a file, which is made where it is not there, and reads its lines. A last one that a kill has cut is taken away. */
  static open<T>(path: string): { file: LineFile<T>; values: T[] } {
    let text = "";
    try {
      text = Deno.readTextFileSync(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    const values = whole.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as T);
    const end = new TextEncoder().encode(whole).length;
    const file = Deno.openSync(path, { append: true, create: true });
    file.truncateSync(end);
    return { file: new LineFile<T>(path, file, end), values };
  }

  /** Adds a line. @throws {DiskFullError} and the file is as it was */
  append(value: T): void {
    const bytes = new TextEncoder().encode(JSON.stringify(value) + "\n");
    try {
      write(this.#file, bytes);
      this.#end += bytes.length;
    } catch (error) {
      this.#file.truncateSync(this.#end);
      throw explained(this.path, bytes.length, error);
    }
  }

  /** Has these lines in place of all others. @throws {DiskFullError} and the file is as it was */
  rewrite(values: Iterable<T>): void {
    const bytes = new TextEncoder().encode([...values].map((value) => JSON.stringify(value) + "\n").join(""));
    const temporary = `${this.path}.tmp`;
    try {
      using file = Deno.openSync(temporary, { write: true, create: true, truncate: true });
      write(file, bytes);
    } catch (error) {
      remove(temporary);
      throw explained(this.path, bytes.length, error);
    }
    this.#file.close();
    Deno.renameSync(temporary, this.path);
    this.#file = Deno.openSync(this.path, { append: true });
    this.#end = bytes.length;
  }

  close(): void {
    this.#file.close();
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // It could not even be made.
  }
}

function write(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  file.syncDataSync();
}

function explained(path: string, bytes: number, error: unknown): unknown {
  return isDiskFull(error) ? new DiskFullError(path, bytes, undefined, error) : unwritable(path, error);
}
