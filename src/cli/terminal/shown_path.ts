/**
 * Paths as users are shown them.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { relative } from "@std/path";

/**
 * A path as one may type it here: relative to the working folder, or absolute where it lies outside of it.
 *
 * @param here the working folder
 */
export function shownPath(path: string, here: string = Deno.cwd()): string {
  const short = relative(here, path);
  return short.startsWith("..") ? path : short || ".";
}
