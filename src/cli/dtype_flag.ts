/**
 * The flag that says how weights are stored.
 *
 * @module
 */
import { UsageError } from "../base/errors.ts";
import type { FloatDtype } from "../formats/dtype.ts";
import type { Flag, FlagReader } from "./command.ts";

const DTYPES: readonly FloatDtype[] = ["f32", "f16", "bf16"];

/** `--dtype`. */
export const DTYPE_FLAG: Readonly<Record<string, Flag>> = {
  dtype: {
    value: "TYPE",
    help: `How the result is stored: ${DTYPES.join(", ")} (default: as what it is made of)`,
  },
};

/** @throws {UsageError} a type that is none of ours */
export function dtypeFlag(flags: FlagReader): { dtype?: FloatDtype } {
  const given = flags.text("dtype");
  if (given === undefined) return {};
  const dtype = DTYPES.find((known) => known === given);
  if (dtype) return { dtype };
  throw new UsageError(`--dtype must be one of ${DTYPES.join(", ")}, not "${given}"`);
}
