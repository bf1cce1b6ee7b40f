/**
 * Whose tokens a merge has, and in which row each parent holds a token.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { TokenizerFiles } from "../../formats/model_source.ts";
import type { Architecture } from "../../models/architecture.ts";
import { TextTokenizer, vocabularyDifference } from "../../text/tokenizer.ts";
import type { MergeRecipe } from "../recipe/recipe.ts";
import type { Parent } from "./parents.ts";

/** Where the rows of the result's embedding and head come from. */
export interface Vocabulary {
  /** Rows of the result. */
  readonly rows: number;
  /** For each parent, by name, where the row of each token is read; absent where its rows are those of the result, one by one. */
  readonly sources?: ReadonlyMap<string, ParentRows>;
  /** The result's tokenizer; undefined where no parent has one. */
  readonly tokenizer: TokenizerFiles | undefined;
}

/** Where the rows of one parent are read. */
export interface ParentRows {
  /** By the result's id: the parent's own row, or -1. */
  readonly own: Int32Array;
  /** What stands for tokens that the parent lacks. */
  readonly borrowed: ReadonlyMap<number, RowSource>;
}

/** Rows of other parents, of which the mean is taken. */
export type RowSource = readonly { readonly parent: string; readonly row: number }[];

/** Whether the rows of a tensor are tokens: those of the embedding, and of the head with its bias. */
export function isOfTokens(name: string, { family: { names } }: Architecture): boolean {
  return name === names.embedding || name === `${names.head}.weight` || name === `${names.head}.bias`;
}

/** A parent with its tokenizer, if it has one. */
export interface Tokenized {
  readonly parent: Parent;
  readonly files: TokenizerFiles | undefined;
  readonly tokenizer: TextTokenizer | undefined;
}

/**
 * Works out the vocabulary of a merge.
 *
 * @param merged In the order of the recipe, the base first
 * @param models These, and the model whose tokens are wanted
 * @returns Also what the reader should know
 * @throws {InputError} where tokens or rows differ and the recipe does not say whose count
 */
export async function planVocabulary(
  recipe: MergeRecipe,
  merged: readonly Parent[],
  models: readonly Parent[],
): Promise<{ vocabulary: Vocabulary; notes: string[] }> {
  const tokenized = await Promise.all(models.map(withTokenizer));
  const wanted = recipe.vocabulary;
  if (!wanted) return sameVocabulary(tokenized);
  const without = tokenized.filter(({ tokenizer }) => !tokenizer).map(({ parent }) => parent.name);
  if (without.length > 0) {
    throw new InputError(`there is no tokenizer in ${without.join(", ")}`, {
      where: "tokenizer",
      hint: "Fetch its tokenizer.json, or leave the field out if all models have the same tokens.",
    });
  }
  const name = wanted.of === "model" ? wanted.model : recipe.base ?? merged[0]!.name;
  if (wanted.of === "base" && recipe.base === undefined) {
    throw new InputError("is base, but the recipe names no base", {
      where: "tokenizer",
      hint: "Name the base, union, or the model whose tokens are to be kept.",
    });
  }
  const first = tokenized.find(({ parent }) => parent.name === name)!;
  const extra = wanted.of === "union" ? tokensBeyond(first, tokenized) : [];
  // Rows beyond the tokens, kept for round sizes, stay; but new tokens follow the last one.
  const rows = extra.length > 0
    ? first.tokenizer!.vocabularySize
    : Math.max(first.tokenizer!.vocabularySize, first.parent.architecture.config.vocabularySize);
  const tokens = [...tokensOf(first.tokenizer!, rows), ...extra.map(({ content }) => content)];
  return {
    vocabulary: {
      rows: tokens.length,
      sources: rowSources(tokens, tokenized.slice(0, merged.length), recipe.base),
      tokenizer: withTokens(first, extra),
    },
    notes: extra.length === 0 ? [] : [
      `the tokenizer is that of ${name} with ${extra.length} more tokens, which it always reads as one piece`,
    ],
  };
}

/** Reads a parent's tokenizer, if it has one. */
export async function withTokenizer(parent: Parent): Promise<Tokenized> {
  let files: TokenizerFiles;
  try {
    files = await parent.source.tokenizer();
  } catch (error) {
    if (error instanceof InputError && /there is no tokenizer/.test(error.message)) {
      return { parent, files: undefined, tokenizer: undefined };
    }
    throw error;
  }
  const tokenizer = TextTokenizer.fromJson(files.tokenizerJson, files.tokenizerConfig, parent.name);
  return { parent, files, tokenizer };
}

