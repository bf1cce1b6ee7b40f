/**
 * Conversations to token ids, with the assistant's turns marked.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { type ChatTemplate, GENERATION_MARKS, type RenderOptions } from "./chat_template.ts";
import type { ChatMessage } from "./dataset.ts";
import type { TextTokenizer } from "./tokenizer.ts";
import { isObject } from "../base/json.ts";

/** How a conversation is encoded. */
export interface ConversationOptions extends RenderOptions {
  /** Row of the dataset, for errors. */
  where?: string;
  /** Mark the assistant's turns (default) or everything. */
  mask?: "completion" | "all";
  /** Mark every turn of the assistant (default) or its last one alone. */
  turns?: "all" | "last";
  /** Whether special tokens that are written out in messages become those tokens (off by default). */
  specialInText?: boolean;
}

/** Length of the longest common start of two id sequences. */
export function commonPrefix(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const limit = Math.min(a.length, b.length);
  let i = 0;
  while (i < limit && a[i] === b[i]) i++;
  return i;
}

/**
 * Token ids of a conversation. Control tokens come from the template alone: one that is written out in a message stays text.
 * No BOS is added beside the template's own.
 *
 * @throws {InputError} the template fails or refuses
 */
export function encodeChat(
  template: ChatTemplate,
  tokenizer: TextTokenizer,
  messages: readonly ChatMessage[],
  options: ConversationOptions = {},
): Int32Array {
  return new GuardedChat(template, tokenizer, messages, options).encode(messages.length, options).ids;
}

/**
 * Token ids of a conversation and which of them are targets: the text of every assistant turn and the token that ends the turn, not
 * the header before it and not the line end after it.
 *
 * The turns are found by rendering the conversation up to the turn's header and up to its end, and comparing text and ids with the whole.
 * Where a template renders earlier turns differently once later ones follow, its `{% generation %}` tags say what the assistant wrote, if it
 * has them.
 *
 * @returns `supervised[i]` is 1 where token i is a target; never for the first token
 * @throws {InputError} a template that renders earlier turns differently once later ones follow
 *
 * @example
 * ```ts ignore
 * const { ids, supervised } = encodeConversation(template, tokenizer, [
 *   { role: "user", content: "Name a colour." },
 *   { role: "assistant", content: "Red." },
 * ]);
 * ```
 */
export function encodeConversation(
  template: ChatTemplate,
  tokenizer: TextTokenizer,
  messages: readonly ChatMessage[],
  options: ConversationOptions = {},
): { ids: Int32Array; supervised: Uint8Array } {
  const chat = new GuardedChat(template, tokenizer, messages, { ...options, addGenerationPrompt: false });
  const whole = chat.encode(messages.length);
  checkEnd(chat, messages, whole.text, template, options);
  const supervised = new Uint8Array(whole.ids.length);
  if (options.mask === "all") supervised.fill(1);
  else {
    try {
      markTurns();
    } catch (error) {
      supervised.fill(0);
      if (!(error instanceof UnstableTurn) || !chat.markGenerated(whole, supervised, options.turns)) {
        throw error;
      }
    }
  }
  if (options.mask !== "all") checkMask(messages, supervised, template, options);
  if (supervised.length > 0) supervised[0] = 0;
  return { ids: whole.ids, supervised };

  function markTurns(): void {
    const last = messages.findLastIndex(({ role }) => role === "assistant");
    messages.forEach((message, turn) => {
      if (message.role !== "assistant" || (options.turns === "last" && turn !== last)) return;
      const before = chat.encode(turn, { addGenerationPrompt: true });
      const through = turn + 1 === messages.length ? whole : chat.encode(turn + 1);
      if (!whole.text.startsWith(through.text)) {
        throw unstable(turn, "later turns change it", template, options);
      }
      if (!through.text.startsWith(before.text)) {
        throw unstable(turn, "it does not begin with the generation prompt", template, options);
      }
      const start = commonPrefix(before.ids, whole.ids);
      const end = commonPrefix(through.ids, whole.ids);
      supervised.fill(1, start, endOfTurn(whole.ids, start, end, tokenizer));
    });
  }
}

