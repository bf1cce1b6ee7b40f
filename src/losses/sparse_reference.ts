/**
 * Losses with a cached target in f64, from the same expressions as the kernels: what those are tested against.
 *
 * @module
 */
import { type ResolvedLoss, traceObjective } from "./traced.ts";
import { logSoftmax, oneAt, rowLeaves, type RowReference } from "./reference.ts";
import { LOG_FLOOR, type RowLoss } from "./contract.ts";
import { ENTRY } from "./row_leaves.ts";
import { RowValues } from "./row_values.ts";
import type { SparseTarget } from "./sparse_target.ts";

/** One row of a cached target. */
export interface SparseRow {
  /** K different tokens at most. */
  readonly ids: ArrayLike<number>;
  /** Their logits without temperature; of samples the logarithms of their weights. */
  readonly logits: ArrayLike<number>;
  /**
   * For each temperature of the target: log sum exp((z - m) / temperature) over all other tokens, m the largest of the K logits. Empty
   * for samples.
   */
  readonly tails: ArrayLike<number>;
}

/**
 * Value and gradient of losses for one row whose target is cached.
 *
 * A divergence of the target is that of K + 1 entries; the bucket's gradient goes to each of its tokens with the share q / Q.
 *
 * @param label Index of the label, or -100 for a masked row: zeros, whatever the logits
 */
export function referenceSparseRow(
  terms: readonly ResolvedLoss[],
  student: Float64Array,
  row: SparseRow,
  target: SparseTarget,
  label: number,
): RowReference {
  const size = student.length;
  const gradient = new Float64Array(size);
  const values = new Array<number>(terms.length).fill(0);
  if (label === -100) return { values, gradient };
  const traced = traceObjective(terms, { sparseTarget: target });
  const { groups, support } = traced;
  const logQ = groups.map(({ temperature }) => logSoftmax(student, temperature));
  const shared = rowLeaves(terms, traced, size);

  const whole = new RowValues({
    names: [...groups.map((_, g) => ENTRY.logQ(g)), ENTRY.student, ENTRY.isLabel],
    count: size,
    label,
    columns: [...logQ, student, oneAt(label, size)],
    row: shared,
  });
  whole.compute(traced.statistics);
  const slope = whole.at([traced.gradient]);
  for (let v = 0; v < size; v++) gradient[v] = slope(v)[0]!;
  for (const { term, index } of traced.rowLosses) {
    const { temperature, options } = term;
    const loss = term.loss as RowLoss;
    const own = loss.reference({ student, teacher: new Float64Array(0), label, temperature, options });
    values[index] = own.value;
    if (!term.monitor) own.gradient.forEach((g, v) => gradient[v]! += term.weight * g);
  }

  const ids = Array.from(row.ids).filter((id) => id < size);
  const outside = [...student.keys()].filter((v) => !ids.includes(v));
  const tails = groups.map(({ temperature }) => logSumExp(outside.map((v) => student[v]! / temperature)));
  const totals = groups.map(({ temperature }) => logSumExp([...student].map((z) => z / temperature)));
  const targets = groups.map(({ temperature }) => targetOf(row, target, temperature, ids.length));
  const names = groups.flatMap((_, g) => [ENTRY.logQ(g), ENTRY.logP(g)]);
  const place = ids.includes(label) ? ids.indexOf(label) : ids.length;
  const buckets = new RowValues({
    names: [...names, ENTRY.isLabel],
    count: ids.length + 1,
    label: place,
    columns: [
      ...groups.flatMap((_, g) => [
        [...ids.map((id) => logQ[g]![id]!), Math.max(tails[g]! - totals[g]!, LOG_FLOOR)],
        targets[g]!,
      ]),
      oneAt(place, ids.length + 1),
    ],
    row: shared,
  });
  if (support) {
    buckets.compute(support.statistics);
    for (const [g, expression] of support.gradients) {
      const at = buckets.at([expression]);
      ids.forEach((id, k) => gradient[id]! += at(k)[0]!);
      const bucket = at(ids.length)[0]!;
      const { temperature } = groups[g]!;
      if (tails[g] === -Infinity) continue;
      for (const v of outside) gradient[v]! += bucket * Math.exp(student[v]! / temperature - tails[g]!);
    }
  }
  for (const [index, value] of traced.values) {
    const cached = support && isCached(terms[index]!, target);
    values[index] = (cached ? buckets : whole).at([value])(cached ? ids.length : label)[0]!;
  }
  return { values, gradient };
}

/** Whether the value of a term is one over the K + 1 entries. */
function isCached(term: ResolvedLoss, target: SparseTarget): boolean {
  return traceObjective([term], { sparseTarget: target }).support !== undefined;
}

/** log p of the K entries and of the bucket, floored. */
function targetOf(row: SparseRow, target: SparseTarget, temperature: number, count: number): number[] {
  const logits = Array.from(row.logits).slice(0, count);
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const column = target.temperatures.indexOf(temperature);
  const scaled = target.kind === "samples"
    ? [...logits.map((z) => z - highest), -Infinity]
    : [...logits.map((z) => (z - highest) / temperature), row.tails[column] ?? -Infinity];
  const total = logSumExp(scaled);
  return scaled.map((x) => Math.max(x - total, LOG_FLOOR));
}

/** Logarithm of a sum of exponentials; -Infinity of nothing. */
function logSumExp(x: readonly number[]): number {
  const highest = x.reduce((a, b) => Math.max(a, b), -Infinity);
  if (highest === -Infinity) return highest;
  return highest + Math.log(x.reduce((sum, y) => sum + Math.exp(y - highest), 0));
}