/** Every parent's own rows, which must mean the same tokens. */
function sameVocabulary(tokenized: readonly Tokenized[]): { vocabulary: Vocabulary; notes: string[] } {
  const hint = "Say whose tokens the result is to have: tokenizer: base, union, or a model.";
  const [first, ...others] = tokenized;
  const rows = (parent: Parent) => parent.architecture.config.vocabularySize;
  for (const { parent } of others) {
    if (rows(parent) === rows(first!.parent)) continue;
    throw new InputError(
      `has ${rows(parent)} rows of embeddings, ${first!.parent.name} has ${rows(first!.parent)}`,
      { where: parent.name, hint },
    );
  }
  const known = tokenized.filter(({ tokenizer }) => tokenizer);
  for (const { parent, tokenizer } of known.slice(1)) {
    const difference = vocabularyDifference(known[0]!.tokenizer!, tokenizer!);
    if (difference === undefined) continue;
    throw new InputError(`has other tokens: ${difference}`, { where: parent.name, hint });
  }
  const unknown = tokenized.filter(({ tokenizer }) => !tokenizer).map(({ parent }) => parent.name);
  const notes = known.length === 0
    ? ["no model has a tokenizer, so the result has none"]
    : unknown.length > 0
    ? [
      `there is no tokenizer in ${unknown.join(", ")}: its tokens are taken to be those of ${
        known[0]!.parent.name
      }`,
    ]
    : [];
  return { vocabulary: { rows: rows(first!.parent), tokenizer: known[0]?.files }, notes };
}

/** Tokens by id; an id without a token has an empty place. */
function tokensOf(tokenizer: TextTokenizer, rows = tokenizer.vocabularySize): string[] {
  return Array.from({ length: rows }, (_, id) => tokenizer.tokenText(id) ?? "");
}

/** Tokens that only others have, in the order of the models and their ids. */
function tokensBeyond(
  first: Tokenized,
  tokenized: readonly Tokenized[],
): { content: string; special: boolean }[] {
  const found = new Map<string, { content: string; special: boolean }>();
  for (const { tokenizer } of tokenized) {
    for (const [id, content] of tokensOf(tokenizer!).entries()) {
      if (content === "" || first.tokenizer!.tokenId(content) !== undefined || found.has(content)) continue;
      found.set(content, { content, special: tokenizer!.isSpecial(id) });
    }
  }
  return [...found.values()];
}

/**
 * Where each parent's row of each token is read: in the parent itself, or, for a token it lacks, in the base, or in those that have it
 * (mergekit's rule).
 */
function rowSources(
  tokens: readonly string[],
  tokenized: readonly Tokenized[],
  base: string | undefined,
): Map<string, ParentRows> {
  const sources = new Map(tokenized.map(({ parent }) => [
    parent.name,
    { own: new Int32Array(tokens.length).fill(-1), borrowed: new Map<number, RowSource>() },
  ]));
  for (const [id, token] of tokens.entries()) {
    const owners: RowSource = tokenized.flatMap(({ parent, tokenizer }) => {
      const row = token === "" ? id : tokenizer!.tokenId(token);
      const held = row !== undefined && row < parent.architecture.config.vocabularySize;
      return held ? [{ parent: parent.name, row }] : [];
    });
    if (owners.length === 0) {
      throw new InputError(`no model has an embedding of token ${JSON.stringify(token)}`, {
        where: "tokenizer",
      });
    }
    const ofBase = owners.filter(({ parent }) => parent === base);
    for (const [name, { own, borrowed }] of sources) {
      const held = owners.find(({ parent }) => parent === name);
      if (held) own[id] = held.row;
      else borrowed.set(id, ofBase.length > 0 ? ofBase : owners);
    }
  }
  return sources;
}

/** A tokenizer's files with more added tokens. */
function withTokens(
  { files, tokenizer, parent }: Tokenized,
  extra: readonly { content: string; special: boolean }[],
): TokenizerFiles {
  if (extra.length === 0) return files!;
  const json = structuredClone(files!.tokenizerJson) as { added_tokens?: unknown[] };
  json.added_tokens = [
    ...(json.added_tokens ?? []),
    ...extra.map(({ content, special }, i) => ({
      id: tokenizer!.vocabularySize + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special,
    })),
  ];
  // It must be readable by us before anyone else is given it.
  TextTokenizer.fromJson(json, files!.tokenizerConfig, `${parent.name} with more tokens`);
  const text = JSON.stringify(json, null, 2) + "\n";
  const originals = files!.originals && new Map([...files!.originals, ["tokenizer.json", text]]);
  // An older list of added tokens would contradict the new one.
  originals?.delete("added_tokens.json");
  return { ...files!, tokenizerJson: json, ...(originals ? { originals } : {}) };
}
