/**
 * Where plugin modules come from: files, and packages whose version is exact.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { fromFileUrl, resolve, toFileUrl } from "@std/path";
import { InputError } from "../../base/errors.ts";

/** `npm:` or `jsr:`, the package, its exact version, and perhaps an entry of it. */
const PINNED =
  /^(?:npm:(?:@[\w.-]+\/)?[\w.-]+|jsr:@[\w.-]+\/[\w.-]+)@\d+\.\d+\.\d+(?:[-+][\w.+-]+)?(?:\/[\w./-]+)?$/;

/**
 * A plugin module as users write it, as runs keep it: the absolute path of a file, or a package such as `npm:@ada/losses@1.2.3`.
 *
 * @param folder what relative paths are relative to
 * @throws {InputError} a package without its exact version, or another kind of address
 */
export function pluginSource(text: string, folder: string): string {
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) return resolve(folder, text);
  if (scheme === "file") return fromFileUrl(text);
  if (scheme !== "npm" && scheme !== "jsr") {
    throw new InputError(`is an address of kind ${scheme}:, which plugins are not loaded from`, {
      where: text,
      hint: "Name a file, or a package with its exact version, such as npm:@ada/losses@1.2.3.",
    });
  }
  if (PINNED.test(text)) return text;
  throw new InputError(
    "has no exact version: another one might be there tomorrow, and a run could be neither repeated nor resumed",
    { where: text, hint: `Write the version out, such as ${scheme}:@ada/losses@1.2.3.` },
  );
}

/** Whether a plugin module is a package, not a file. */
export function isPackage(source: string): boolean {
  return /^(?:npm|jsr):/.test(source);
}

/** What an import statement calls a plugin module. */
export function importName(source: string): string {
  return isPackage(source) ? source : toFileUrl(source).href;
}
