/**
 * Names of runs: sortable by time, short enough to type.
 *
 * @module
 */

/** Letters and digits that are not mistaken for one another. */
const ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz";

/**
 * A new run id such as `20260724-153012-k7wq`: UTC date and time, and four random characters.
 *
 * @example
 * ```ts
 * const id = newRunId();
 * ```
 */
export function newRunId(now: Date = new Date()): string {
  const digits = now.toISOString().replace(/[-:]/g, "").slice(0, 15).replace("T", "-");
  const random = crypto.getRandomValues(new Uint8Array(4));
  return `${digits}-${Array.from(random, (byte) => ALPHABET[byte % ALPHABET.length]).join("")}`;
}
