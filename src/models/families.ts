/**
 * The table of model families. A new one is a file in `families/` and a row here.
 *
 * @module
 */
import { didYouMean } from "../base/did_you_mean.ts";
import { InputError, ShapeError } from "../base/errors.ts";
import { Architecture } from "./architecture.ts";
import { gemma2 } from "./families/gemma2.ts";
import { gemma3 } from "./families/gemma3.ts";
import { gpt2 } from "./families/gpt2.ts";
import { gptNeox } from "./families/gpt_neox.ts";
import { granite } from "./families/granite.ts";
import { llama } from "./families/llama.ts";
import { mistral } from "./families/mistral.ts";
import { olmo2 } from "./families/olmo2.ts";
import { phi3 } from "./families/phi3.ts";
import { qwen2 } from "./families/qwen2.ts";
import { qwen3 } from "./families/qwen3.ts";
import { qwen3Moe } from "./families/qwen3_moe.ts";
import { smollm3 } from "./families/smollm3.ts";
import type { ModelFamily } from "./family.ts";

const FAMILIES: readonly ModelFamily[] = [
  llama,
  mistral,
  qwen2,
  qwen3,
  qwen3Moe,
  smollm3,
  phi3,
  gemma2,
  gemma3,
  olmo2,
  granite,
  gpt2,
  gptNeox,
];

/** The built-in family that computes as a class of transformers; undefined where none does. */
export function builtinFamilyOf(architecture: string): string | undefined {
  return FAMILIES.find(({ architectures }) => Object.hasOwn(architectures, architecture))?.name;
}

/**
 * The family that a config names, with the config's numbers.
 *
 * @param config The parsed config.json, or the same made from GGUF metadata
 * @param where The file, for errors
 * @param further Families beside those of the table
 * @throws {InputError} for a family that is not known, and naming the field that does not do
 */
export function readArchitecture(
  config: Readonly<Record<string, unknown>>,
  where: string,
  further: readonly ModelFamily[] = [],
): Architecture {
  const { family, architecture } = findFamily(config, where, further);
  const parsed = family.parse(config, architecture, where);
  try {
    return new Architecture(family, parsed, further);
  } catch (cause) {
    if (!(cause instanceof ShapeError)) throw cause;
    throw new InputError(`a model of these sizes cannot be computed: ${cause.message}`, { where, cause });
  }
}

function findFamily(
  config: Readonly<Record<string, unknown>>,
  where: string,
  further: readonly ModelFamily[],
): { family: ModelFamily; architecture: string } {
  const known = [...FAMILIES, ...further].flatMap((family) =>
    Object.entries(family.architectures).map(([architecture, type]) => ({ family, architecture, type }))
  );
  const named: unknown[] = Array.isArray(config.architectures) ? config.architectures : [];
  const type = typeof config.model_type === "string" ? config.model_type : undefined;
  const found = named.length > 0
    ? known.find(({ architecture }) => architecture === named[0])
    : known.find((row) => row.type === type);
  if (!found || named.length > 1) {
    const [what, near] = named.length > 0
      ? [`architectures ${JSON.stringify(named)}`, known.map(({ architecture }) => architecture)]
      : [`model_type ${JSON.stringify(type)}`, known.map((row) => row.type)];
    throw new InputError(`${what} is not supported${didYouMean(String(named[0] ?? type), near)}`, {
      where,
      hint: `Supported architectures: ${
        known.map(({ architecture }) => architecture).join(", ")
      }. Another is read by a plugin, --plugin FILE: see docs/families.md.`,
    });
  }
  if (type !== undefined && type !== found.type) {
    throw new InputError(
      `model_type ${JSON.stringify(type)} does not belong to architecture ${found.architecture}`,
      { where },
    );
  }
  return found;
}
