/**
 * Text that grows while tokens arrive.
 *
 * @module
 */
import type { TextTokenizer } from "./tokenizer.ts";

/** How a {@linkcode TextStream} reads its tokens. */
export interface TextStreamOptions {
  /** Leave special tokens out (on by default: they are not part of the reply). */
  skipSpecial?: boolean;
  /** Tokens that stand before the stream, for example a prompt: the first new word then keeps its leading space. */
  after?: ArrayLike<number>;
}

/** Tokens of context kept from `after`: a few suffice, since only the start of a decoded run depends on what came before. */
const CONTEXT_TOKENS = 8;

/**
 * Decodes tokens one at a time and hands out only text that will not change any more: whole UTF-8 characters, with the spaces
 * they have in the full text. The pieces joined, with what {@linkcode end} returns, are the decoded text of all tokens.
 *
 * @example
 * ```ts ignore
 * const stream = new TextStream(tokenizer, { after: promptIds });
 * for await (const id of generated) Deno.stdout.writeSync(encoder.encode(stream.push(id)));
 * Deno.stdout.writeSync(encoder.encode(stream.end()));
 * ```
 */
export class TextStream {
  readonly #tokenizer: TextTokenizer;
  readonly #skipSpecial: boolean;
  /** Tokens already handed out that the next ones are decoded with, then tokens not handed out yet. */
  #window: number[] = [];
  #settled = 0;

  constructor(tokenizer: TextTokenizer, options: TextStreamOptions = {}) {
    this.#tokenizer = tokenizer;
    this.#skipSpecial = options.skipSpecial ?? true;
    const after = Array.from(options.after ?? []).filter((id) => this.#keeps(id));
    this.#window = after.slice(-CONTEXT_TOKENS);
    this.#settled = this.#window.length;
  }

  /** Takes the next token and returns the text that has become certain, often one word, sometimes nothing. */
  push(id: number): string {
    if (!this.#keeps(id)) return "";
    this.#window.push(id);
    const text = this.#pending();
    // A trailing U+FFFD is a character whose remaining bytes may be in the next token.
    if (text === "" || text.endsWith("\ufffd")) return "";
    this.#settle();
    return text;
  }

  /** Returns what is left: an unfinished character comes out as U+FFFD. */
  end(): string {
    const text = this.#pending();
    this.#settle();
    return text;
  }

  #keeps(id: number): boolean {
    return !(this.#skipSpecial && this.#tokenizer.isSpecial(id));
  }

  #pending(): string {
    const decode = (ids: number[]) => this.#tokenizer.decode(ids, { unknown: "replace" });
    return decode(this.#window).slice(decode(this.#window.slice(0, this.#settled)).length);
  }

  #settle(): void {
    if (this.#settled === this.#window.length) return;
    this.#window = this.#window.slice(this.#settled);
    this.#settled = this.#window.length;
  }
}
