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
  /** Whether a piece that is a token is taken whole, without looking at merges. */
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
}

const gpt2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`;
const contractions = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";

/** Llama 3 and Qwen 2 differ in how many digits make a piece. */
function wordsAndDigits(digits: string): string {
  return String
    .raw`(?:${contractions})|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
}

const rules: readonly Rule[] = [
  {
    names: ["default"],
    expressions: [String.raw`[\p{P}\$\+<=>\^~\|]+`, gpt2, String.raw`\p{N}+`, "[0-9][0-9][0-9]"],
  },
  { names: ["gpt-2", "phi-2"], expressions: [gpt2] },
  {
    names: ["llama-bpe", "llama3", "llama-v3"],
    expressions: [wordsAndDigits(String.raw`\p{N}{1,3}`)],
    ignoreMerges: true,
    addBos: true,
  },
  { names: ["qwen2", "deepseek-r1-qwen"], expressions: [wordsAndDigits(String.raw`\p{N}`)] },
  { names: ["smollm"], expressions: [String.raw`\p{N}`, gpt2] },
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
