/**
 * Finds the models in a folder.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename, join } from "@std/path";
import { type FileInfo, system } from "../base/system.ts";
import { InputError } from "../base/errors.ts";
import { unreadable } from "./files.ts";

/** Something that looks like a model. */
export interface FoundModel {
  readonly path: string;
  readonly kind: "folder" | "gguf" | "adapter";
}

/** How many folders deep models lie at most, snapshots of a Hugging Face cache aside. */
const DEEPEST = 2;

/**
 * Finds model folders, adapters and GGUF files, two folders deep. In a Hugging Face cache, those of every snapshot.
 *
 * @returns In order of path
 * @throws {InputError} when it cannot be read, or is neither a folder nor a GGUF file
 */
export async function findModels(path: string): Promise<FoundModel[]> {
  let info: FileInfo;
  try {
    info = await system.stat(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
  if (!info.isDirectory) {
    if (isGguf(path)) return [{ path, kind: "gguf" }];
    throw new InputError("is neither a folder nor a .gguf file", {
      where: path,
      hint: "Name a folder with models in it.",
    });
  }
  const found: FoundModel[] = [];
  await visit(path, 0, found);
  return found.sort((a, b) => a.path < b.path ? -1 : 1);
}

async function visit(folder: string, depth: number, found: FoundModel[]): Promise<void> {
  const files: string[] = [];
  const folders: string[] = [];
  try {
    for await (const { name } of system.readDir(folder)) {
      // Such as .git, and .locks of a cache.
      if (name.startsWith(".")) continue;
      // A link may lead nowhere.
      const info = await system.stat(join(folder, name)).catch(() => undefined);
      if (info?.isFile) files.push(name);
      if (info?.isDirectory) folders.push(name);
    }
  } catch (cause) {
    // One folder among others that may not be read is not worth the rest.
    if (depth === 0) throw unreadable(folder, cause);
    return;
  }
  const gguf = files.filter(isGguf);
  found.push(...gguf.map((name) => ({ path: join(folder, name), kind: "gguf" as const })));
  const hasWeights = files.some((name) => /\.safetensors(\.index\.json)?$/.test(name));
  if (files.includes("adapter_config.json") && !files.includes("config.json")) {
    found.push({ path: folder, kind: "adapter" });
    return;
  }
  if (hasWeights || (files.includes("config.json") && gguf.length === 0)) {
    found.push({ path: folder, kind: "folder" });
    // What lies in folders of it is the same in another format, or how it came about.
    return;
  }
  if (basename(folder).startsWith("models--") && folders.includes("snapshots")) {
    for await (const { name } of system.readDir(join(folder, "snapshots"))) {
      await visit(join(folder, "snapshots", name), DEEPEST, found);
    }
    return;
  }
  for (const name of depth < DEEPEST ? folders : []) await visit(join(folder, name), depth + 1, found);
}

function isGguf(path: string): boolean {
  return /\.gguf$/i.test(path);
}
