/**
 * Rendering of Jinja templates within limits. Templates come from model folders, and the library that renders them has no limits of
 * its own: a nested loop or a string doubled over and over would occupy the process for ever.
 *
 * The limits count evaluated nodes, characters, list elements and time at every node. They do not interrupt a single built-in operation:
 * one filter over a long string can still make another of up to 512 MB, which the JavaScript engine refuses to exceed.
 *
 * @module
 */
import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";

/** What a rendering may cost. */
export interface RenderLimits {
  /** Evaluated nodes of the template (default 2 million). */
  steps?: number;
  /** Characters of all strings made on the way, the result among them (default 128 million). */
  characters?: number;
  /** Elements of one list (default 100,000). */
  elements?: number;
  /** Milliseconds (default 5,000). */
  milliseconds?: number;
}

/** A rendering that went over a limit. */
export class RenderLimitError extends Error {}

/** The template itself refused its input, through `raise_exception`. */
export class TemplateRefusal extends Error {}

const DEFAULTS: Required<RenderLimits> = {
  steps: 2e6,
  characters: 128e6,
  elements: 100_000,
  milliseconds: 5000,
};

class BoundedInterpreter extends Interpreter {
  #steps = 0;
  #characters = 0;
  readonly #limits: Required<RenderLimits>;
  readonly #deadline: number;

  constructor(environment: Environment, limits: Required<RenderLimits>) {
    super(environment);
    this.#limits = limits;
    this.#deadline = performance.now() + limits.milliseconds;
  }

  override evaluate(...[statement, environment]: Parameters<Interpreter["evaluate"]>) {
    const { steps, characters, elements, milliseconds } = this.#limits;
    if (++this.#steps > steps) throw new RenderLimitError(`more than ${steps} steps`);
    if (this.#steps % 256 === 0 && performance.now() > this.#deadline) {
      throw new RenderLimitError(`more than ${milliseconds} ms`);
    }
    const result = super.evaluate(statement, environment);
    const value: unknown = result.value;
    if (typeof value === "string") {
      this.#characters += value.length;
      if (this.#characters > characters) throw new RenderLimitError(`more than ${characters} characters`);
    } else if (Array.isArray(value) && value.length > elements) {
      throw new RenderLimitError(`a list of more than ${elements} elements`);
    }
    return result;
  }
}

/** A compiled template. */
export type Program = ReturnType<typeof parse>;

/** @throws {Error} a syntax error; the library does not know the line */
export function compileTemplate(source: string): Program {
  // The block settings are those of the transformers library.
  return parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
}

const GENERATION = /(\s*)\{%(-?)\s*(end)?generation\s*(-?)%\}(\s*)/g;

/**
 * A template that writes marks where its `{% generation %}` begins and ends, which say what of a conversation the assistant writes;
 * undefined where it has none. The library leaves the tags out.
 *
 * @param begin Written before what is generated
 * @param end Written after it
 */
export function compileMarkedTemplate(source: string, begin: string, end: string): Program | undefined {
  if (source.search(GENERATION) < 0) return undefined;
  // What the library does to white space, which it would do to the tags but not to the marks.
  const trimmed = source.replace(/\n$/, "")
    .replace(/^[ \t]*(\{[#%-])/gm, "$1")
    .replace(/([#%-]\})\n/g, "$1");
  const marked = trimmed.replace(
    GENERATION,
    (_, before: string, left: string, isEnd: string | undefined, right: string, after: string) =>
      (left ? "" : before) + (isEnd ? end : begin) + (right ? "" : after),
  );
  try {
    return parse(tokenize(marked.endsWith("\n") ? `${marked}{##}` : marked));
  } catch {
    // Tags where no text may stand.
    return undefined;
  }
}

/** `range(start, stop, step)` that refuses to make a list over the limit before making it. */
function boundedRange(limit: number): (start: number, stop?: number, step?: number) => number[] {
  return (start, stop, step = 1) => {
    if (stop === undefined) [start, stop] = [0, start];
    const count = Math.max(0, Math.ceil((stop - start) / step));
    if (step === 0 || !Number.isFinite(count)) {
      throw new Error("range() needs whole numbers and a step other than 0");
    }
    if (count > limit) throw new RenderLimitError(`a list of more than ${limit} elements`);
    return Array.from({ length: count }, (_, i) => start + i * step);
  };
}

/**
 * Renders a template.
 *
 * @param variables plain values by name; a name that is undefined is not defined in the template either
 * @throws {RenderLimitError} over a limit
 * @throws {TemplateRefusal} the template called `raise_exception`
 * @throws {Error} any other fault of the template
 */
export function renderTemplate(
  program: Program,
  variables: Record<string, unknown>,
  limits: RenderLimits = {},
): string {
  const bounds = { ...DEFAULTS, ...limits };
  const environment = new Environment();
  const globals = {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range: boundedRange(bounds.elements),
    raise_exception: (message: unknown) => {
      throw new TemplateRefusal(String(message));
    },
  };
  for (const [name, value] of Object.entries({ ...variables, ...globals })) {
    if (value !== undefined) environment.set(name, value);
  }
  return String(new BoundedInterpreter(environment, bounds).run(program).value);
}
