/**
 * What is said of a file that was looked at only.
 *
 * @module
 */
import { count } from "../../base/units.ts";
import type { LookedValue } from "../../distill/run/inspect_recipe.ts";

/** What was seen of a large file. */
export function lookedText({ name, encoded, checked, total, isCounted }: LookedValue): string {
  const all = `${isCounted ? "" : "about "}${count(total)}`;
  return `  ${name} is large: ${count(checked)} of its ${all} rows were checked and ${
    count(encoded)
  } encoded, from which the figures above are estimated.`;
}
