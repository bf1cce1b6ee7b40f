/**
 * Reading a model folder in Hugging Face layout.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, join } from "@std/path";
import { createHash } from "node:crypto";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { openFile, unreadable } from "../files.ts";
import { type Nf4Weight, refuseOtherMethods, takeNf4Weights } from "./bitsandbytes.ts";
import { laidOut, layoutOf } from "./layout.ts";
import type { ModelSource, TensorInfo, TokenizerFiles } from "../model_source.ts";
import { floatDtypeOf, SafetensorsFile } from "../safetensors/safetensors.ts";
import { parseShardIndex } from "../safetensors/shard_index.ts";
import { sentencePieceFiles } from "../sentencepiece/tokenizer_files.ts";
import type { ByteSource } from "../source.ts";
import { checkDownload } from "../wrong_download.ts";

const singleFile = "model.safetensors";
const indexFile = "model.safetensors.index.json";
const tokenizerFiles = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "vocab.json",
  "merges.txt",
];

/** Opens a folder with config.json and safetensors weights. */
export async function openHuggingFaceFolder(path: string): Promise<ModelSource> {
  const folder = await ModelFolder.open(path);
  const config = await folder.readJsonObject("config.json");
  if (!config) throw await folder.noConfig();

  const files = await openWeights(folder);
  const tensors = new Map<string, TensorInfo>();
  const owners = new Map<string, SafetensorsFile>();
  for (const file of files) {
    for (const [name, { dtype, shape }] of file.tensors) {
      owners.set(name, file);
      tensors.set(name, { dtype, shape, exactDtype: floatDtypeOf(dtype) ?? "f32" });
    }
  }

  function owner(name: string): SafetensorsFile {
    const file = owners.get(name);
    if (!file) throw new InputError(`there is no tensor ${name}`, { where: path });
    return file;
  }

  const quantised = await quantisedWeights().catch((error) => {
    files.forEach((file) => file.close());
    throw error;
  });

  async function quantisedWeights(): Promise<Map<string, Nf4Weight>> {
    refuseOtherMethods(config!, tensors.keys(), join(path, "config.json"));
    return await takeNf4Weights(tensors, owner, path);
  }

  const source: ModelSource = {
    path,
    kind: "huggingface",
    config: quantised.size > 0 ? withoutQuantization(config) : config,
    tensors,
    read: async (name) => {
      const weight = quantised.get(name);
      return weight ? await weight.readRows(0, weight.shape[0]) : await owner(name).read(name);
    },
    readRows: async (name, first, count) =>
      await (quantised.get(name)?.readRows(first, count) ?? owner(name).readRows(name, first, count)),
    nf4: (name) => quantised.get(name),
    tokenizer: () => readTokenizer(folder),
    fingerprint: () => fingerprint(files.map((file) => file.source)),
    close: () => files.forEach((file) => file.close()),
  };
  const layout = layoutOf(config).tensors;
  return layout ? laidOut(source, layout) : source;
}

/** The config of what is computed: how weights are stored is known of each of them. */
function withoutQuantization(config: Record<string, unknown>): Record<string, unknown> {
  const { quantization_config: _, ...rest } = config;
  return rest;
}

/** The files of a model folder. Links out of it are refused, but for those of a Hugging Face cache into its own blobs. */
class ModelFolder {
  private constructor(
    readonly path: string,
    readonly names: ReadonlySet<string>,
    /** Folders that its files may really lie in. */
    readonly allowed: readonly string[],
    /** The folder in whose folders they may lie too. */
    readonly shared: string | undefined,
  ) {}

  static async open(path: string): Promise<ModelFolder> {
    const names = new Set<string>();
    try {
      for await (const entry of system.readDir(path)) names.add(entry.name);
    } catch (error) {
      throw unreadable(path, error);
    }
    if (names.size === 0) {
      throw new InputError("the folder is empty", {
        where: path,
        hint: "A model folder holds config.json, tokenizer.json and model.safetensors.",
      });
    }
    const real = await system.realPath(path);
    const allowed = [real];
    let shared: string | undefined;
    // <cache>/models--owner--name/snapshots/<revision>/config.json -> ../../blobs/<hash>, which may be a link in its turn to
    // <cache>/blobs/<prefix>/<hash>; a model may lie in a folder of the snapshot too.
    for (let folder = real; folder !== dirname(folder); folder = dirname(folder)) {
      if (basename(dirname(folder)) !== "snapshots") continue;
      const repository = dirname(dirname(folder));
      allowed.push(join(repository, "blobs"));
      shared = join(dirname(repository), "blobs");
      break;
    }
    return new ModelFolder(path, names, allowed, shared);
  }

