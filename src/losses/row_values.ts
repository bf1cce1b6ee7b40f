/**
 * A row program in f64: the values of its leaves, entry by entry, and of its statistics.
 *
 * @module
 */
import { compile, type CompiledExpressions, type Expression } from "../tensor/expr/mod.ts";
import type { Statistic } from "./row_leaves.ts";

/** A row's leaves. */
export interface RowLeaves {
  /** Names of the leaves that differ from entry to entry. */
  readonly names: readonly string[];
  /** Entries of the row. */
  readonly count: number;
  /** The entry that look-ups at the label find. */
  readonly label: number;
  /** Values of each of `names`, entry by entry. */
  readonly columns: readonly ArrayLike<number>[];
  /** Leaves that are the same for the row. */
  readonly row: ReadonlyMap<string, number>;
}

/** Evaluates expressions over a row. */
export class RowValues {
  readonly #leaves: RowLeaves;
  readonly #row: Map<string, number>;

  constructor(leaves: RowLeaves) {
    this.#leaves = leaves;
    this.#row = new Map(leaves.row);
  }

  /** Expressions as a function of the entry. The result is reused by the next call. */
  at(expressions: readonly Expression[]): (v: number) => Float64Array {
    const { names, columns } = this.#leaves;
    const run: CompiledExpressions = compile(expressions, [...names, ...this.#row.keys()]);
    const values = [...names.map(() => 0), ...this.#row.values()];
    return (v) => {
      for (let i = 0; i < columns.length; i++) values[i] = columns[i]![v]!;
      return run(values);
    };
  }

  /** Computes statistics in the order in which they were made; from then on they are leaves of the row. */
  compute(statistics: readonly Statistic[]): void {
    const { count, label } = this.#leaves;
    for (const { name, kind, body } of statistics) {
      const at = this.at([body]);
      let result = kind === "max" ? -Infinity : 0;
      if (kind === "label") result = at(label)[0]!;
      else {
        for (let v = 0; v < count; v++) {
          result = kind === "sum" ? result + at(v)[0]! : Math.max(result, at(v)[0]!);
        }
      }
      this.#row.set(name, result);
    }
  }
}
