/**
 * What was drawn of each training set, in words.
 *
 * @module
 */
import { count, percent } from "../../../base/units.ts";
import type { DrawnShare } from "../../../text/batch_stream.ts";

/** A training set's part of what was drawn, as counts with shares. */
export interface DrawnRow {
  readonly name: string;
  readonly rows: string;
  readonly tokens: string;
  readonly supervisedTokens: string;
}

/** One row for each set. */
export function drawnRows(drawn: readonly DrawnShare[]): DrawnRow[] {
  const of = (what: "samples" | "tokens" | "supervisedTokens") => {
    const all = drawn.reduce((sum, share) => sum + share[what], 0);
    return (share: DrawnShare) => `${count(share[what])} (${percent(share[what] / Math.max(1, all))})`;
  };
  const [rows, tokens, supervisedTokens] = [of("samples"), of("tokens"), of("supervisedTokens")];
  return drawn.map((share) => ({
    name: share.name,
    rows: rows(share),
    tokens: tokens(share),
    supervisedTokens: supervisedTokens(share),
  }));
}
