/**
 * Names of tokens for people and for maps by text: what each adds to a text.
 *
 * @module
 */
import type { TextTokenizer } from "./tokenizer.ts";

/** The texts of single tokens; each is decoded once. */
export class TokenTexts {
  readonly #tokenizer: TextTokenizer;
  readonly #texts = new Map<number, string>();
  /** A token with others after it keeps the space that it begins with, which decoders leave out at the start of a text. */
  #anchor: { readonly id: number; readonly text: string } | undefined;

  constructor(tokenizer: TextTokenizer) {
    this.#tokenizer = tokenizer;
    try {
      const id = tokenizer.encode("a", { addBos: false }).at(-1);
      if (id !== undefined) this.#anchor = { id, text: tokenizer.decode([id]) };
    } catch {
      // A vocabulary without this letter: each token is decoded by itself.
    }
  }

  /**
   * What a token adds to a text that others have begun. Where that is no whole characters, as of a token of some bytes, the token as the
   * vocabulary spells it; `token_id:ID` of a padded row of a model, which is no token.
   */
  of(id: number): string {
    let text = this.#texts.get(id);
    if (text === undefined) this.#texts.set(id, text = this.#make(id));
    return text;
  }

  #make(id: number): string {
    const spelling = this.#tokenizer.tokenText(id);
    if (spelling === undefined) return tokenName(id);
    const { id: first, text: before } = this.#anchor ?? { id: undefined, text: "" };
    const whole = this.#tokenizer.decode(first === undefined ? [id] : [first, id]);
    const text = whole.startsWith(before) ? whole.slice(before.length) : whole;
    return text === "" || text.includes("\ufffd") ? spelling : text;
  }
}

/** A token by its id alone, as servers write it that are asked for ids in place of texts. */
export function tokenName(id: number): string {
  return `token_id:${id}`;
}
