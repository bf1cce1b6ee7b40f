/**
 * The check that a model has the tensors its decoder asks for.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { Architecture } from "./architecture.ts";
import type { ModelFamily } from "./family.ts";

/** What is looked at of a stored tensor. */
export interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
}

/** Values, or blocks of them, which a GGUF file that opens has in types that are read alone. */
const readableDtype = /^(F32|F16|BF16|NF4|I?Q\d_\w+|TQ\d_0|MXFP4)$/;
const mostReported = 12;

/** Buffers that old checkpoints hold and that are computed from the config. */
function isDerivedBuffer({ buffers }: ModelFamily, name: string): boolean {
  return name.endsWith("rotary_emb.inv_freq") || (buffers?.test(name) ?? false);
}

/**
 * Everything wrong with a model's tensors, one line each; empty when all is well. A stored head that the config ties to the
 * embedding is not counted as unexpected: the embedding is what is used, as in transformers.
 */
export function tensorProblems(
  { tensors: expected, family, config }: Architecture,
  tensors: ReadonlyMap<string, StoredTensor>,
): string[] {
  const head = `${family.names.head}.weight`;
  const problems: string[] = [];
  for (const [name, shape] of expected) {
    const stored = tensors.get(name);
    if (!stored) {
      const hint = name === head ? " (is tie_word_embeddings: true missing from the config?)" : "";
      problems.push(`${name} is missing, expected shape [${shape.join(", ")}]${hint}`);
    } else if (stored.shape.length !== shape.length || shape.some((size, i) => stored.shape[i] !== size)) {
      problems.push(`${name} has shape [${stored.shape.join(", ")}], expected [${shape.join(", ")}]`);
    } else if (!readableDtype.test(stored.dtype)) {
      problems.push(`${name} has dtype ${stored.dtype}, expected one of F32, F16, BF16`);
    }
  }
  for (const name of tensors.keys()) {
    const tied = name === head && config.tiedHead;
    if (!expected.has(name) && !tied && !isDerivedBuffer(family, name)) {
      problems.push(`${name} is not part of this model`);
    }
  }
  return problems;
}

/**
 * Checks that a model has every tensor its config asks for, in the right shape, and no other.
 *
 * @throws {InputError} listing every problem at once.
 */
export function checkTensors(
  architecture: Architecture,
  tensors: ReadonlyMap<string, StoredTensor>,
  where: string,
): void {
  const problems = tensorProblems(architecture, tensors);
  if (problems.length === 0) return;
  const shown = problems.slice(0, mostReported).map((problem) => `\n  ${problem}`).join("");
  const rest = problems.length > mostReported ? `\n  and ${problems.length - mostReported} more` : "";
  throw new InputError(`the weights do not fit config.json:${shown}${rest}`, {
    where,
    hint: "Config and weights must come from the same model.",
  });
}
