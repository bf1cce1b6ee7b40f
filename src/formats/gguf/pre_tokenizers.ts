/**
 * How byte-level BPE cuts a text before it merges, by the names that GGUF files give in `tokenizer.ggml.pre`
 * (llama.cpp, llama-vocab.cpp). Every expression splits the pieces that the ones before it left.
 *
 * @module
 */

interface Rule {
  /** Names of the rule in GGUF files, the one to write first. */
  readonly names: readonly string[];
  readonly expressions: readonly string[];
  /** The same cuts as the models' own tokenizer.json spells them, where it does so differently. */
  readonly huggingFace?: readonly string[];
  /** Whether the models' own tokenizer.json composes characters first (NFC), which llama.cpp leaves out. */
  readonly composes?: boolean;
  /** Whether a piece that is a token is taken whole, without looking at merges. */
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
}

const gpt2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`;
const contractions = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const anyCase = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const digit = String.raw`\p{N}`;
const threeDigits = String.raw`\p{N}{1,3}`;

/** The expression inside byte-level pre-tokenizers; that its last branch takes what would be left over changes nothing. */
const gpt2Inside = String.raw`${gpt2}|\s+`;

/** Llama 3 and Qwen 2 differ in how many digits make a piece. */
function wordsAndDigits(digits: string, apostrophes = `(?:${contractions})`): string {
  return String
    .raw`${apostrophes}|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
}

/** Words whose capitals begin a new piece; `after` is what may end one, `digits` what makes a number. */
function capitalisedWords(after: string, digits: string): string {
  const [begin, upper, lower] = [
    String.raw`[^\r\n\p{L}\p{N}]?`,
    String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`,
    String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`,
  ];
  return `${begin}${upper}*${lower}+${after}|${begin}${upper}+${lower}*${after}|${digits}` +
    String.raw`| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
}

const rules: readonly Rule[] = [
  {
    names: ["default"],
    expressions: [String.raw`[\p{P}\$\+<=>\^~\|]+`, gpt2, String.raw`\p{N}+`, "[0-9][0-9][0-9]"],
  },
  {
    names: ["gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion"],
    expressions: [gpt2],
    huggingFace: [gpt2Inside],
    // GPT-NeoX does, GPT-2 does not.
    composes: true,
  },
  {
    names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    expressions: [wordsAndDigits(threeDigits)],
    huggingFace: [wordsAndDigits(threeDigits, anyCase)],
    ignoreMerges: true,
    addBos: true,
  },
  {
    // As Llama 3's, with merges: Phi-4 and OLMo 2.
    names: ["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"],
    expressions: [wordsAndDigits(threeDigits)],
    huggingFace: [wordsAndDigits(threeDigits, anyCase)],
  },
  {
    names: ["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2", "kormo"],
    expressions: [wordsAndDigits(digit)],
    huggingFace: [wordsAndDigits(digit, anyCase)],
    composes: true,
  },
  {
    names: ["smollm", "refact", "starcoder", "command-r", "codeshell", "exaone", "minerva-7b"],
    expressions: [digit, gpt2],
    huggingFace: [digit, gpt2Inside],
  },
  {
    // llama.cpp, whose expressions know no classes of letters, cuts letters beyond ASCII otherwise; this is the models' own.
    names: ["tekken"],
    expressions: [capitalisedWords("", digit)],
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ["gpt-4o", "llama4"],
    expressions: [capitalisedWords(`${anyCase}?`, threeDigits)],
  },
];

/** The tokenizer.json component of a name, and what else the name decides; undefined for a name not known here. */
export function preTokenizerOf(name: string):
  | { component: Record<string, unknown>; ignoreMerges: boolean; addBos: boolean }
  | undefined {
  const rule = rules.find((rule) => rule.names.includes(name));
  if (!rule) return undefined;
  const splits = rule.expressions.map((expression) => ({
    type: "Split",
    pattern: { Regex: expression },
    behavior: "Isolated",
    invert: false,
  }));
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    component: { type: "Sequence", pretokenizers: [...splits, bytes] },
    ignoreMerges: rule.ignoreMerges ?? false,
    addBos: rule.addBos ?? false,
  };
}

/** The supported names, for an error's hint. */
export const preTokenizerHint = `Supported: ${rules.flatMap((rule) => rule.names).join(", ")}. ` +
  "Or use the model's Hugging Face folder.";

/**
 * The name of a tokenizer.json's way to cut, or undefined where it is none of those known here.
 *
 * @param ignoreMerges Whether its model takes a piece that is a token whole
 */
export function preTokenizerName(
  normalizer: unknown,
  preTokenizer: unknown,
  ignoreMerges: boolean,
): string | undefined {
  const expressions = expressionsOf(preTokenizer)?.join("\n");
  const normalizes = (normalizer as { type?: unknown } | null)?.type;
  if (expressions === undefined) return undefined;
  return rules.find((rule) =>
    (rule.ignoreMerges ?? false) === ignoreMerges &&
    (normalizes === undefined || (normalizes === "NFC" && rule.composes)) &&
    [rule.expressions, rule.huggingFace].some((known) => known?.join("\n") === expressions)
  )?.names[0];
}

/** The expressions of a pre_tokenizer, one applied after another, or undefined when it is not of this kind. */
function expressionsOf(component: unknown): string[] | undefined {
  const parts = component as Record<string, unknown> | null;
  switch (parts?.type) {
    case "Sequence": {
      const children = parts.pretokenizers as unknown[];
      const ends = (children.at(-1) as { type?: unknown } | undefined)?.type === "ByteLevel";
      const lists = children.map(expressionsOf);
      return ends && lists.every((list) => list !== undefined) ? lists.flat() : undefined;
    }
    case "ByteLevel":
      if (parts.add_prefix_space) return undefined;
      return parts.use_regex === false ? [] : [gpt2Inside];
    case "Digits":
      return parts.individual_digits ? [digit] : undefined;
    case "Split": {
      const expression = (parts.pattern as { Regex?: string } | undefined)?.Regex;
      const isolates = parts.behavior === "Isolated" && !parts.invert;
      return expression !== undefined && isolates ? [expression] : undefined;
    }
  }
  return undefined;
}
