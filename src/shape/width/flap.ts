/**
 * Which heads and channels a model can best do without: FLAP's weighted input fluctuation (An et al., "Fluctuation-based adaptive
 * structured pruning for large language models", arXiv 2312.11983), as AmoebaLLM uses it (arXiv 2411.10606). An input of a linear layer
 * that hardly varies is replaced by its mean at little cost, and the less so the smaller the weights that read it.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DecoderConfig } from "../../models/config.ts";

/** What the inputs of one linear layer are over the calibration tokens, in f64. */
export interface InputStatistics {
  /** Tokens. */
  readonly count: number;
  /** [in] */
  readonly mean: Float64Array;
  /** Population variance, [in]. */
  readonly variance: Float64Array;
}

/** Of one layer: the inputs of the projections out of attention and out of the MLP. */
export interface LayerStatistics {
  readonly attention: InputStatistics;
  readonly mlp: InputStatistics;
}

/** Scores of what can be cut, layer by layer: the lower, the less is lost. Comparable across layers. */
export interface UnitScores {
  /** Of each layer's groups of queries with their head of keys and values. */
  readonly groups: readonly Float64Array[];
  /** Of each layer's channels of the MLP. */
  readonly channels: readonly Float64Array[];
}

/** What is kept, layer by layer, rising. */
export interface KeptUnits {
  readonly groups: number[][];
  readonly channels: number[][];
}

/** Parameters that go with a unit. */
export interface UnitCosts {
  readonly group: number;
  readonly channel: number;
}

/** One threshold for all layers, so that some become narrower than others, or the same widths everywhere. */
export const WIDTH_STRUCTURES = ["global", "uniform"] as const;

/** See {@linkcode WIDTH_STRUCTURES}. */
export type WidthStructure = typeof WIDTH_STRUCTURES[number];

/**
 * score_j = variance_j * sum_i W[i, j]^2, f64 [in].
 *
 * @param columnSquares sum_i W[i, j]^2, [in]
 */
export function inputScores(variance: Float64Array, columnSquares: Float64Array): Float64Array {
  return variance.map((v, j) => v * columnSquares[j]!);
}

/**
 * (x - mean) / deviation over all x, with the sample deviation (divided by count - 1).
 *
 * @param what For errors
 * @throws {InputError} if all are alike, or one is not a finite number
 */
export function standardised(values: Float64Array, what: string): Float64Array {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const squares = values.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  const deviation = Math.sqrt(squares / (values.length - 1));
  if (deviation > 0 && Number.isFinite(deviation)) return values.map((x) => (x - mean) / deviation);
  throw new InputError(
    deviation === 0 || values.length < 2
      ? `${what} all vary alike, so none can be preferred`
      : `${what} are not finite numbers`,
    { hint: "Give more and more varied text; if that does not help, the weights are damaged." },
  );
}

/**
 * Scores of one layer's units: a channel's is the standardised score of its input; a group's the mean over the inputs that its heads make,
 * of their scores squared and standardised.
 *
 * @param attention Scores of the inputs of the projection out of attention, [heads * headDim]
 * @param mlp Scores of the inputs of the projection out of the MLP, [channels]
 * @param layer For errors
 */
export function unitScores(
  attention: Float64Array,
  mlp: Float64Array,
  groups: number,
  layer: number,
): { groups: Float64Array; channels: Float64Array } {
  const z = standardised(
    attention.map((score) => score * score),
    `the inputs of layer ${layer}'s attention output`,
  );
  const size = z.length / groups;
  const means = Float64Array.from(
    { length: groups },
    (_, g) => z.subarray(g * size, (g + 1) * size).reduce((a, b) => a + b, 0) / size,
  );
  return { groups: means, channels: standardised(mlp, `the inputs of layer ${layer}'s MLP output`) };
}

/**
 * Parameters that a group (rows of queries, keys and values, columns of the output) and a channel stand for. Biases, norms and embeddings
 * do not count.
 *
 * @param mlpInputs Projections that make a channel: 2 where it is gated
 */
