/**
 * Divergences: losses given by one expression.
 *
 * @module
 */
import type { Divergence } from "../../losses/contract.ts";
import { pairExpression } from "../../losses/pairs.ts";
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
  malformed: ({ term, value, pairs, scheduled }) =>
    (term === undefined) === (value === undefined)
      ? {
        message: "it must have either term() or value()",
        hint: "term() is the summand of one vocabulary entry, value() the whole row's loss.",
      }
      : pairs && scheduled?.length
      ? {
        message: "it has pairs() and scheduled options",
        hint: "leave out `scheduled`: what a loss makes of pairs of texts is fixed when the program is made.",
      }
      : undefined,
  computes(plugin, options) {
    const program = new RowProgram();
    const symbols = symbolicOptions(plugin.scheduled ?? [], options, (name) => name);
    const { value, gradient } = program.trace(plugin, symbols, 0, true);
    const statistics = program.statistics.map((s) => `${s.name} = ${s.kind} ${s.body}`);
    const ofPairs = plugin.pairs ? [`pairs ${pairExpression(plugin, options)}`] : [];
    return [...statistics, `value ${value}`, `gradient ${gradient}`, ...ofPairs].join("\n");
  },
  check: checkRowLoss,
  template: {
    name: "loss",
    about: "one expression",
    source,
  },
};
