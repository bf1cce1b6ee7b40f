/**
 * AdaLoRA: y = W x + (alpha / r) B (E * (A x)) with A [r, in], B [out, r] kept near orthogonal by a penalty and E [r] in the place of
 * singular values, of which the least important in the whole network are set to zero until a budget is met (Zhang et al.,
 * arXiv 2303.10512). Scale, importance, schedule and order of steps are PEFT's.
 *
 * @module
 */
import { z } from "zod";
import {
  type AdaptedLayer,
  type AdapterSettings,
  type AdapterValues,
  CONTRACT_VERSION,
  defineAdapter,
  max,
  PluginError,
  sqrt,
  type Tensor,
} from "../../src/registry/contract.ts";
import {
  add,
  combine,
  linear,
  matmul,
  pointwise,
  reshape,
  scale,
  sumColumns,
  sumRows,
} from "../../src/registry/tensor_ops.ts";
import { budgetAt, type BudgetSchedule } from "./adalora_budget.ts";
import {
  importanceStates,
  measureImportance,
  pruneLeastImportant,
  scoreState,
} from "./adalora_importance.ts";
import { addLowRank } from "./lora.ts";
import { identity } from "./moslora.ts";

const options = z.strictObject({
  targetRank: z.int().positive().optional().describe(
    "Rank that layers have on average in the end; two thirds of the rank, which is what they begin with, when absent",
  ),
  tinit: z.int().min(0).default(0).describe("Steps before anything is pruned"),
  tfinal: z.int().min(0).default(0).describe("Steps at the end that train what is left"),
  deltaT: z.int().positive().default(1).describe("Steps from one choice of what is kept to the next"),
  beta1: z.number().gt(0).lt(1).default(0.85).describe("How slowly the mean of the sensitivity moves"),
  beta2: z.number().gt(0).lt(1).default(0.85).describe("How slowly the mean of its uncertainty moves"),
  orthRegWeight: z.number().min(0).default(0.5).describe("Weight of the penalty on A and B"),
});
type Options = z.output<typeof options>;

/** alpha / r as PEFT divides; r is the rank a layer begins with, whatever is left of it. */
function scaleOf({ rank, alpha }: Pick<AdaptedLayer, "rank" | "alpha">): number {
  return alpha / (rank + 1e-5);
}

/** PEFT's defaults are 8 of 12. */
function targetRank({ rank }: AdapterSettings, { targetRank }: Options): number {
  return targetRank ?? Math.round(2 / 3 * rank);
}

function schedule(
  layers: readonly AdaptedLayer[],
  settings: AdapterSettings,
  options: Options,
): BudgetSchedule {
  const { tinit, tfinal, deltaT } = options;
  return {
    steps: settings.steps,
    tinit,
    tfinal,
    deltaT,
    initial: layers.reduce((sum, l) => sum + l.rank, 0),
    target: targetRank(settings, options) * layers.length,
  };
}

