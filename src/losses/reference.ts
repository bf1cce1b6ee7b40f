/**
 * The losses of an objective in f64 for one row, from the same expressions as the kernel's: what kernels are tested against.
 *
 * @module
 */
import { LOG_FLOOR, type RowLoss } from "./contract.ts";
import { ENTRY, ROW } from "./row_leaves.ts";
import { RowValues } from "./row_values.ts";
import { initialScalars, type ResolvedLoss, type TracedObjective, traceObjective } from "./traced.ts";

/** Values and gradient of one row. */
export interface RowReference {
  /** D_k, unweighted. */
  readonly values: number[];
  /** d (sum_k weight_k D_k) / dz, [V]. */
  readonly gradient: Float64Array;
}

/**
 * The same losses in f64 for one row, from the same expressions: what kernels are tested against.
 *
 * @param label Index of the label, or -100 for a masked row: zeros, whatever the logits
 * @param masks Bits of the row's token masks, which then say alone where each loss counts
 */
export function referenceRow(
  terms: readonly ResolvedLoss[],
  student: Float64Array,
  teacher: Float64Array,
  label: number,
  masks?: number,
): RowReference {
  const size = student.length;
  const gradient = new Float64Array(size);
  const values = new Array<number>(terms.length).fill(0);
  const counted = masks === undefined
    ? (label === -100 ? [] : terms)
    : terms.filter((t) => (masks >>> (t.tokenMask ?? 0)) & 1);
  if (counted.length === 0) return { values, gradient };
  const place = (index: number) => terms.indexOf(counted[index]!);
  const traced = traceObjective(counted);
  const softmaxes = traced.groups.map(({ temperature }) => ({
    logQ: logSoftmax(student, temperature),
    logP: logSoftmax(teacher, temperature),
  }));

  const entryNames = traced.groups.flatMap((_, g) => [ENTRY.logQ(g), ENTRY.logP(g)]);
  const row = new RowValues({
    names: [...entryNames, ENTRY.student, ENTRY.teacher, ENTRY.isLabel],
    count: size,
    label,
    columns: [
      ...softmaxes.flatMap(({ logQ, logP }) => [logQ, logP]),
      ...[student, teacher, oneAt(label, size)],
    ],
    row: rowLeaves(counted, traced, size),
  });
  row.compute(traced.statistics);
  const found = row.at([...traced.values.values()])(Math.max(0, label));
  [...traced.values.keys()].forEach((index, i) => values[place(index)] = found[i]!);
  if (counted.some((term) => !term.monitor)) {
    const slope = row.at([traced.gradient]);
    for (let v = 0; v < size; v++) gradient[v] = slope(v)[0]!;
  }
  for (const { term, index } of traced.rowLosses) {
    const { temperature, options } = term;
    const own = (term.loss as RowLoss).reference({ student, teacher, label, temperature, options });
    values[place(index)] = own.value;
    if (!term.monitor) own.gradient.forEach((g, v) => gradient[v]! += term.weight * g);
  }
  return { values, gradient };
}

/** What is the same for a row of V entries, statistics aside. */
export function rowLeaves(
  terms: readonly ResolvedLoss[],
  { groups }: TracedObjective,
  vocabulary: number,
): Map<string, number> {
  return new Map([
    [ROW.vocabulary, vocabulary],
    ...groups.map(({ temperature }, g): [string, number] => [ROW.inverseTemperature(g), 1 / temperature]),
    ...initialScalars(terms),
  ]);
}

/** 1 at a place, 0 elsewhere: what tells the label. */
export function oneAt(place: number, count: number): Uint8Array {
  const column = new Uint8Array(count);
  if (place >= 0) column[place] = 1;
  return column;
}

/** log softmax(z / temperature), floored. */
export function logSoftmax(z: Float64Array, temperature: number): Float64Array {
  let highest = -Infinity;
  for (const x of z) highest = Math.max(highest, x);
  let sum = 0;
  for (const x of z) sum += Math.exp((x - highest) / temperature);
  return z.map((x) => Math.max((x - highest) / temperature - Math.log(sum), LOG_FLOOR));
}
