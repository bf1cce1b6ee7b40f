/**
 * Names in place of paths, in what is shown to others.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename } from "@std/path";

/** A text in which the last part stands for each absolute path. Addresses, and routes of the service, are left as they are. */
export function withoutFolders(text: string): string {
  return text.replace(/(?<![\w.:/])(?!\/v1\/)(?:\/[^\s:,;'"`()]+){2,}/g, (path) => basename(path));
}