export default defineAdapter({
  id: "adalora",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "low-rank update whose rank is spent where it matters",
  source: "Zhang et al., arXiv 2303.10512",
  options,
  settings: ["dropout"],
  suffixes: ["lora_A", "lora_B", "lora_E", "adalora_identity"],
  parameters: ({ rank, inFeatures, outFeatures }) => [
    {
      name: "A",
      suffix: "lora_A",
      shape: [rank, inFeatures],
      initialisation: { kind: "normal", deviation: 0.02 },
    },
    {
      name: "B",
      suffix: "lora_B",
      shape: [outFeatures, rank],
      initialisation: { kind: "normal", deviation: 0.02 },
    },
    { name: "E", suffix: "lora_E", shape: [rank, 1], initialisation: { kind: "constant", value: 0 } },
  ],
  shared: (layers) =>
    [...new Set(layers.map((l) => l.rank))].map((rank) => ({
      name: `I${rank}`,
      suffix: `adalora_identity.${rank}`,
      shape: [rank, rank],
      initialisation: { kind: "given", values: () => identity(rank) },
      trainable: false,
    })),
  forward: ({ x, base, parameter, dropout, layer }) => {
    const h = linear(dropout(x), parameter("A"));
    const weighted = pointwise(
      [h, reshape(parameter("E"), [layer.rank])],
      (h, e) => h!.mul(e!).mul(scaleOf(layer)),
    );
    return add(base(), linear(weighted, parameter("B")));
  },

  // w times the mean over all A and B of |P P^T - I| for A and |P^T P - I| for B, Frobenius norms (equation 4).
  penalty: ({ layers, shared, options: { orthRegWeight } }) => {
    const norms = layers.flatMap(({ layer: { rank }, parameter }) => {
      const [a, b] = [parameter("A"), parameter("B")];
      return [linear(a, a), matmul("TN", b, b)].map((gram) => {
        const squares = pointwise([gram, shared(`I${rank}`)], (g, i) => g!.sub(i!).mul(g!.sub(i!)));
        // The root has no slope at 0.
        return pointwise([sumRows(sumColumns(squares))], (s) => sqrt(max(s!, 1e-24)));
      });
    });
    return scale(sum(norms), orthRegWeight / norms.length);
  },

  states: (layer) => importanceStates(layer),
  sharedStates: (layers, settings, options) => {
    checkSchedule(layers, settings, options);
    return [scoreState(layers)];
  },
  scalars: (step, layers, settings, options) => {
    const { measure, prune, hold } = budgetAt(step, schedule(layers, settings, options));
    return { measure: Number(measure), prune, hold: Number(hold) };
  },
  afterUpdate: (inputs) => {
    measureImportance(inputs, inputs.options);
    pruneLeastImportant(inputs);
  },

  merge: (weight, { parameter, layer }) =>
    addLowRank(weight, timesValues(parameter("A"), parameter("E")), parameter("B"), scaleOf(layer), layer),
  peft: (settings, options) => ({
    peftType: "ADALORA",
    config: {
      // LoRA's rank, which PEFT warns of where it is not this.
      r: 8,
      init_r: settings.rank,
      target_r: targetRank(settings, options),
      lora_alpha: settings.alpha,
      lora_dropout: settings.dropout,
      tinit: options.tinit,
      tfinal: options.tfinal,
      deltaT: options.deltaT,
      beta1: options.beta1,
      beta2: options.beta2,
      orth_reg_weight: options.orthRegWeight,
      total_step: settings.steps,
    },
    layer: (values) => {
      const { rank, a, b, e } = left(values);
      const { inFeatures, outFeatures } = values.layer;
      return {
        lora_A: { shape: [rank, inFeatures], data: a },
        lora_B: { shape: [outFeatures, rank], data: b },
        lora_E: { shape: [rank, 1], data: e },
      };
    },
    trainedConfig: (layers) => {
      // PEFT cuts a key at its last dot, and warns of those that fit no module's path as expressions, as its own do, which end in lora_E.
      const patterns = layers.map((values) => [`${values.layer.path}.*`, keptOf(values)] as const);
      const pruned = patterns.some(([, kept]) => kept.includes(false));
      return { rank_pattern: pruned ? Object.fromEntries(patterns) : null };
    },
  }),
  plainLora: (values) => {
    const { rank, a, b, e } = left(values);
    return { rank, scale: scaleOf(values.layer), a: timesValues(a, e), b };
  },
});

/** @throws {PluginError} if there is nothing to prune, or no time to */
function checkSchedule(layers: readonly AdaptedLayer[], settings: AdapterSettings, options: Options): void {
  const { initial, target, steps, tinit, tfinal } = schedule(layers, settings, options);
  if (target >= initial) {
    throw new PluginError(
      "adalora",
      `layers begin with a rank of ${initial / layers.length} on average and shall end with ${
        targetRank(settings, options)
      }, so there is nothing to prune`,
      { hint: "set adapter.rank, what layers begin with, above adapter.options.targetRank" },
    );
  }
  if (tinit + tfinal >= steps) {
    throw new PluginError(
      "adalora",
      `${tinit} steps before and ${tfinal} after the pruning leave none of the run's ${steps}`,
      { hint: "lower adapter.options.tinit or tfinal, or raise train.steps" },
    );
  }
}

/** Which triplets of a layer still count. One stays in any case, as a rank of 0 is no adapter. */
function keptOf({ parameter }: AdapterValues): boolean[] {
  const kept = Array.from(parameter("E"), (e) => e !== 0);
  return kept.includes(true) ? kept : kept.map((_, k) => k === 0);
}

/** The factors without what was pruned. */
function left(values: AdapterValues): { rank: number; a: Float32Array; b: Float32Array; e: Float32Array } {
  const [kept, { rank, inFeatures }] = [keptOf(values), values.layer];
  const { parameter } = values;
  return {
    rank: kept.filter(Boolean).length,
    a: parameter("A").filter((_, i) => kept[Math.floor(i / inFeatures)]),
    b: parameter("B").filter((_, i) => kept[i % rank]),
    e: parameter("E").filter((_, i) => kept[i]),
  };
}

/** diag(e) a of a [rank, in]. */
function timesValues(a: Float32Array, e: Float32Array): Float32Array {
  const inFeatures = a.length / e.length;
  return a.map((value, i) => value * e[Math.floor(i / inFeatures)]!);
}

/** The sum of tensors of one shape. */
function sum(tensors: readonly Tensor[]): Tensor {
  let level = tensors;
  while (level.length > 1) {
    level = Array.from({ length: Math.ceil(level.length / 4) }, (_, i) => {
      const some = level.slice(4 * i, 4 * i + 4);
      return combine(some, some.map(() => 1));
    });
  }
  return level[0]!;
}
