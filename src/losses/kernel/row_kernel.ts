/**
 * Prints the kernel of an objective's losses over rows of logits.
 *
 * One workgroup a row. Sweep 0 finds maxima and sums of exponentials of both models together, one sum for each temperature. Each later
 * sweep computes the statistics that the one before made possible; the last one also writes the gradient over the learner's logits. Sums
 * are kept for blocks of turns, then for lanes, then added across lanes in a fixed order.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import type { ResolvedLoss, RowLossShape, TracedObjective } from "../traced.ts";
import { ROW } from "../row_leaves.ts";
import { CachedTarget } from "./cached_target.ts";
import { printFrame } from "./frame.ts";
import { lookUpLabel } from "./label.ts";
import type { Side } from "./layout.ts";
import { RowScope } from "./scope.ts";
import { softmax } from "./softmax.ts";
import { sweeps } from "./sweep.ts";
import { breakWeights, startPoison, unfinishedValues, writeValues } from "./values.ts";

/** What {@linkcode printRowKernel} returns. */
export interface PrintedRowKernel {
  readonly wgsl: string;
  readonly scalars: readonly string[];
  readonly needsTeacher: boolean;
  readonly needsCache: boolean;
  /** How often a row of logits is read, of the learner and of the target. Losses that sort or search a row read more. */
  readonly reads: Readonly<Record<Side, number>>;
}

/** Prints the kernel. `gradient: false` leaves the learner's logits alone. */
export function printRowKernel(
  terms: readonly ResolvedLoss[],
  traced: TracedObjective,
  shape: RowLossShape,
  device: DeviceDescription,
  gradient: boolean,
): PrintedRowKernel {
  const scope = new RowScope(terms, traced, shape, device, gradient);
  const cached = traced.support && new CachedTarget(scope, traced.support);
  const body = [
    ...constants(scope),
    ...unfinishedValues(scope),
    ...startPoison(scope),
    ...softmax(scope, cached),
    ...lookUpLabel(scope, cached),
    ...(cached ? cached.compare() : []),
    ...breakWeights(scope),
    ...traced.rowLosses.map(({ index }) => `let rowLoss${index} = loss${index}_value();`),
    ...sweeps(scope, cached),
    ...(cached && gradient ? cached.finish() : []),
    ...writeValues(scope),
  ];
  const wgsl = printFrame(scope, cached, body);
  const { scalars, needsTeacher } = scope;
  const { reads } = scope.layout;
  return { wgsl, scalars, needsTeacher, needsCache: cached !== undefined, reads };
}

/** The row's token masks, and the temperatures. */
function constants(scope: RowScope): string[] {
  const { terms, traced } = scope;
  const masks = traced.tokenMasks ? [...new Set(terms.map((t) => t.tokenMask ?? 0))] : [];
  return [
    ...masks.map((mask) => `let ${ROW.inMask(mask)} = ((token_mask >> ${mask}u) & 1u) != 0u;`),
    ...traced.groups.flatMap(({ scalar }, g) =>
      scalar ? [`let ${ROW.inverseTemperature(g)} = 1.0 / ${scope.scalar(scalar)};`] : []
    ),
  ];
}
