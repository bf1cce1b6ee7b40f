/**
 * In the bundle for a browser this stands for the readers of tables and of packed files, which are built on Node's streams.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

const NO_TABLES = "a tab reads JSON Lines, JSON and Parquet, no tables of text";
const CONVERT = "Convert it to JSON Lines, or use the command line or the service, which read it.";

/** For `src/text/read/csv.ts`. */
// deno-lint-ignore require-yield -- it refuses, in the shape of the reader whose place it takes
export async function* csvRecords(_source: unknown, file: string): AsyncGenerator<never> {
  throw new InputError(NO_TABLES, { where: file, hint: CONVERT });
}

/** For `csv-parse/sync`, with which tables of tasks are read. */
export function parse(): never {
  throw new InputError(NO_TABLES, { hint: CONVERT });
}

/** For `src/text/read/unpack.ts`. */
// deno-lint-ignore require-yield -- it refuses, in the shape of the reader whose place it takes
export async function* unpacked(_source: unknown, compression: string, path: string): AsyncGenerator<never> {
  throw new InputError(`a tab does not unpack ${compression}`, {
    where: path,
    hint: "Unpack it first, or use the command line or the service, which read it as it is.",
  });
}