/**
 * Refuses masks that cannot be meant: nothing is learnt although the assistant says something, or everything although someone else does.
 * Either way the template leaves a part of the conversation out.
 */
function checkMask(
  messages: readonly ChatMessage[],
  supervised: Uint8Array,
  template: ChatTemplate,
  { where }: ConversationOptions,
): void {
  const says = (isAssistant: boolean) =>
    messages.some(({ role, content }) => (role === "assistant") === isAssistant && content.trim() !== "");
  const refuse = (what: string) => {
    throw new InputError(`${what} (template: ${template.where})`, {
      ...(where === undefined ? {} : { where }),
      hint: "Correct the template, or set data.mask to all, which learns every token.",
    });
  };
  if (says(true) && !supervised.includes(1)) {
    refuse("no token would be learnt: the chat template writes nothing of what the assistant says");
  }
  if (says(false) && supervised.length > 0 && !supervised.includes(0)) {
    refuse(
      "every token would be learnt: the chat template writes nothing of what others than the assistant say",
    );
  }
}

/**
 * Refuses templates that write the assistant's header after every conversation, asked or not: it would be learnt as part of the last answer.
 * Templates that need no header, because the user's turn ends with one, also ignore the request; what follows tells the two apart.
 */
function checkEnd(
  chat: GuardedChat,
  messages: readonly ChatMessage[],
  whole: string,
  template: ChatTemplate,
  options: ConversationOptions,
): void {
  const count = messages.length - 1;
  if (count < 1 || messages[count].role !== "assistant") return;
  const before = chat.render(count);
  if (chat.render(count, { addGenerationPrompt: true }) !== before) return;
  if (commonEnd(before, whole).trim() === "") return;
  if (chat.render(count + 1, {}, [{ role: "user", content: "x" }]).startsWith(whole)) return;
  throw new InputError(
    `the chat template writes the assistant's header even where no answer follows (template: ${template.where})`,
    {
      where: options.where,
      hint:
        "Put a chat_template.jinja into the model's folder that writes it only {% if add_generation_prompt %}.",
    },
  );
}

/** The longest common end of two texts. */
function commonEnd(a: string, b: string): string {
  let length = 0;
  while (length < Math.min(a.length, b.length) && a.at(-1 - length) === b.at(-1 - length)) length++;
  return a.slice(a.length - length);
}

/** A turn that cannot be found by rendering the conversation up to it. */
class UnstableTurn extends InputError {}

function unstable(
  turn: number,
  why: string,
  template: ChatTemplate,
  options: ConversationOptions,
): UnstableTurn {
  return new UnstableTurn(
    `the assistant's turn in messages[${turn}] cannot be found in the rendered conversation: ${why} (template: ${template.where})`,
    {
      where: options.where,
      hint:
        "Set data.turns to each, which makes a sample of every assistant turn with what comes before it; or write rows of prompt and " +
        "completion, or set data.mask to all.",
    },
  );
}

/**
 * End of the targets of a turn: after its last special token when only white space follows, since the model stops there and never
 * writes the line end that the template puts after it.
 */
function endOfTurn(ids: Int32Array, start: number, end: number, tokenizer: TextTokenizer): number {
  let last = end - 1;
  while (last >= start && !tokenizer.isSpecial(ids[last])) last--;
  const rest = last < start ? "no special token" : tokenizer.decode(ids.subarray(last + 1, end));
  return rest.trim() === "" ? last + 1 : end;
}

/**
 * Renders starts of one conversation and tells the template's control tokens from those written out in messages: the latter are broken by
 * a character that occurs nowhere else, which is taken out again before the text is encoded.
 */
