/**
 * Text to token ids and back, through `tokenizer.json`.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../base/errors.ts";
import { type BosPolicy, decideBos } from "./bos_policy.ts";
import { libraryCoder, sentencePieceCoder, type TokenCoder } from "./token_coder.ts";
import { TokenSpelling } from "./token_spelling.ts";
import { checkTokenizerJson, specialMarker, type TokenizerJson } from "./tokenizer_json.ts";
import { canonicalJson } from "../base/json.ts";
import { isObject } from "../base/json.ts";

/** Special ids that the model's own files name (config.json, generation_config.json), beside those of tokenizer_config.json. */
export interface ModelTokenIds {
  bosTokenId?: number;
  eosTokenIds?: readonly number[];
}

/**
 * A tokenizer read from a `tokenizer.json`. End-of-sequence tokens are never added by `encode`: that is the business of the sample
 * encoder, because which token ends a text differs between models.
 *
 * @example
 * ```ts ignore
 * const tokenizer = TextTokenizer.fromJson(JSON.parse(tokenizerJson), JSON.parse(tokenizerConfig), "teacher/tokenizer.json");
 * const ids = tokenizer.encode("Once upon a time");
 * tokenizer.decode(ids, { skipSpecial: true }); // "Once upon a time"
 * ```
 */
export class TextTokenizer {
  /** Highest id + 1. The embedding of a model may have more rows than this (padding), never fewer. */
  readonly vocabularySize: number;
  /** Id of the beginning-of-sequence token, if there is one. */
  readonly bosToken: number | undefined;
  /** Ids that end a sequence, the tokenizer's own first. Empty if the files name none. */
  readonly eosTokens: readonly number[];
  /** Id that stands for what the vocabulary cannot express, if there is one. */
  readonly unknownToken: number | undefined;
  /** What `encode` puts in front of a text by default. */
  readonly bosPolicy: BosPolicy;
  /** How the tokenizer is named in errors: its file. */
  readonly where: string;
  /** How its tokens are written; undefined where they have no bytes of their own. */
  readonly spelling: TokenSpelling | undefined;

  readonly #json: TokenizerJson;
  readonly #coder: TokenCoder;
  readonly #special: ReadonlyMap<number, string>;
  #fingerprint: string | undefined;

