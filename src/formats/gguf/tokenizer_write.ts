/**
 * A tokenizer.json as GGUF metadata: the reverse of {@linkcode ggufTokenizer}. What llama.cpp would tokenize differently is
 * refused.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { preTokenizerName } from "./pre_tokenizers.ts";
import { tokenType } from "./tokenizer.ts";
import type { GgufWriteValue } from "./write.ts";
import type { TokenizerFiles } from "../model_source.ts";
import { mergesFromScores } from "../sentencepiece/merges.ts";
import type { SentencePieceModel } from "../sentencepiece/model.ts";

/** The part of a tokenizer.json that is looked at here. */
interface TokenizerJson {
  model: {
    type?: string;
    vocab: Record<string, number>;
    merges: (string | [string, string])[];
    byte_fallback?: boolean;
    ignore_merges?: boolean;
    unk_token?: string | null;
  };
  added_tokens?: { id: number; content: string; special?: boolean }[];
  normalizer?: Component | null;
  pre_tokenizer?: Component | null;
  post_processor?: Component | null;
  /** Where the tokenizer was read from a tokenizer.model. */
  sentencepiece?: SentencePieceModel;
}

type Component = Record<string, unknown> & { type: string };

/**
 * The `tokenizer.*` keys of a model.
 *
 * @param config Rows of the embedding, which there must be tokens for, and the special tokens by id.
 * @throws {InputError} for a tokenizer whose ids llama.cpp would not reproduce.
 */
export function ggufTokenizerMetadata(
  { tokenizerJson, tokenizerConfig, chatTemplate }: TokenizerFiles,
  config: { vocabularySize: number; bosToken?: number; eosTokens: readonly number[] },
  where: string,
): Map<string, GgufWriteValue> {
  const json = tokenizerJson as TokenizerJson;
  const { model, sentencepiece } = json;
  if (sentencepiece) refuseSentencePiece(sentencepiece, where);
  if (typeof model?.vocab !== "object" || !Array.isArray(model.merges)) {
    throw new InputError("only BPE tokenizers can be written to a GGUF file", { where });
  }
  const merges = model.merges.map((merge) => typeof merge === "string" ? splitOnce(merge) : merge);
  const { tokens, types } = listTokens(json, config.vocabularySize, where);
  const metadata = new Map<string, GgufWriteValue>();
  const set = (key: string, value: GgufWriteValue) => metadata.set(`tokenizer.ggml.${key}`, value);

  if (sentencepiece) {
    set("model", { type: "string", value: "llama" });
    set("pre", { type: "string", value: "default" });
    set("tokens", { type: "strings", value: tokens });
    const scores = new Float32Array(tokens.length);
    scores.set(sentencepiece.scores);
    types.set(sentencepiece.types);
    set("scores", { type: "f32s", value: scores });
    set("token_type", { type: "i32s", value: types });
    set("add_space_prefix", { type: "bool", value: sentencepiece.normalizer.addDummyPrefix });
  } else if (model.byte_fallback) {
    set("model", { type: "string", value: "llama" });
    set("pre", { type: "string", value: "default" });
    set("tokens", { type: "strings", value: tokens });
    set("scores", { type: "f32s", value: scoresFromMerges(tokens, types, merges, where) });
    set("token_type", { type: "i32s", value: types });
    set("add_space_prefix", { type: "bool", value: addsSpacePrefix(json, where) });
  } else {
    const pre = preTokenizerName(
      json.normalizer ?? null,
      json.pre_tokenizer ?? null,
      model.ignore_merges === true,
    );
    if (!pre) {
      throw new InputError("llama.cpp's name for this tokenizer's pre_tokenizer is not known", {
        where,
        hint: "Export safetensors instead, and convert them with llama.cpp's convert_hf_to_gguf.py.",
      });
    }
    set("model", { type: "string", value: "gpt2" });
    set("pre", { type: "string", value: pre });
    set("tokens", { type: "strings", value: tokens });
    set("token_type", { type: "i32s", value: types });
    set("merges", { type: "strings", value: merges.map((pair) => pair.join(" ")) });
  }

  const ids = new Map(tokens.map((token, id) => [token, id]));
  const named = (field: unknown) => ids.get(tokenText(field) ?? "");
  const eos = [
    ...new Set([named(tokenizerConfig.eos_token), ...config.eosTokens].filter((id) => id !== undefined)),
  ];
  const special: Record<string, number | undefined> = {
    bos_token_id: named(tokenizerConfig.bos_token) ?? config.bosToken,
    eos_token_id: eos[0],
    eot_token_id: eos[1],
    eom_token_id: eos[2],
    unknown_token_id: named(tokenizerConfig.unk_token) ?? named(model.unk_token),
    padding_token_id: named(tokenizerConfig.pad_token),
  };
  for (const [key, value] of Object.entries(special)) {
    if (value !== undefined) set(key, { type: "u32", value });
  }
  set("add_bos_token", { type: "bool", value: addsBos(json, tokenizerConfig) });
  set("add_eos_token", { type: "bool", value: tokenizerConfig.add_eos_token === true });
  if (chatTemplate !== undefined) {
    metadata.set("tokenizer.chat_template", { type: "string", value: chatTemplate });
  }
  return metadata;
}

