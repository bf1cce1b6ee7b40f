/**
 * The table of architectures whose GGUF files are read and written.
 *
 * @module
 */
import { didYouMean } from "../../base/did_you_mean.ts";
import { InputError } from "../../base/errors.ts";
import type { GgufArchitecture } from "./architectures/architecture.ts";
import { gemma2, gemma3 } from "./architectures/gemma.ts";
import { gpt2, gptNeox } from "./architectures/gpt.ts";
import { granite, llama, smollm3 } from "./architectures/llama.ts";
import { olmo2 } from "./architectures/olmo2.ts";
import { LONG_ROPE_TENSORS, phi3 } from "./architectures/phi3.ts";
import { qwen2, qwen3, qwen3Moe } from "./architectures/qwen.ts";
import { ROPE_FACTORS } from "./architectures/usual.ts";

export type { GgufArchitecture } from "./architectures/architecture.ts";

const ARCHITECTURES: readonly GgufArchitecture[] = [
  ...[llama, qwen2, qwen3, qwen3Moe, smollm3, phi3, gemma2, gemma3, olmo2, granite, gpt2, gptNeox],
];

/** Tensors that are part of the config here, and no weights. */
export const ROPE_TENSORS: readonly string[] = [ROPE_FACTORS, ...LONG_ROPE_TENSORS];

/**
 * An architecture by llama.cpp's name for it.
 *
 * @throws {InputError} for one that is not known, with the nearest that is
 */
export function ggufArchitecture(name: unknown, where: string): GgufArchitecture {
  const found = ARCHITECTURES.find((architecture) => architecture.name === name);
  if (found) return found;
  const names = ARCHITECTURES.map(({ name }) => name);
  const meant = typeof name === "string" ? didYouMean(name, names) : "";
  throw new InputError(
    `general.architecture is ${JSON.stringify(name)}, which is not supported${meant}`,
    { where, hint: `Supported in GGUF files: ${names.join(", ")}.` },
  );
}
