/**
 * Parts of lists that lie in memory, as the OpenAI API pages them.
 *
 * @module
 */
import { HttpError } from "../http/http_error.ts";

/**
 * The part of a list that comes after an entry.
 *
 * @throws {HttpError} 400 no entry has that id: from the beginning again, a reader would go round for ever
 */
export function pageAfter<T>(
  all: readonly T[],
  { after, limit }: { after?: string | undefined; limit: number },
  idOf: (entry: T) => string,
): { data: T[]; has_more: boolean } {
  const first = after === undefined ? 0 : all.findIndex((entry) => idOf(entry) === after) + 1;
  if (after !== undefined && first === 0) throw unknownEntry(after);
  return { data: all.slice(first, first + limit), has_more: all.length > first + limit };
}

/** The list has no entry with an id. */
export function unknownEntry(after: string): HttpError {
  return new HttpError(400, `"${after}" is no entry of this list; after takes the id of one`, {
    code: "unknown_entry",
    param: "after",
  });
}