class GuardedChat {
  readonly #template: ChatTemplate;
  readonly #tokenizer: TextTokenizer;
  readonly #messages: ChatMessage[];
  readonly #options: RenderOptions;
  readonly #guard: string;
  readonly #special: RegExp | undefined;

  constructor(
    template: ChatTemplate,
    tokenizer: TextTokenizer,
    messages: readonly ChatMessage[],
    options: ConversationOptions,
  ) {
    this.#template = template;
    this.#tokenizer = tokenizer;
    const contents = [...tokenizer.specialTokens.values()].sort((a, b) => b.length - a.length);
    this.#special = contents.length > 0
      ? new RegExp(`(${contents.map(RegExp.escape).join("|")})`)
      : undefined;
    this.#guard = unusedCharacter(JSON.stringify([messages, options.tools ?? null]));
    const guarded = (value: unknown) => options.specialInText ? value : this.#guarded(value);
    this.#messages = messages.map((message) => ({
      ...guarded(message) as ChatMessage,
      role: message.role,
    }));
    this.#options = { ...options, tools: options.tools && guarded(options.tools) as unknown[] };
  }

  /** The first `count` messages and perhaps others as text; control tokens written out in messages are broken. */
  render(count: number, options: RenderOptions = {}, more: ChatMessage[] = []): string {
    const messages = [...this.#messages.slice(0, count), ...more];
    return this.#template.render(messages, { ...this.#options, ...options, tools: this.#options.tools });
  }

  /** The first `count` messages, rendered and encoded. */
  encode(count: number, options: RenderOptions = {}): { text: string; ids: Int32Array } {
    const text = this.render(count, options);
    return { text, ids: this.#ids(text) };
  }

  /**
   * Marks what the template itself says is generated.
   *
   * @param whole The conversation
   * @returns whether it says anything, and writes the same otherwise
   */
  markGenerated(
    whole: { text: string; ids: Int32Array },
    supervised: Uint8Array,
    turns: ConversationOptions["turns"],
  ): boolean {
    const [begin, end] = GENERATION_MARKS;
    const marked = this.#template.renderMarked(this.#messages, this.#options);
    if (marked === undefined || whole.text.includes(begin) || whole.text.includes(end)) return false;
    const pieces = marked.split(new RegExp(`[${begin}${end}]`));
    if (pieces.join("") !== whole.text) return false;
    // Outside and inside, in turn: tags do not nest.
    let before = "";
    for (const [i, piece] of pieces.entries()) {
      const from = before;
      before += piece;
      if (i % 2 === 0 || piece === "" || (turns === "last" && i < pieces.length - 2)) continue;
      const [first, last] = [from, before].map((text) => commonPrefix(this.#ids(text), whole.ids));
      supervised.fill(1, first, last);
    }
    return true;
  }

  #ids(text: string): Int32Array {
    const pieces = this.#special ? text.split(this.#special) : [text];
    // Splitting by a pattern with one group puts the matches at odd places.
    const parts = pieces.map((piece, i) =>
      i % 2 === 1 ? this.#tokenizer.tokenId(piece)! : piece.replaceAll(this.#guard, "")
    );
    return this.#tokenizer.encodeParts(parts);
  }

  #guarded(value: unknown): unknown {
    if (typeof value === "string") {
      return this.#special
        ? value.replace(new RegExp(this.#special, "g"), (token) => token[0] + this.#guard + token.slice(1))
        : value;
    }
    if (Array.isArray(value)) return value.map((item) => this.#guarded(item));
    if (!isObject(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.#guarded(item)]));
  }
}

/** A code point reserved by Unicode for internal use (U+FDD0 to U+FDEF) that the text does not contain. */
function unusedCharacter(text: string): string {
  for (let code = 0xfdd0; code <= 0xfdef; code++) {
    const character = String.fromCharCode(code);
    if (!text.includes(character)) return character;
  }
  throw new InputError("the conversation uses all of the code points U+FDD0 to U+FDEF, which are not text");
}
