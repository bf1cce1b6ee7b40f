/**
 * tokenizer.json and tokenizer_config.json from the tokenizer in a GGUF file's metadata. Two kinds exist: "llama", a
 * SentencePiece vocabulary with scores, which becomes BPE with byte fallback, and "gpt2", byte-level BPE with its merges.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { GgufFile } from "./gguf.ts";
import { preTokenizerHint, preTokenizerOf } from "./pre_tokenizers.ts";
import type { TokenizerFiles } from "../model_source.ts";
import { mergesFromScores } from "../sentencepiece/merges.ts";
import { pieceType } from "../sentencepiece/model.ts";

/** `tokenizer.ggml.token_type`: the types of SentencePiece. */
export const tokenType = pieceType;

/** Builds the tokenizer of a model. @throws {InputError} when the file has none, or one of a kind not known here. */
export function ggufTokenizer(file: Pick<GgufFile, "metadata" | "source">): TokenizerFiles {
  const metadata = new TokenizerMetadata(file);
  const kind = metadata.text("model");
  if (kind === undefined) {
    throw new InputError("the file has no tokenizer", {
      where: file.source.name,
      hint: "Use a GGUF file with one, or the model's Hugging Face folder.",
    });
  }
  const parts = kind === "llama"
    ? sentencePiece(metadata)
    : kind === "gpt2"
    ? byteLevel(metadata)
    : undefined;
  if (!parts) {
    throw metadata.wrong(
      "model",
      `is ${JSON.stringify(kind)}, which is not supported`,
      "Supported: llama, gpt2.",
    );
  }
  const { tokens, types } = metadata;
  const bos = metadata.token("bos_token_id");
  const special = (id: number | undefined) => id === undefined ? null : tokens[id];
  const addBos = metadata.flag("add_bos_token") ?? parts.addBos;
  const chatTemplate = file.metadata.get("tokenizer.chat_template");
  return {
    tokenizerJson: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(tokens, types),
      normalizer: parts.normalizer,
      pre_tokenizer: parts.preTokenizer,
      post_processor: addBos && bos !== undefined ? templateWithBos(tokens[bos], bos) : null,
      decoder: parts.decoder,
      model: parts.model,
    },
    tokenizerConfig: {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: special(bos),
      eos_token: special(metadata.token("eos_token_id")),
      unk_token: special(metadata.token("unknown_token_id")),
      pad_token: special(metadata.token("padding_token_id")),
      add_bos_token: addBos,
      add_eos_token: metadata.flag("add_eos_token") ?? false,
      clean_up_tokenization_spaces: false,
    },
    ...(typeof chatTemplate === "string" && { chatTemplate }),
  };
}

/** Typed access to the `tokenizer.ggml.*` keys. */
class TokenizerMetadata {
  readonly tokens: string[];
  readonly types: ArrayLike<number>;

  constructor(readonly file: Pick<GgufFile, "metadata" | "source">) {
    this.tokens = this.strings("tokens") ?? [];
    const types = this.#value("token_type");
    if (types !== undefined && !(types instanceof Int32Array && types.length === this.tokens.length)) {
      throw this.wrong("token_type", `is not a list of ${this.tokens.length} integers`);
    }
    this.types = (types as Int32Array | undefined) ??
      new Int32Array(this.tokens.length).fill(tokenType.normal);
  }

