/**
 * Paths in commands that the user is told.
 *
 * @module
 */

/** A path as it is typed in a shell. */
export function shellQuoted(path: string): string {
  return /^[\w./:@%+=,~-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}