  /** The path of a file that is in the folder, or undefined. @throws {InputError} when it is a link out of the folder. */
  async find(name: string): Promise<string | undefined> {
    if (!this.names.has(name)) return undefined;
    const path = join(this.path, name);
    let real: string;
    try {
      real = await system.realPath(path);
    } catch (cause) {
      throw new InputError("is a link to a file that is not there", { where: path, cause });
    }
    const lies = dirname(real);
    if (this.allowed.includes(lies) || dirname(lies) === this.shared) return path;
    throw new InputError(`is a link out of the model folder, to ${real}`, {
      where: path,
      hint: "Copy the file into the folder.",
    });
  }

  /** A file's bytes, or undefined when it is not there. */
  async readBytes(name: string): Promise<Uint8Array | undefined> {
    const path = await this.find(name);
    if (!path) return undefined;
    const source = await openFile(path);
    try {
      return await source.read(0, source.size);
    } finally {
      source.close?.();
    }
  }

  /** A file's text, or undefined when it is not there. */
  async readText(name: string): Promise<string | undefined> {
    const bytes = await this.readBytes(name);
    if (!bytes) return undefined;
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (cause) {
      throw new InputError("is not UTF-8 text", { where: join(this.path, name), cause });
    }
  }

  async readJson(name: string): Promise<unknown> {
    const text = await this.readText(name);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch (cause) {
      checkDownload(text, join(this.path, name));
      throw new InputError(`is not valid JSON: ${cause instanceof Error ? cause.message : cause}`, {
        where: join(this.path, name),
        cause,
      });
    }
  }

  async readJsonObject(name: string): Promise<Record<string, unknown> | undefined> {
    const value = await this.readJson(name);
    if (value === undefined) return undefined;
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
    throw new InputError("does not hold a JSON object", { where: join(this.path, name) });
  }

  noConfig(): InputError {
    let hint = "Give the folder that holds config.json, tokenizer.json and model.safetensors.";
    if (this.names.has("snapshots")) {
      hint = "This is a Hugging Face cache; give the folder inside its snapshots/.";
    }
    if (this.names.has("adapter_config.json")) {
      hint = "This is an adapter; give the folder of its base model, or of a model that it was merged into.";
    }
    if (this.names.has("recipe.json") && this.names.has("manifest.json")) {
      hint = "This is a run; the model that it made is in merged/, what it began from in base/.";
    }
    return new InputError("there is no config.json", { where: this.path, hint });
  }

  noWeights(): InputError {
    const names = [...this.names];
    const pickled = names.filter((name) =>
      /\.(bin|pt|pth|ckpt)$/.test(name) && !name.startsWith("training_args")
    );
    const other = names.find((name) => name.endsWith(".safetensors"));
    const gguf = names.find((name) => name.endsWith(".gguf"));
    if (pickled.length > 0) {
      return new InputError(`the weights are pickled (${pickled[0]}), which can run code when read`, {
        where: this.path,
        hint: "Convert them to safetensors, in Python: " +
          'AutoModelForCausalLM.from_pretrained(folder).save_pretrained("converted").',
      });
    }
    return new InputError(`there are no weights: neither ${singleFile} nor ${indexFile}`, {
      where: this.path,
      hint: other
        ? `Is ${other} the whole model? Then rename it to ${singleFile}.`
        : gguf
        ? `Give the file itself: ${join(this.path, gguf)}.`
        : "Fetch the model's safetensors files into the folder.",
    });
  }
}

