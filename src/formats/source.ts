/**
 * Files handed in as byte ranges, so that the readers work on a disk, in memory or in a browser page alike.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

/** A file of known size that is read by ranges. */
export interface ByteSource {
  /** How errors call it: a path, or a name. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /**
   * Reads `length` bytes from `offset`. The result has exactly that length, begins at offset 0 of a buffer of its own
   * and belongs to the caller, so that typed arrays may be laid over it.
   *
   * @throws {InputError} when the range does not lie within the file.
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Frees what the source holds. */
  close?(): void;
}

/** Refuses a range that does not lie within `source`. */
export function checkRange(source: Pick<ByteSource, "name" | "size">, offset: number, length: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!valid || offset > source.size - length) {
    throw new InputError(
      `bytes ${offset} to ${offset + length} were asked for, but the file has ${source.size}`,
      {
        where: source.name,
        hint: "The file is truncated or damaged; fetch or write it again.",
      },
    );
  }
}

/**
 * A byte source over an array in memory.
 *
 * @example
 * ```ts
 * const source = memorySource("header", new Uint8Array([1, 2, 3]));
 * await source.read(1, 2); // Uint8Array [2, 3]
 * ```
 */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  const source = {
    name,
    size: bytes.length,
    read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
      try {
        checkRange(source, offset, length);
      } catch (error) {
        return Promise.reject(error);
      }
      return Promise.resolve(new Uint8Array(bytes.subarray(offset, offset + length)));
    },
  };
  return source;
}