/** llama.cpp's kind "llama" merges by score and falls back to bytes, and has nothing that rewrites a text. */
function refuseSentencePiece(
  { type, byteFallback, normalizer }: SentencePieceModel,
  where: string,
): void {
  const wrong = type !== "bpe"
    ? `it is of the kind ${type}`
    : !byteFallback
    ? "it has no pieces for bytes"
    : normalizer.charsmap !== ""
    ? "it maps characters to others"
    : normalizer.removeExtraWhitespaces
    ? "it removes extra spaces"
    : normalizer.whitespaceAsSuffix || !normalizer.escapeWhitespaces
    ? "it treats spaces in a way of its own"
    : undefined;
  if (!wrong) return;
  throw new InputError(`this tokenizer.model cannot be written to a GGUF file: ${wrong}`, {
    where,
    hint: 'llama.cpp\'s kind "llama" would give other ids. Export safetensors instead.',
  });
}

/** Every token by id with its type. Rows of the embedding beyond the last token get tokens that are never produced. */
function listTokens(
  json: TokenizerJson,
  size: number,
  where: string,
): { tokens: string[]; types: Int32Array } {
  const tokens = new Array<string | undefined>(size).fill(undefined);
  const types = new Int32Array(size).fill(tokenType.unused);
  function place(token: string, id: number, type: number): void {
    if (!Number.isSafeInteger(id) || id < 0 || id >= size) {
      throw new InputError(
        `token ${JSON.stringify(token)} has id ${id}, but the embedding has ${size} rows`,
        { where },
      );
    }
    tokens[id] = token;
    types[id] = type;
  }
  const { model } = json;
  for (const [token, id] of Object.entries(model.vocab)) {
    const isByte = model.byte_fallback && /^<0x[0-9A-F]{2}>$/.test(token);
    place(token, id, isByte ? tokenType.byte : tokenType.normal);
  }
  for (const { id, content, special } of json.added_tokens ?? []) {
    const unknown = content === model.unk_token;
    place(content, id, unknown ? tokenType.unknown : special ? tokenType.control : tokenType.userDefined);
  }
  return { tokens: tokens.map((token, id) => token ?? `[PAD${id}]`), types };
}

