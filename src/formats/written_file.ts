/**
 * Small files that people write, in YAML or JSON: read whole, and refused where they would blow up.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { extname } from "@std/path";
// @ts-types="../../types/std_yaml.d.ts"
import { parse as parseYaml } from "@std/yaml";
import { system } from "../base/system.ts";
import { InputError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { unreadable } from "./files.ts";

const LARGEST_FILE = 1 << 20;
/** Such a file has tens of values. Aliases that multiply each other reach this at once. */
const MOST_NODES = 10_000;
const DEEPEST = 32;

/** What errors call a file. */
export interface WrittenFileNames {
  /** What it is: `recipe`. */
  readonly kind: string;
  /** What its name may end in, in words; `.yaml or .json` when absent. */
  readonly extensions?: string;
}

/**
 * The value that a .yaml, .yml or .json file holds, unchecked but for its size.
 *
 * @throws {InputError} no such file, another kind of file, text that is no YAML or JSON, an empty one, or one of monstrous size
 */
export async function readWrittenFile(
  path: string,
  { kind, extensions }: WrittenFileNames,
): Promise<unknown> {
  const extension = extname(path).toLowerCase();
  if (![".yaml", ".yml", ".json"].includes(extension)) {
    throw new InputError(
      `a ${kind} is a ${extensions ?? ".yaml or .json"} file, not "${extension || "no extension"}"`,
      { where: path },
    );
  }
  const text = await readText(path, kind);
  const language = extension === ".json" ? "JSON" : "YAML";
  let value: unknown;
  try {
    if (language === "JSON") JSON.parse(text);
    // YAML contains JSON, and this parser refuses keys that occur twice. The core schema knows no dates and no binary.
    value = withoutSchema(parseYaml(text, { schema: "core" }));
  } catch (cause) {
    throw new InputError(`is not valid ${language}: ${(cause as Error).message}`, { where: path, cause });
  }
  if (value === null || value === undefined) throw new InputError(`the ${kind} is empty`, { where: path });
  checkWrittenSize(value, path);
  return value;
}

async function readText(path: string, kind: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    const { size, isDirectory } = await system.stat(path);
    if (isDirectory) throw new InputError(`this is a folder; name a ${kind} file`, { where: path });
    if (size > LARGEST_FILE) {
      throw new InputError(`a ${kind} has at most ${LARGEST_FILE} bytes; this file has ${size}`, {
        where: path,
      });
    }
    bytes = await system.readFile(path);
  } catch (cause) {
    throw cause instanceof InputError ? cause : unreadable(path, cause);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new InputError("is not UTF-8 text", { where: path, cause });
  }
}

/**
 * Counts values as often as they are reached, as a printer would; so it also ends on a value that holds itself.
 *
 * @throws {InputError} too many, or too deep
 */
export function checkWrittenSize(value: unknown, path: string): void {
  let nodes = 0;
  const visit = (node: unknown, depth: number): void => {
    if (++nodes > MOST_NODES || depth > DEEPEST) {
      throw new InputError(`holds more than ${MOST_NODES} values or nests deeper than ${DEEPEST}`, {
        where: path,
        hint: "Aliases (&name, *name) count as often as they are used.",
      });
    }
    if (typeof node !== "object" || node === null) return;
    for (const child of Object.values(node)) visit(child, depth + 1);
  };
  visit(value, 0);
}

/** Editors find a JSON file's schema by this field. */
function withoutSchema(value: unknown): unknown {
  if (!isObject(value)) return value;
  const { $schema: _schema, ...rest } = value;
  return rest;
}
