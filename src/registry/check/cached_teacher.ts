/**
 * What a loss of a cached teacher must do: be finite, and be the loss itself where the cache has all but one token.
 *
 * @module
 */
import { type ResolvedLoss } from "../../losses/traced.ts";
import { referenceRow } from "../../losses/reference.ts";
import { type RowReference } from "../../losses/reference.ts";
import { referenceSparseRow, type SparseRow } from "../../losses/sparse_reference.ts";
import type { SparseTarget } from "../../losses/sparse_target.ts";
import { CheckFailure } from "./checklist.ts";
import type { TestRow } from "./rows.ts";

/**
 * Checks a divergence in its form for cached teachers, in f64.
 *
 * @returns what was found, and value and gradient as a function of the student's logits
 * @throws {CheckFailure} naming the row
 */
export function cachedForm(
  term: ResolvedLoss,
  target: SparseTarget,
  rows: readonly TestRow[],
): { summary: string; evaluate: (row: TestRow, student: Float64Array) => RowReference } {
  const evaluate = (row: TestRow, student: Float64Array, entries = target.entries) =>
    referenceSparseRow(
      [term],
      student,
      largest(row.teacher, entries, term.temperature),
      { ...target, entries },
      row.label,
    );
  let worst = 0;
  for (const row of rows) {
    const student = Float64Array.from(row.student);
    const { values: [value], gradient } = evaluate(row, student);
    if (!Number.isFinite(value) || !gradient.every(Number.isFinite)) {
      throw new CheckFailure(`value or gradient is not finite on the row "${row.name}"`, {
        hint:
          "Where a cache has everything, the bucket of all other tokens is empty: logP and logQ are at their floor.",
      });
    }
    const whole = referenceRow([term], student, Float64Array.from(row.teacher), row.label);
    const nearly = evaluate(row, student, row.teacher.length - 1);
    const scale = Math.max(1, Math.abs(whole.values[0]!), ...whole.gradient.map(Math.abs));
    const error = Math.max(
      Math.abs(nearly.values[0]! - whole.values[0]!),
      ...whole.gradient.map((g, v) => Math.abs(g - nearly.gradient[v]!)),
    ) / scale;
    if (!(error <= 1e-6)) {
      throw new CheckFailure(
        `on the row "${row.name}", a cache of all tokens but one gives ${
          nearly.values[0]!.toPrecision(7)
        }, ` +
          `all of them ${whole.values[0]!.toPrecision(7)}`,
        { hint: "The loss counts entries, where it should weigh them." },
      );
    }
    worst = Math.max(worst, error);
  }
  return { summary: `with all tokens but one the same (${worst.toExponential(1)})`, evaluate };
}

/** The largest logits of a row, at ties the lower id first, and what the others weigh. */
function largest(logits: Float32Array, count: number, temperature: number): SparseRow {
  const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
  const highest = logits[order[0]!]!;
  const tail = order.slice(count).reduce((sum, v) => sum + Math.exp((logits[v]! - highest) / temperature), 0);
  const ids = order.slice(0, count);
  return { ids, logits: ids.map((v) => logits[v]! - highest), tails: [Math.log(tail)] };
}
