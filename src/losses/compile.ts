/**
 * The losses of an objective that work on rows of logits, compiled into one kernel.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import { leaves } from "../tensor/expr/mod.ts";
import { printRowKernel } from "./kernel/row_kernel.ts";
import { rowLossSource, rowMemory } from "./kernel/row_loss_source.ts";
import { type ResolvedLoss, type RowLossKernel, type RowLossShape, traceObjective } from "./traced.ts";

/**
 * Compiles the losses of an objective into one kernel.
 *
 * @param options.gradient false: values only, the learner's logits stay as they are
 */
export function compileRowLoss(
  terms: readonly ResolvedLoss[],
  shape: RowLossShape,
  device: DeviceDescription,
  { gradient = true }: { gradient?: boolean } = {},
): RowLossKernel {
  const traced = traceObjective(terms, shape);
  const { reads, ...printed } = printRowKernel(terms, traced, shape, device, gradient);
  const { vocabulary, paddedTeacherVocabulary = vocabulary } = shape;
  return {
    ...printed,
    label: `rowLoss ${summary(terms)}${gradient ? "" : " values"}${shape.tokenMasks ? " masked" : ""}`,
    valueCount: terms.length,
    memoryWords: rowMemory(traced).perEntry * shape.vocabulary,
    size: (rows, scalar, { first, end } = { first: 0, end: rows }) => [
      end,
      shape.vocabulary,
      shape.paddedTeacherVocabulary ?? shape.vocabulary,
      rows,
      first,
      ...printed.scalars.map(scalar),
    ],
    groups: (rows) => rows,
    traffic: (rows) =>
      4 * rows *
      ((reads.q + (gradient ? 1 : 0)) * vocabulary + reads.p * paddedTeacherVocabulary + 1 + terms.length),
  };
}

/** The losses' ids; of many, the first few. */
function summary(terms: readonly ResolvedLoss[]): string {
  const ids = terms.map((t) => t.loss.id);
  return ids.length <= 6 ? ids.join("+") : `${ids.slice(0, 4).join("+")} and ${ids.length - 4} more`;
}

/** Whether a loss needs the label of a row. */
export function looksAtLabel(term: ResolvedLoss): boolean {
  const traced = traceObjective([term]);
  const { statistics, values, gradient } = traced;
  const expressions = [...values.values(), gradient, ...statistics.map((s) => s.body)];
  return term.loss.kind === "row-loss"
    ? rowLossSource(term, traced, (name) => name).includes("row_label")
    : leaves(expressions, "flag").length > 0 || statistics.some((s) => s.kind === "label");
}
