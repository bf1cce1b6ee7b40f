/**
 * Whether a tokenizer puts a beginning-of-sequence token before a text. Three places of a model folder may say so.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";

/** Whether a sequence begins with a beginning-of-sequence token, and what decided it. */
export interface BosPolicy {
  /** Ids put before the text: one in practice, none when nothing is added. */
  readonly prefix: readonly number[];
  /** `add_bos_token` in tokenizer_config.json wins over the post-processor in tokenizer.json, which wins over the tokenizer class. */
  readonly decidedBy: "add_bos_token" | "post_processor" | "tokenizer_class" | "nothing";
}

/** Classes of the transformers library that add BOS unless told otherwise and rebuild the post-processor themselves. */
const CLASSES_WITH_BOS = ["LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast"];

/**
 * Decides the policy.
 *
 * @param config parsed `tokenizer_config.json`
 * @param postProcessor of `tokenizer.json`
 * @param bos id of the declared BOS token
 * @throws {InputError} BOS is to be added, but there is none
 */
export function decideBos(
  config: Record<string, unknown>,
  postProcessor: Record<string, unknown> | null,
  bos: number | undefined,
  tokenizer: { where: string; tokenId: (token: string) => number },
): BosPolicy {
  if (typeof config.add_bos_token === "boolean") {
    if (!config.add_bos_token) return { prefix: [], decidedBy: "add_bos_token" };
    if (bos === undefined) {
      throw new InputError("add_bos_token is true, but there is no bos_token", {
        where: tokenizer.where,
        hint: "Name the bos_token in tokenizer_config.json, or set add_bos_token to false.",
      });
    }
    return { prefix: [bos], decidedBy: "add_bos_token" };
  }
  const leading = leadingSpecialTokens(postProcessor);
  if (leading !== undefined) {
    return { prefix: leading.map(tokenizer.tokenId), decidedBy: "post_processor" };
  }
  if (bos !== undefined && CLASSES_WITH_BOS.includes(String(config.tokenizer_class))) {
    return { prefix: [bos], decidedBy: "tokenizer_class" };
  }
  return { prefix: [], decidedBy: "nothing" };
}

/** Special tokens that a post-processor puts before the text; undefined if it says nothing about them. */
function leadingSpecialTokens(processor: Record<string, unknown> | null): string[] | undefined {
  switch (processor?.type) {
    case "TemplateProcessing": {
      const items = Array.isArray(processor.single) ? processor.single : [];
      const text = items.findIndex((item) => isObject(item) && "Sequence" in item);
      return items.slice(0, Math.max(0, text)).map((item) => String(item?.SpecialToken?.id));
    }
    case "BertProcessing":
    case "RobertaProcessing":
      return Array.isArray(processor.cls) ? [String(processor.cls[0])] : [];
    case "Sequence":
      for (const child of processor.processors as Record<string, unknown>[]) {
        const found = leadingSpecialTokens(child);
        if (found !== undefined) return found;
      }
  }
  return undefined;
}
