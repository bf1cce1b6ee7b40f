/**
 * Chat templates: conversations to text as the model was trained on it, and which tokens of it the assistant wrote.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { ChatMessage } from "./dataset.ts";
import {
  compileMarkedTemplate,
  compileTemplate,
  type Program,
  type RenderLimits,
  renderTemplate,
  TemplateRefusal,
} from "./template_render.ts";
import { isObject } from "../base/json.ts";

/** What a template may see beside the messages. */
export interface RenderOptions {
  /** End with the header that the assistant's answer follows (off by default). */
  addGenerationPrompt?: boolean;
  /** Tool descriptions, handed on as they are. */
  tools?: unknown[];
  /** Further variables, for example `{ enable_thinking: false }`. */
  variables?: Record<string, unknown>;
}

/** Where a template may come from. */
export interface TemplateSources {
  /** Where `jinja` comes from, for errors, if not from `chat_template.jinja`. */
  jinjaWhere?: string;
  /** Content of `chat_template.jinja`; it wins over the one in tokenizer_config.json. */
  jinja?: string;
  /** Which of several named templates to take (default `default`). */
  name?: string;
  /** Folder of the model, for errors. */
  where: string;
  /**
   * The day that `strftime_now` speaks of. Without it the function is not defined, and templates that know how fall back to a fixed day:
   * the same data then gives the same tokens tomorrow.
   */
  date?: Date;
  limits?: RenderLimits;
}

/**
 * A model's chat template.
 *
 * @example
 * ```ts ignore
 * const template = ChatTemplate.fromConfig(tokenizerConfig, { where: "student" });
 * template?.render([{ role: "user", content: "Hello" }], { addGenerationPrompt: true });
 * ```
 */
export class ChatTemplate {
  /** How the template is named in errors. */
  readonly where: string;
  readonly #source: string;
  readonly #program: Program;
  /** Writes {@linkcode GENERATION_MARKS}; absent where the template does not say what is generated. */
  readonly #marked: Program | undefined;
  readonly #constants: Record<string, unknown>;
  readonly #limits: RenderLimits | undefined;

  private constructor(
    source: string,
    constants: Record<string, unknown>,
    where: string,
    limits?: RenderLimits,
  ) {
    this.where = where;
    this.#source = source;
    this.#constants = constants;
    this.#limits = limits;
    try {
      this.#program = compileTemplate(source);
      this.#marked = compileMarkedTemplate(source, ...GENERATION_MARKS);
    } catch (cause) {
      throw new InputError(`the chat template cannot be parsed: ${(cause as Error).message}`, {
        where,
        cause,
      });
    }
  }

  /**
   * Takes the template from `chat_template.jinja`, else from `tokenizer_config.json`; undefined if neither has one.
   *
   * @throws {InputError} a template that cannot be parsed, or a name that is not there
   */
  static fromConfig(config: Record<string, unknown>, sources: TemplateSources): ChatTemplate | undefined {
    const constants: Record<string, unknown> = {};
    for (const key of ["bos_token", "eos_token", "unk_token", "pad_token"]) {
      const token = isObject(config[key]) ? config[key].content : config[key];
      if (typeof token === "string") constants[key] = token;
    }
    if (sources.date) constants.strftime_now = strftime(sources.date);
    const make = (source: string, where: string) =>
      new ChatTemplate(source, constants, where, sources.limits);

    if (sources.jinja !== undefined) {
      return make(sources.jinja, sources.jinjaWhere ?? `${sources.where}/chat_template.jinja`);
    }
    const entry = config.chat_template;
    const where = `${sources.where}/tokenizer_config.json`;
    if (entry === undefined || entry === null) return undefined;
    if (typeof entry === "string") return make(entry, `${where} (chat_template)`);
    const named = Array.isArray(entry)
      ? entry.filter((e) => isObject(e) && typeof e.name === "string" && typeof e.template === "string")
      : [];
    if (named.length === 0) {
      throw new InputError("chat_template must be a string or a list of {name, template}", { where });
    }
    const name = sources.name ?? "default";
    const found = named.find((e) => e.name === name) ??
      (named.length === 1 && !sources.name ? named[0] : undefined);
    if (found === undefined) {
      const names = named.map((e) => e.name).join(", ");
      throw new InputError(`there is no chat template named ${JSON.stringify(name)}; there are: ${names}`, {
        where,
      });
    }
    return make(found.template, `${where} (chat_template ${JSON.stringify(found.name)})`);
  }

  /**
   * The conversation as text.
   *
   * @throws {InputError} the template refuses the conversation, fails, or goes over a limit
   */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    return this.#run(this.#program, messages, options);
  }

  /**
   * The conversation as text, with {@linkcode GENERATION_MARKS} around what the template says is generated; undefined where it says nothing.
   *
   * @throws {InputError} as {@linkcode render}
   */
  renderMarked(messages: readonly ChatMessage[], options: RenderOptions = {}): string | undefined {
    return this.#marked && this.#run(this.#marked, messages, options);
  }

  #run(program: Program, messages: readonly ChatMessage[], options: RenderOptions): string {
    try {
      return renderTemplate(program, {
        ...this.#constants,
        documents: null,
        ...options.variables,
        messages,
        tools: options.tools ?? null,
        add_generation_prompt: options.addGenerationPrompt ?? false,
      }, this.#limits);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      if (cause instanceof TemplateRefusal) {
        throw new InputError(`the chat template refuses the conversation: ${reason}${this.#lineOf(reason)}`, {
          where: this.where,
          cause,
        });
      }
      throw new InputError(`the chat template failed: ${reason}`, { where: this.where, cause });
    }
  }

  /** Its text. */
  get source(): string {
    return this.#source;
  }

  /** The line a refusal comes from, if its message stands in the template as it is. */
  #lineOf(message: string): string {
    const at = message === "" ? -1 : this.#source.indexOf(message);
    return at < 0 ? "" : ` (line ${this.#source.slice(0, at).split("\n").length})`;
  }
}

/** What stands before and after generated text where that is asked for: code points that are no characters. */
export const GENERATION_MARKS: readonly [begin: string, end: string] = ["\ufdee", "\ufdef"];

const MONTHS = "January February March April May June July August September October November December".split(
  " ",
);

function strftime(date: Date): (format: string) => string {
  const two = (n: number) => String(n).padStart(2, "0");
  const month = MONTHS[date.getMonth()];
  const parts: Record<string, string> = {
    Y: String(date.getFullYear()),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    b: month.slice(0, 3),
    B: month,
    H: two(date.getHours()),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    "%": "%",
  };
  return (format) => String(format).replace(/%([YmdbBHMS%])/g, (_, letter: string) => parts[letter]);
}
