/**
 * In the bundle for a browser this stands for the readers of tables and of packed files, which are built on Node's streams.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

const NO_TABLES = "a tab reads JSON Lines, JSON and Parquet, no tables of text";
const CONVERT = "Convert it to JSON Lines, or use the command line or the service, which read it.";

/** For `src/text/read/csv.ts`. */
export function csvRecords(_source: unknown, file: string): AsyncIterable<never> {
  return refusing(new InputError(NO_TABLES, { where: file, hint: CONVERT }));
}

/** For `csv-parse/sync`, with which tables of tasks are read. */
export function parse(): never {
  throw new InputError(NO_TABLES, { hint: CONVERT });
}

/** For `src/text/read/unpack.ts`. */
export function unpacked(_source: unknown, compression: string, path: string): AsyncIterable<never> {
  return refusing(
    new InputError(`a tab does not unpack ${compression}`, {
      where: path,
      hint: "Unpack it first, or use the command line or the service, which read it as it is.",
    }),
  );
}

/** What fails as soon as it is read, as the reader whose place it takes would. */
function refusing(error: InputError): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) };
}