  private constructor(
    json: TokenizerJson,
    config: Record<string, unknown>,
    where: string,
    model: ModelTokenIds,
  ) {
    this.where = where;
    this.#json = json;
    this.spelling = TokenSpelling.of(json);
    try {
      this.#coder = json.sentencepiece
        ? sentencePieceCoder(json, json.sentencepiece, config, where)
        : libraryCoder(json, config);
    } catch (cause) {
      if (cause instanceof InputError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new InputError(`the tokenizer cannot be built: ${reason}`, { where, cause });
    }
    this.#special = new Map(json.added_tokens.filter((t) => t.special).map((t) => [t.id, t.content]));
    this.vocabularySize = this.#coder.vocabularySize;

    const { unk_token, unk_id } = json.model;
    this.unknownToken = typeof unk_id === "number"
      ? unk_id
      : typeof unk_token === "string"
      ? this.tokenId(unk_token)
      : undefined;
    const named = (key: string) => this.#namedToken(config[key], key);
    const declaredBos = named("bos_token") ?? this.#checked(model.bosTokenId, "bos_token_id");
    this.bosPolicy = decideBos(config, json.post_processor, declaredBos, {
      where,
      tokenId: (token) => this.#namedToken(token, "post_processor")!,
    });
    this.bosToken = declaredBos ?? this.bosPolicy.prefix[0];
    const eos = [
      named("eos_token"),
      ...(model.eosTokenIds ?? []).map((id) => this.#checked(id, "eos_token_id")),
    ];
    this.eosTokens = [...new Set(eos.filter((id) => id !== undefined))];
  }

  /**
   * Builds a tokenizer from parsed files.
   *
   * @param tokenizerJson parsed `tokenizer.json`
   * @param tokenizerConfig parsed `tokenizer_config.json`; `{}` if the model has none
   * @param where how to name the tokenizer in errors
   * @param model special ids from the model's own configuration, used beside the tokenizer's
   * @throws {InputError} a component that is not implemented, ids out of range, special tokens that are not in the vocabulary
   */
  static fromJson(
    tokenizerJson: unknown,
    tokenizerConfig: Record<string, unknown>,
    where: string,
    model: ModelTokenIds = {},
  ): TextTokenizer {
    return new TextTokenizer(checkTokenizerJson(tokenizerJson, where), tokenizerConfig, where, model);
  }

  /**
   * Token ids of a text.
   *
   * @param options.addBos put the BOS token in front; by default as {@linkcode bosPolicy} says. A text that already begins with it
   * (possible only with `special: true`) does not get a second one.
   * @param options.special whether `</s>` and the like in the text become control tokens. Off by default: text is text.
   * @throws {InputError} a character that the vocabulary cannot express; a component that fails; `addBos: true` without a BOS token
   */
  encode(text: string, options: { addBos?: boolean; special?: boolean } = {}): Int32Array {
    const ids = this.#ids(text.toWellFormed(), options.special === true);
    let prefix: readonly number[] = options.addBos === false ? [] : this.bosPolicy.prefix;
    if (options.addBos && prefix.length === 0) {
      if (this.bosToken === undefined) {
        throw new InputError("a BOS token was asked for, but the tokenizer has none", { where: this.where });
      }
      prefix = [this.bosToken];
    }
    if (prefix.length > 0 && prefix.every((id, i) => ids[i] === id)) prefix = [];
    return Int32Array.from([...prefix, ...ids]);
  }

  /**
   * Token ids of text mixed with special tokens given by id: the text parts stay text, whatever they contain. No BOS is added.
   *
   * @throws {InputError} an id that is not a special token; a character that the vocabulary cannot express; a component that fails
   */
  encodeParts(parts: readonly (string | number)[]): Int32Array {
    const marked = parts.map((part) => {
      if (typeof part === "string") return part.toWellFormed();
      if (!this.isSpecial(part)) {
        throw new InputError(`token id ${part} is not a special token`, { where: this.where });
      }
      return specialMarker(part);
    });
    return Int32Array.from(this.#ids(marked.join(""), false));
  }

  #ids(text: string, special: boolean): number[] {
    let ids: number[];
    try {
      ids = this.#coder.encode(text, special);
    } catch (cause) {
      // Such as a normalizer that makes a text longer than a string may be.
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new InputError(`the tokenizer failed on ${JSON.stringify(text.slice(0, 40))}: ${reason}`, {
        where: this.where,
        cause,
      });
    }
    // The library puts undefined where it finds no token.
    if (ids.some((id) => id === undefined)) {
      throw new InputError(
        `the vocabulary cannot express all of ${JSON.stringify(text.slice(0, 40))} and has no unknown token`,
        { where: this.where },
      );
    }
    return ids;
  }

  /**
   * Text of token ids, exactly: `clean_up_tokenization_spaces` of tokenizer_config.json, which removes spaces before punctuation, is not followed.
   *
   * @param options.skipSpecial leave special tokens out (off by default)
   * @param options.unknown ids without a token (a model's padded rows): refused by default, or replaced by U+FFFD
   * @throws {InputError} an id outside the vocabulary, unless replaced
   */
  decode(
    ids: ArrayLike<number>,
    options: { skipSpecial?: boolean; unknown?: "refuse" | "replace" } = {},
  ): string {
    let text = "";
    let run: number[] = [];
    const flush = () => {
      // The library refuses to decode an empty list.
      if (run.length > 0) {
        text += this.#coder.decode(run);
      }
      run = [];
    };
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i];
      if (this.tokenText(id) === undefined) {
        if (options.unknown !== "replace") {
          throw new InputError(
            `token id ${id} is not in the vocabulary (ids go from 0 to ${this.vocabularySize - 1})`,
            { where: this.where },
          );
        }
        flush();
        text += "\ufffd";
      } else if (!(options.skipSpecial && this.#special.has(id))) {
        run.push(id);
      }
    }
    flush();
    return text;
  }

  /** The token of an id as the vocabulary writes it (`▁the`, `Ġthe`), or undefined if the id has none. */
  tokenText(id: number): string | undefined {
    return Number.isInteger(id) && id >= 0 ? this.#coder.token(id) : undefined;
  }

  /** The id of a token as the vocabulary writes it. */
  tokenId(token: string): number | undefined {
    return this.#coder.id(token);
  }

  /** Whether the id is a special (control) token. */
  isSpecial(id: number): boolean {
    return this.#special.has(id);
  }

  /** Special tokens by id. */
  get specialTokens(): ReadonlyMap<number, string> {
    return this.#special;
  }

  /** The special tokens written out in a text, in order of appearance: a sign of pasted prompts or of markup in the data. */
  findSpecial(text: string): string[] {
    return [...new Set(this.#special.values())]
      .map((token) => ({ token, at: text.indexOf(token) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at)
      .map(({ token }) => token);
  }

  /**
   * SHA-256 (hex) of everything that decides which ids a text gets: the canonical JSON of the components, the BOS policy and the special ids.
   * Formatting, key order, truncation and padding settings and the two ways to write merges make no difference.
   */
  fingerprint(): string {
    if (this.#fingerprint === undefined) {
      const { model, added_tokens, ...components } = this.#json;
      const merges = Array.isArray(model.merges)
        ? model.merges.map((m: string | string[]) => typeof m === "string" ? m.split(" ", 2) : m)
        : undefined;
      const identity = {
        ...components,
        model: { ...model, merges },
        added_tokens: added_tokens.toSorted((a, b) => a.id - b.id),
        bos: this.bosPolicy.prefix,
        bosToken: this.bosToken,
        eosTokens: this.eosTokens,
      };
      this.#fingerprint = createHash("sha256").update(canonicalJson(identity)).digest("hex");
    }
    return this.#fingerprint;
  }

  #checked(id: number | undefined, key: string): number | undefined {
    if (id !== undefined && this.tokenText(id) === undefined) {
      throw new InputError(`${key} is ${id}, which is not in the vocabulary`, { where: this.where });
    }
    return id;
  }

  #namedToken(value: unknown, key: string): number | undefined {
    if (value === undefined || value === null) return undefined;
    const token = isObject(value) ? value.content : value;
    const id = typeof token === "string" ? this.tokenId(token) : undefined;
    if (id === undefined) {
      throw new InputError(`${key} is ${JSON.stringify(value)}, which is not a token of the vocabulary`, {
        where: this.where,
        hint: `Correct ${key} in the tokenizer's files.`,
      });
    }
    return id;
  }
}

/**
 * Says in words where two vocabularies first differ, or undefined if every id means the same token in both.
 * Losses that compare rows of logits need the same vocabulary on both sides.
 */
export function vocabularyDifference(a: TextTokenizer, b: TextTokenizer): string | undefined {
  const shared = Math.min(a.vocabularySize, b.vocabularySize);
  for (let id = 0; id < shared; id++) {
    const [left, right] = [a.tokenText(id), b.tokenText(id)];
    if (left !== right) {
      return `token ${id} is ${JSON.stringify(left)} in ${a.where} and ${
        JSON.stringify(right)
      } in ${b.where}`;
    }
  }
  if (a.vocabularySize === b.vocabularySize) return undefined;
  return `${a.where} has ${a.vocabularySize} tokens and ${b.where} has ${b.vocabularySize}; ` +
    `the first ${shared} are the same`;
}
