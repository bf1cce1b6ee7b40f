/**
 * Opens a model on disk, whatever its format.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { extname } from "@std/path";
import { type FileInfo, system } from "../base/system.ts";
import { InputError } from "../base/errors.ts";
import { unreadable } from "./files.ts";
import { openGgufModel } from "./gguf/model.ts";
import { openHuggingFaceFolder, readTokenizerFolder } from "./huggingface/huggingface.ts";
import type { ModelSource, TokenizerFiles } from "./model_source.ts";

/**
 * Opens a Hugging Face folder (one safetensors file or several with an index) or a .gguf file.
 *
 * @throws {InputError} when it is not there, is empty, has no config or weights, or a file in it is malformed.
 *
 * @example
 * ```ts
 * const model = await openModel("./teacher");
 * const { shape } = await model.read("model.norm.weight");
 * model.close();
 * ```
 */
export async function openModel(path: string): Promise<ModelSource> {
  let info: FileInfo;
  try {
    info = await system.stat(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  if (info.isDirectory) return await openHuggingFaceFolder(path);
  if (extname(path).toLowerCase() === ".gguf") return await openGgufModel(path);
  throw new InputError("is neither a model folder nor a .gguf file", {
    where: path,
    hint: extname(path) === ".safetensors"
      ? "Give the folder that holds it together with config.json and tokenizer.json."
      : "Give a folder in Hugging Face layout, or a GGUF file.",
  });
}

/**
 * Reads a tokenizer that lies beside no model, or in another: of a folder with tokenizer.json or tokenizer.model, or of a .gguf file.
 *
 * @throws {InputError} there is none
 */
export async function readTokenizerAt(path: string): Promise<TokenizerFiles> {
  let info: FileInfo;
  try {
    info = await system.stat(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  if (info.isDirectory) return { ...await readTokenizerFolder(path), where: path };
  if (extname(path).toLowerCase() !== ".gguf") {
    throw new InputError("is neither a folder nor a .gguf file", {
      where: path,
      hint: "Give the folder that holds tokenizer.json, or a GGUF file.",
    });
  }
  const source = await openGgufModel(path);
  try {
    return { ...await source.tokenizer(), where: path };
  } finally {
    source.close();
  }
}