  #value(key: string) {
    return this.file.metadata.get(`tokenizer.ggml.${key}`);
  }

  wrong(key: string, what: string, hint?: string): InputError {
    return new InputError(`tokenizer.ggml.${key} ${what}`, { where: this.file.source.name, hint });
  }

  text(key: string): string | undefined {
    const value = this.#value(key);
    if (value === undefined || typeof value === "string") return value;
    throw this.wrong(key, "is not a string");
  }

  flag(key: string): boolean | undefined {
    const value = this.#value(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.wrong(key, "is not a boolean");
  }

  /** The id of a special token; -1 or an id far outside stands for none in some files. */
  token(key: string): number | undefined {
    const value = this.#value(key);
    if (value === undefined || value === -1 || value === 0xffffffff) return undefined;
    if (typeof value === "number" && this.tokens[value] !== undefined) return value;
    throw this.wrong(key, `is ${value}, but there are ${this.tokens.length} tokens`);
  }

  strings(key: string): string[] | undefined {
    const value = this.#value(key);
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.every((entry) => typeof entry === "string")) return value as string[];
    throw this.wrong(key, "is not a list of strings");
  }

  scores(): Float32Array {
    const value = this.#value("scores");
    if (value instanceof Float32Array && value.length === this.tokens.length) return value;
    throw this.wrong("scores", `is not a list of ${this.tokens.length} numbers`);
  }

  /** Token to id. */
  vocabulary(): Map<string, number> {
    const vocabulary = new Map(this.tokens.map((token, id) => [token, id]));
    if (vocabulary.size === 0) throw this.wrong("tokens", "is missing or empty");
    if (vocabulary.size < this.tokens.length) throw this.wrong("tokens", "has a token twice");
    return vocabulary;
  }
}

interface Parts {
  model: Record<string, unknown>;
  normalizer: unknown;
  preTokenizer: unknown;
  decoder: unknown;
  /** Whether BOS is added when the file does not say. */
  addBos: boolean;
}

/** SentencePiece: spaces become U+2581, and neighbours join by the highest score. */
function sentencePiece(metadata: TokenizerMetadata): Parts {
  const vocabulary = metadata.vocabulary();
  const prefix = metadata.flag("add_space_prefix") ?? true;
  const unknown = metadata.token("unknown_token_id") ??
    Array.from(metadata.types).indexOf(tokenType.unknown);
  const replace = { type: "Replace", pattern: { String: " " }, content: "\u2581" };
  const prepend = { type: "Prepend", prepend: "\u2581" };
  return {
    model: {
      type: "BPE",
      dropout: null,
      unk_token: metadata.tokens[unknown] ?? null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(vocabulary),
      merges: mergesFromScores(metadata.tokens, metadata.scores(), metadata.types),
    },
    normalizer: { type: "Sequence", normalizers: prefix ? [prepend, replace] : [replace] },
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "\u2581" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    addBos: true,
  };
}

/** Byte-level BPE: the text is cut by regular expressions, its bytes are written as printable characters, then merged. */
function byteLevel(metadata: TokenizerMetadata): Parts {
  const vocabulary = metadata.vocabulary();
  const name = metadata.text("pre") ?? "default";
  const pre = preTokenizerOf(name);
  if (!pre) {
    throw metadata.wrong("pre", `is ${JSON.stringify(name)}, which is not supported`, preTokenizerHint);
  }
  const merges = metadata.strings("merges");
  if (!merges) throw metadata.wrong("merges", "is missing");
  return {
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: Object.fromEntries(vocabulary),
      merges: merges.map((merge) => splitMerge(merge, metadata)),
    },
    normalizer: null,
    preTokenizer: pre.component,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    addBos: pre.addBos,
  };
}

/** "left right"; byte-level tokens have no space in them, so the first one separates. */
function splitMerge(merge: string, metadata: TokenizerMetadata): [string, string] {
  const space = merge.indexOf(" ", 1);
  if (space < 0) throw metadata.wrong("merges", `holds ${JSON.stringify(merge)}, which is not two tokens`);
  return [merge.slice(0, space), merge.slice(space + 1)];
}

function addedTokens(tokens: readonly string[], types: ArrayLike<number>): Record<string, unknown>[] {
  const added: Record<string, unknown>[] = [];
  for (const [id, content] of tokens.entries()) {
    const type = types[id];
    if (type !== tokenType.control && type !== tokenType.unknown && type !== tokenType.userDefined) continue;
    added.push({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: type !== tokenType.userDefined,
    });
  }
  return added;
}

function templateWithBos(token: string, id: number): Record<string, unknown> {
  const bos = (segment: number) => ({ SpecialToken: { id: token, type_id: segment } });
  const sequence = (name: string, segment: number) => ({ Sequence: { id: name, type_id: segment } });
  return {
    type: "TemplateProcessing",
    single: [bos(0), sequence("A", 0)],
    pair: [bos(0), sequence("A", 0), bos(1), sequence("B", 1)],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}
