/**
 * Which rows of several embeddings stand for the same token.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type TextTokenizer, vocabularyDifference } from "../../text/tokenizer.ts";
import type { ParentRows, Tokenized } from "../parents/vocabulary.ts";

const HINT =
  "A row of the embedding must mean the same token in all of them. `--common-rows` changes only the rows of tokens " +
  "that all have, and leaves the others as they are.";

/**
 * Refuses models whose rows do not mean the same tokens. One without tokenizer files is believed where its embedding has as many rows as the
 * others'.
 *
 * @throws {InputError} with the sizes, or with the first token that differs
 */
export function checkSameTokens(models: readonly Tokenized[]): void {
  const [one, ...others] = models;
  for (const other of others) {
    if (rowsOf(other) === rowsOf(one!)) continue;
    throw new InputError(`vocab_size ${rowsOf(other)} against ${rowsOf(one!)} in ${one!.parent.name}`, {
      where: other.parent.name,
      hint: HINT,
    });
  }
  const known = models.filter(({ tokenizer }) => tokenizer);
  for (const { parent, tokenizer } of known.slice(1)) {
    const difference = vocabularyDifference(known[0]!.tokenizer!, tokenizer!);
    if (difference) {
      throw new InputError(`has other tokens: ${difference}`, { where: parent.name, hint: HINT });
    }
  }
}

/**
 * For every row of the first model's embedding, the row of each of the others that stands for the same token; -1 in all of them where one has
 * none. Rows without a token in any tokenizer (padding) answer to those of the same number.
 *
 * A model without tokenizer files numbers its tokens as the first of the others whose embedding has as many rows, or else as the first that
 * has a tokenizer; without any tokenizer, rows answer to those of the same number.
 */
export function commonRows(models: readonly Tokenized[]): ParentRows[] {
  const [own, ...theirs] = models.map((model) => tokenizerOf(model, models));
  const [rows, ...others] = models.map(rowsOf);
  const found = others.map(() => new Int32Array(rows!).fill(-1));
  for (let row = 0; row < rows!; row++) {
    const token = own?.tokenText(row);
    const answers = others.map((size, i) => {
      const id = token === undefined
        ? theirs[i]?.tokenText(row) === undefined ? row : undefined
        : theirs[i]?.tokenId(token);
      return id !== undefined && id < size ? id : -1;
    });
    if (answers.includes(-1)) continue;
    for (const [i, answer] of answers.entries()) found[i]![row] = answer;
  }
  return found.map((own) => ({ own, borrowed: new Map() }));
}

function rowsOf({ parent }: Tokenized): number {
  return parent.architecture.config.vocabularySize;
}

function tokenizerOf(model: Tokenized, models: readonly Tokenized[]): TextTokenizer | undefined {
  if (model.tokenizer) return model.tokenizer;
  const known = models.filter(({ tokenizer }) => tokenizer);
  return (known.find((other) => rowsOf(other) === rowsOf(model)) ?? known[0])?.tokenizer;
}
