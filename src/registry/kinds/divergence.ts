/**
 * Divergences: losses given by one expression.
 *
 * @module
 */
import type { Divergence } from "../../losses/contract.ts";
import { RowProgram, symbolicOptions } from "../../losses/row_program.ts";
import { checkRowLoss } from "../check/row_losses.ts";
import type { Kind } from "../kind.ts";
import source from "./divergence.ts.txt" with { type: "text" };

/** Losses given by one expression. */
export const divergence: Kind<Divergence, "loss"> = {
  id: "divergence",
  role: "loss",
  define: "defineDivergence",
  functions: [],
  malformed: ({ term, value }) =>
    (term === undefined) === (value === undefined)
      ? {
        message: "it must have either term() or value()",
        hint: "term() is the summand of one vocabulary entry, value() the whole row's loss.",
      }
      : undefined,
  computes(plugin, options) {
    const program = new RowProgram();
    const symbols = symbolicOptions(plugin.scheduled ?? [], options, (name) => name);
    const { value, gradient } = program.trace(plugin, symbols, 0, true);
    const statistics = program.statistics.map((s) => `${s.name} = ${s.kind} ${s.body}`);
    return [...statistics, `value ${value}`, `gradient ${gradient}`].join("\n");
  },
  check: checkRowLoss,
  template: {
    name: "loss",
    about: "one expression",
    source,
  },
};
