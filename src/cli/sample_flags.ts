/**
 * Flags that say how rows of a dataset become samples, and flags whose value is one of a list.
 *
 * @module
 */
import { UsageError } from "../base/errors.ts";
import type { DataRecipe } from "../distill/recipe/recipe.ts";
import type { Flag, FlagReader } from "./command.ts";

/** The flags; verbs add to their help what holds when they are absent. */
export const SAMPLE_FLAGS: Readonly<Record<"limit" | "end-token" | "mask", Flag>> = {
  limit: { value: "COUNT", kind: "count", least: 1, help: "Most samples used (default all)" },
  "end-token": { value: "TOKEN", help: "Token put after a text: eos, bos, none or an id (default eos)" },
  mask: { value: "MASK", help: "Which tokens are measured: auto, completion or all (default auto)" },
};

const MASKS = ["auto", "completion", "all"] as const;
const END_TOKENS = ["auto", "eos", "bos", "none"] as const;

/**
 * The mask that was asked for.
 *
 * @throws {UsageError} for another word
 */
export function maskFlag(flags: FlagReader): DataRecipe["mask"] | undefined {
  return choice("mask", flags.text("mask"), MASKS);
}

/**
 * The end token that was asked for.
 *
 * @throws {UsageError} for another word
 */
export function endTokenFlag(flags: FlagReader): DataRecipe["endToken"] | undefined {
  const given = flags.text("end-token");
  return given !== undefined && /^\d+$/.test(given) ? Number(given) : choice("end-token", given, END_TOKENS);
}

/**
 * A flag's value among those that are allowed.
 *
 * @throws {UsageError} for another one
 */
export function choice<T extends string>(
  flag: string,
  given: string | undefined,
  allowed: readonly T[],
): T | undefined {
  if (given === undefined) return undefined;
  const found = allowed.find((a) => a === given);
  if (found === undefined) throw new UsageError(`--${flag} ${given}: expected one of ${allowed.join(", ")}`);
  return found;
}