/** Scores that make joining by score the same as these merges, checked by deriving the merges from them again. */
function scoresFromMerges(
  tokens: readonly string[],
  types: Int32Array,
  merges: readonly [string, string][],
  where: string,
): Float32Array {
  const ranks = new Map<string, number>();
  for (const [left, right] of merges) if (!ranks.has(left + right)) ranks.set(left + right, ranks.size);
  const scores = new Float32Array(tokens.length);
  let last = ranks.size;
  for (const [id, token] of tokens.entries()) {
    if (types[id] === tokenType.normal || types[id] === tokenType.userDefined) {
      scores[id] = -(ranks.get(token) ?? last++);
    }
  }
  // Tokens that are found in a text before anything is merged are no parts of merges in some files, and are in others.
  const normal = types.map((type) => type === tokenType.userDefined ? tokenType.unused : type);
  const wanted = splitsByToken(merges);
  const same = [types, normal].some((types) =>
    sameSplits(wanted, splitsByToken(mergesFromScores(tokens, scores, types)))
  );
  if (same) return scores;
  throw new InputError(
    'the merges of this tokenizer.json do not follow from scores, as GGUF\'s kind "llama" needs',
    {
      where,
      hint: "Export safetensors instead.",
    },
  );
}

/** The ways to make each token of two, the token of the lowest rank first. Which way is taken first makes no difference to scores. */
function splitsByToken(merges: readonly (readonly [string, string])[]): Map<string, Set<number>> {
  const splits = new Map<string, Set<number>>();
  for (const [left, right] of merges) {
    const token = left + right;
    splits.set(token, (splits.get(token) ?? new Set()).add(left.length));
  }
  return splits;
}

function sameSplits(a: ReadonlyMap<string, Set<number>>, b: ReadonlyMap<string, Set<number>>): boolean {
  const others = b.entries();
  return a.size === b.size && [...a].every(([token, splits]) => {
    const [other, otherSplits] = others.next().value!;
    return token === other && splits.size === otherSplits.size &&
      [...splits].every((at) => otherSplits.has(at));
  });
}

/** Whether the text gets a leading space: by a normalizer (older files) or by the Metaspace pre-tokenizer. */
function addsSpacePrefix(json: TokenizerJson, where: string): boolean {
  const { normalizer, pre_tokenizer: pre } = json;
  if (!normalizer && pre?.type === "Metaspace" && pre.split === false && pre.replacement === "\u2581") {
    return pre.prepend_scheme !== "never";
  }
  const steps = normalizer?.type === "Sequence"
    ? normalizer.normalizers as Component[]
    : normalizer
    ? [normalizer]
    : [];
  const prepends = steps.length === 2 && steps[0].type === "Prepend" && steps[0].prepend === "\u2581";
  const replace = steps[steps.length - 1];
  const replaces = replace?.type === "Replace" && replace.content === "\u2581" &&
    (replace.pattern as { String?: string }).String === " ";
  if ((!pre || cutsAtSpaces(pre)) && replaces && (prepends || steps.length === 1)) return prepends;
  throw new InputError('this tokenizer.json treats spaces in a way that GGUF\'s kind "llama" does not', {
    where,
    hint: "Export safetensors instead.",
  });
}

/** Gemma cuts at spaces after all of them have been replaced, which cuts nothing. */
function cutsAtSpaces({ type, pattern }: Component): boolean {
  return type === "Split" && (pattern as { String?: string } | undefined)?.String === " ";
}

/** tokenizer_config.json decides, then the template in tokenizer.json, then the class. */
function addsBos(json: TokenizerJson, tokenizerConfig: Record<string, unknown>): boolean {
  if (typeof tokenizerConfig.add_bos_token === "boolean") return tokenizerConfig.add_bos_token;
  const { post_processor: processor } = json;
  const steps = processor?.type === "Sequence"
    ? processor.processors as Component[]
    : processor
    ? [processor]
    : [];
  const template = steps.find((step) => step.type === "TemplateProcessing");
  if (template) return "SpecialToken" in ((template.single as object[])[0] ?? {});
  return String(tokenizerConfig.tokenizer_class).startsWith("LlamaTokenizer");
}

/** A special token of tokenizer_config.json: its text, or an object that holds it. */
function tokenText(field: unknown): string | undefined {
  if (typeof field === "string") return field;
  const content = (field as { content?: unknown } | null | undefined)?.content;
  return typeof content === "string" ? content : undefined;
}

function splitOnce(merge: string): [string, string] {
  const space = merge.indexOf(" ", 1);
  return [merge.slice(0, space), merge.slice(space + 1)];
}
