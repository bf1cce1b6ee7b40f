import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { sharedPath } from "../shared.ts";

/** Reads and parses a JSON file. */
export function readJson(path: string): unknown {
  return JSON.parse(Deno.readTextFileSync(path));
}

/** The tokenizer of a model in the reference folder. */
export function loadTokenizer(model: string): TextTokenizer {
  const config = readJson(sharedPath(`models/${model}/tokenizer_config.json`)) as Record<string, unknown>;
  return TextTokenizer.fromJson(readJson(sharedPath(`models/${model}/tokenizer.json`)), config, model);
}

/**
 * A byte-pair tokenizer small enough to check by hand: letters a to e are 3 to 7, space is 8, "ab" 9, "abc" 10;
 * `<unk>`, `<s>`, `</s>` are 0 to 2.
 */
export function tinyTokenizerJson() {
  const tokens = ["<unk>", "<s>", "</s>", "a", "b", "c", "d", "e", " ", "ab", "abc"];
  return {
    added_tokens: [0, 1, 2].map((id) => ({ id, content: tokens[id], special: true, normalized: false })),
    normalizer: null as unknown,
    pre_tokenizer: null as unknown,
    post_processor: null as unknown,
    decoder: { type: "Fuse" } as unknown,
    model: {
      type: "BPE",
      unk_token: "<unk>",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) as Record<string, unknown>,
      merges: ["a b", "ab c"] as unknown,
    } as Record<string, unknown>,
  };
}

export const tinyConfig = { bos_token: "<s>", eos_token: "</s>", add_bos_token: true };

/** {@linkcode tinyTokenizerJson} with BOS added to texts. */
export function tinyTokenizer(): TextTokenizer {
  return TextTokenizer.fromJson(tinyTokenizerJson(), tinyConfig, "tiny");
}
