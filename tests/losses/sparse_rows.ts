/** Rows whose target is cached, made from rows with all logits. */
import type { ResolvedLoss } from "../../src/losses/traced.ts";
import { referenceSparseRow, type SparseRow } from "../../src/losses/sparse_reference.ts";
import type { SparseTarget } from "../../src/losses/sparse_target.ts";
import { assertClose, type Row } from "./harness.ts";

/** The `count` largest logits, at ties the lower id first, and what the others weigh at each temperature. */
export function topOf(logits: ArrayLike<number>, count: number, temperatures: readonly number[]): SparseRow {
  const order = Array.from(logits, (z, v) => ({ z, v })).sort((a, b) => b.z - a.z || a.v - b.v);
  return entriesOf(logits, order.slice(0, count).map(({ v }) => v), temperatures);
}

/** Given entries of a row, and what the others weigh at each temperature. */
export function entriesOf(
  logits: ArrayLike<number>,
  ids: readonly number[],
  temperatures: readonly number[],
): SparseRow {
  const highest = ids.reduce((m, v) => Math.max(m, logits[v]!), -Infinity);
  const others = Array.from(logits).filter((_, v) => !ids.includes(v));
  return {
    ids,
    // Differences in f32, as a kernel forms them.
    logits: ids.map((v) => Math.fround(logits[v]! - highest)),
    tails: temperatures.map((temperature) => {
      const top = others.reduce((a, b) => Math.max(a, b), -Infinity);
      if (top === -Infinity) return -Infinity;
      const sum = others.reduce((total, z) => total + Math.exp((z - top) / temperature), 0);
      return (top - highest) / temperature + Math.log(sum);
    }),
  };
}

/** Rows with their target's `count` largest logits in the place of all. */
export function cachedTop(rows: readonly Row[], { entries, temperatures }: SparseTarget): Row[] {
  return rows.map((row) => ({ ...row, cached: topOf(row.teacher, entries, temperatures) }));
}

/** As `assertRow`, for a row whose target is cached. */
export function assertSparseRow(
  terms: readonly ResolvedLoss[],
  row: Row,
  target: SparseTarget,
  got: { values: ArrayLike<number>; gradient: ArrayLike<number> },
) {
  const expected = referenceSparseRow(terms, Float64Array.from(row.student), row.cached!, target, row.label);
  const spread = Math.max(1, ...[...row.student, ...row.teacher].filter(Number.isFinite).map(Math.abs));
  terms.forEach((t, k) => {
    const tolerance = 1e-5 + 2e-6 * Math.abs(expected.values[k]!) + 2e-6 * spread;
    assertClose([got.values[k]!], [expected.values[k]!], tolerance, `${row.name}: value of ${t.loss.id}`);
  });
  const scale = Math.max(1, ...terms.map((t) => t.monitor ? 0 : t.weight));
  assertClose(got.gradient, expected.gradient, scale * 1e-6 * spread, `${row.name}: gradient`);
}
