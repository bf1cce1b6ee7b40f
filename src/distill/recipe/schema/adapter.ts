/**
 * What is trained beside the weights of a model.
 *
 * @module
 */
import { z } from "zod";
import { MODULE_PATTERN, MODULE_PATTERN_FORM } from "../../../formats/peft/module_pattern.ts";
import { count, options, positive, share } from "./fields.ts";

const modulePattern = z.string().regex(MODULE_PATTERN, `must be ${MODULE_PATTERN_FORM}`);

export const adapter = z.strictObject({
  type: z.string().min(1).default("lora").describe("Id of an adapter: lora or a plugin's"),
  rank: count.default(16).describe("Rank of the update of each linear layer"),
  alpha: positive.default(32).describe("The update is scaled by alpha / rank; twice the rank when absent"),
  dropout: share.default(0).describe("Share of an adapter's inputs set to zero while training"),
  targets: z.union([z.literal("all-linear"), z.array(z.string().min(1)).min(1)]).default("all-linear")
    .describe(
      "Layers that get an adapter: all-linear (linear layers but the head), or names such as [q_proj, v_proj], and experts for those of " +
        "a mixture",
    ),
  rslora: z.boolean().default(false).describe("Scales by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)"),
  loraPlusRatio: z.number().min(1).default(1).describe(
    "Learning rate of B over that of A (LoRA+, arXiv 2402.12354)",
  ),
  rankPattern: z.record(modulePattern, count).default({}).describe(
    "Rank by layer, as PEFT's rank_pattern. A key is the layer's name or the end of its path from a dot on, such as q_proj or " +
      "layers.0.self_attn.q_proj, where (0|1) is a choice of names, \\d+ any number, \\w+ any name, and ^ in front asks for the whole " +
      "path; the first that fits counts",
  ),
  alphaPattern: z.record(modulePattern, positive).default({}).describe(
    "Alpha by layer, as PEFT's alpha_pattern; keys as in rankPattern",
  ),
  options: options.describe("Further options of the adapter, checked by its own schema"),
});
