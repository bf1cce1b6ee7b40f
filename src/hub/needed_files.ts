/**
 * Which files of a repository are fetched: those that a model is read from, and no copies of its weights in other formats.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

/** Small files of a model folder. */
const SMALL: ReadonlySet<string> = new Set([
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
]);

/** The weights of a model, and those of an adapter. */
const WEIGHTS = "model.safetensors";
const INDEX = `${WEIGHTS}.index.json`;
const ADAPTER: readonly string[] = ["adapter_config.json", "adapter_model.safetensors"];

/** What is to be fetched first. */
export interface NeededFiles {
  readonly files: readonly string[];
  /** The index of weights in several files, which says what else is needed. */
  readonly index?: string;
  /** The one GGUF file that stands for the whole repository, where it has nothing else. */
  readonly only?: string;
}

/**
 * Chooses from what there is.
 *
 * @param listing Every file of the repository
 * @param path The GGUF file or folder that was named, if any
 * @param name How errors call the model
 * @throws {InputError} there is no model that could be read
 */
export function neededFiles(
  listing: readonly string[],
  path: string | undefined,
  name: string,
): NeededFiles {
  if (path !== undefined && isGguf(path)) {
    if (listing.includes(path)) return { files: [path] };
    throw new InputError(`the repository has no file ${path}`, {
      where: name,
      hint: ggufHint(listing, name),
    });
  }
  const prefix = path === undefined ? "" : `${path}/`;
  const names = listing.flatMap((file) => {
    const rest = file.startsWith(prefix) ? file.slice(prefix.length) : "";
    return rest !== "" && !rest.includes("/") ? [rest] : [];
  });
  const has = (file: string) => names.includes(file);
  const small = names.filter((file) => SMALL.has(file));
  const full = (files: readonly string[]) => files.map((file) => prefix + file);
  if (has("config.json") && has(WEIGHTS)) return { files: full([...small, WEIGHTS]) };
  if (has("config.json") && has(INDEX)) return { files: full([...small, INDEX]), index: prefix + INDEX };
  if (ADAPTER.every(has)) return { files: full([...small, ...ADAPTER]) };
  const gguf = names.filter(isGguf);
  if (gguf.length === 1) return { files: [prefix + gguf[0]], only: prefix + gguf[0] };
  throw new InputError(whyNone(names, path), { where: name, hint: whatToDo(names, listing, name) });
}

/** Whether a file's name is that of a GGUF file. */
export function isGguf(path: string): boolean {
  return /\.gguf$/i.test(path);
}

function whyNone(names: readonly string[], path: string | undefined): string {
  const where = path === undefined ? "the repository" : `its folder ${path}`;
  if (path !== undefined && names.length === 0) return "the repository has no such folder";
  const gguf = names.filter(isGguf);
  if (gguf.length > 1) return `${where} has ${gguf.length} GGUF files, each a model of its own`;
  if (!names.includes("config.json")) return `${where} has no config.json: no model that could be read`;
  return `${where} has a config.json, but no weights in safetensors`;
}

function whatToDo(names: readonly string[], listing: readonly string[], name: string): string {
  if (names.some((file) => /\.(bin|pt|pth|ckpt)$/.test(file)) && !names.some(isGguf)) {
    return "Its weights are pickled, which can run code when read. Look for a revision with safetensors, or convert it in Python: " +
      "AutoModelForCausalLM.from_pretrained(NAME).save_pretrained(FOLDER).";
  }
  return ggufHint(listing, name);
}

function ggufHint(listing: readonly string[], name: string): string {
  const gguf = listing.filter(isGguf);
  if (gguf.length === 0) {
    return "Name a repository with config.json and safetensors, or one with a GGUF file.";
  }
  const [whole, revision] = name.split("@");
  const repository = whole!.split("/").slice(0, 2).join("/");
  const named = gguf.slice(0, 8).map((file) =>
    `${repository}/${file}${revision === undefined ? "" : `@${revision}`}`
  );
  return `Name one: ${named.join(", ")}${gguf.length > 8 ? " or another" : ""}.`;
}