export function unitCosts(config: DecoderConfig, mlpInputs = 2): UnitCosts {
  const { hiddenSize, headDim, attentionHeads, keyValueHeads } = config;
  return {
    group: hiddenSize * headDim * (2 * (attentionHeads / keyValueHeads) + 2),
    channel: hiddenSize * (mlpInputs + 1),
  };
}

/** What AmoebaLLM's code takes for the costs: 512 / 3 for a head, in a tensor of whole numbers, and 1 for a channel. */
const FAITHFUL_COSTS: UnitCosts = { group: 170, channel: 1 };

/** A choice by one threshold. */
export interface GlobalChoice extends KeptUnits {
  /** Score of the last unit that counts towards the ratio. */
  readonly threshold: number;
  /** The highest score that is not above it; absent where nothing is cut. */
  readonly next?: number;
}

/**
 * The units of all layers that score best. By falling score (ties: attention before MLP, then the lower layer, then the lower index) they are
 * kept up to the one, itself included, at which the parameters kept come closest to the ratio.
 *
 * @param ratio Part of the parameters of all units that stays, above 0 and at most 1
 * @param faithful As AmoebaLLM's code does it: costs of its own, and the unit at the threshold is cut too
 * @throws {InputError} for another ratio
 */
export function keepBestOfAll(
  scores: UnitScores,
  costs: UnitCosts,
  ratio: number,
  faithful = false,
): GlobalChoice {
  checkRatio(ratio);
  const { group, channel } = faithful ? FAITHFUL_COSTS : costs;
  const units = [
    ...scores.groups.flatMap((of, layer) => Array.from(of, (score, i) => ({ score, layer, i, cost: group }))),
    ...scores.channels.flatMap((of, layer) =>
      Array.from(of, (score, i) => ({ score, layer, i, cost: channel }))
    ),
  ].map((unit, order) => ({ ...unit, order, isGroup: order < count(scores.groups) }));
  units.sort((a, b) => b.score - a.score || a.order - b.order);
  const total = units.reduce((sum, { cost }) => sum + cost, 0);
  let [last, closest, kept] = [0, Infinity, 0];
  for (const [i, { cost }] of units.entries()) {
    kept += cost;
    const distance = Math.abs(kept - ratio * total);
    if (distance < closest) [last, closest] = [i, distance];
  }
  const threshold = units[last]!.score;
  const chosen = faithful ? units.filter(({ score }) => score > threshold) : units.slice(0, last + 1);
  const of = (byLayer: readonly Float64Array[], groups: boolean) =>
    byLayer.map((_, layer) =>
      chosen.flatMap((unit) => unit.isGroup === groups && unit.layer === layer ? [unit.i] : []).sort((a, b) =>
        a - b
      )
    );
  const next = units[chosen.length]?.score;
  return {
    groups: of(scores.groups, true),
    channels: of(scores.channels, false),
    threshold,
    ...(next === undefined ? {} : { next }),
  };
}

/**
 * The best units of each layer, as many in one as in another: ratio times what there is, rounded half up, at least one (ties: the lower
 * index).
 *
 * @throws {InputError} for a ratio that is not above 0 and at most 1
 */
export function keepBestOfEach(scores: UnitScores, ratio: number): KeptUnits {
  checkRatio(ratio);
  const best = (of: Float64Array) => {
    const order = Array.from(of, (_, i) => i).sort((a, b) => of[b]! - of[a]! || a - b);
    return order.slice(0, Math.max(1, Math.floor(ratio * of.length + 0.5))).sort((a, b) => a - b);
  };
  return { groups: scores.groups.map(best), channels: scores.channels.map(best) };
}

/** @throws {InputError} for a ratio that is not above 0 and at most 1 */
export function checkRatio(ratio: number): void {
  if (ratio > 0 && ratio <= 1) return;
  throw new InputError(`the width to keep is ${ratio}; it must be above 0 and at most 1`, {
    hint: "0.75 keeps three quarters of what heads and channels hold.",
  });
}

function count(byLayer: readonly Float64Array[]): number {
  return byLayer.reduce((sum, { length }) => sum + length, 0);
}