async function openWeights(folder: ModelFolder): Promise<SafetensorsFile[]> {
  const single = await folder.find(singleFile);
  if (single) return [await openShard(single)];
  const indexText = await folder.readText(indexFile);
  if (indexText === undefined) throw folder.noWeights();

  const where = join(folder.path, indexFile);
  const shards = parseShardIndex(indexText, where);
  const missing = [...shards.keys()].filter((name) => !folder.names.has(name));
  if (missing.length > 0) {
    throw new InputError(`these shards are missing: ${missing.join(", ")}`, {
      where,
      hint: "Fetch them into the folder.",
    });
  }
  const files: SafetensorsFile[] = [];
  try {
    for (const [name, mapped] of shards) {
      const file = await openShard((await folder.find(name))!);
      files.push(file);
      const absent = mapped.find((tensor) => !file.tensors.has(tensor));
      if (absent) throw new InputError(`maps tensor ${absent} to ${name}, which does not hold it`, { where });
      const known = new Set(mapped);
      const extra = [...file.tensors.keys()].find((tensor) => !known.has(tensor));
      if (extra) {
        throw new InputError(`shard ${name} holds tensor ${extra}, which the index does not map to it`, {
          where,
        });
      }
    }
  } catch (error) {
    files.forEach((file) => file.close());
    throw error;
  }
  return files;
}

async function openShard(path: string): Promise<SafetensorsFile> {
  const source = await openFile(path);
  try {
    return await SafetensorsFile.open(source);
  } catch (error) {
    source.close?.();
    throw error;
  }
}

/** The tokenizer files of a folder, which need hold no model. @throws {InputError} there are none, or they are malformed */
export async function readTokenizerFolder(path: string): Promise<TokenizerFiles> {
  return await readTokenizer(await ModelFolder.open(path));
}

async function readTokenizer(folder: ModelFolder): Promise<TokenizerFiles> {
  const found = await readVocabulary(folder, await folder.readJsonObject("tokenizer_config.json") ?? {});
  const originals = new Map<string, string>();
  for (const name of tokenizerFiles) {
    const text = await folder.readText(name);
    if (text !== undefined) originals.set(name, text);
  }
  return {
    ...found,
    // Newer saves keep the template in a file of its own, which takes precedence.
    chatTemplate: await folder.readText("chat_template.jinja") ??
      defaultTemplate(found.tokenizerConfig.chat_template),
    generationConfig: await folder.readJsonObject("generation_config.json"),
    originals,
  };
}

/** From tokenizer.json, or where there is none from tokenizer.model. */
async function readVocabulary(folder: ModelFolder, tokenizerConfig: Record<string, unknown>) {
  const tokenizerJson = await folder.readJson("tokenizer.json");
  if (tokenizerJson !== undefined) return { tokenizerJson, tokenizerConfig };
  const sentencePieceModel = await folder.readBytes("tokenizer.model");
  if (sentencePieceModel === undefined) {
    throw new InputError("there is no tokenizer.json", {
      where: folder.path,
      hint: "Fetch the model's tokenizer.json, or tokenizer.model, into the folder.",
    });
  }
  const addedTokens = await folder.readJsonObject("added_tokens.json") ?? {};
  const where = join(folder.path, "tokenizer.model");
  return {
    ...sentencePieceFiles(sentencePieceModel, tokenizerConfig, addedTokens, where),
    sentencePieceModel,
  };
}

/** `chat_template` is a template, or a list of named ones of which "default" is meant. */
function defaultTemplate(field: unknown): string | undefined {
  if (typeof field === "string") return field;
  if (!Array.isArray(field)) return undefined;
  const found = field.find((entry) => entry?.name === "default")?.template;
  return typeof found === "string" ? found : undefined;
}

/** sha256 of one file; of several, the sha256 of the lines "hash  name" that `sha256sum` would print, in order of name. */
export async function fingerprint(sources: readonly ByteSource[]): Promise<string> {
  const sorted = [...sources].sort((a, b) => basename(a.name) < basename(b.name) ? -1 : 1);
  const hashes: string[] = [];
  for (const source of sorted) hashes.push(await sha256(source));
  if (hashes.length === 1) return hashes[0];
  const lines = sorted.map((source, i) => `${hashes[i]}  ${basename(source.name)}\n`).join("");
  return createHash("sha256").update(lines).digest("hex");
}

async function sha256(source: ByteSource): Promise<string> {
  const hash = createHash("sha256");
  const piece = 4 << 20;
  for (let offset = 0; offset < source.size; offset += piece) {
    hash.update(await source.read(offset, Math.min(piece, source.size - offset)));
  }
  return hash.digest("hex");
}
