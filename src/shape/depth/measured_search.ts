/**
 * A search over subsets that are measured on the GPU and remembered on disk.
 *
 * @module
 */
import type { Model } from "../../distill/inputs/models.ts";
import { openGpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { type Calibration, calibrationSizes } from "./calibration.ts";
import { type DepthFindings, type DepthGoal, type DepthProgress, searchDepth } from "./depth_search.ts";
import { EvaluationCache, type SubsetValues } from "./evaluation_cache.ts";
import { type DepthMetric, MEASURED, measureSubset, valueOf } from "./metrics.ts";
import { SubsetEvaluator } from "./subset_evaluator.ts";
import { SubsetProgram } from "./subset_program.ts";

/** What is searched for, and with what. */
export interface MeasuredSearch {
  readonly metric: DepthMetric;
  readonly goal: DepthGoal;
  /** Folder of what has been measured; see {@linkcode EvaluationCache}. */
  readonly cacheFolder: string;
  readonly registry: Registry;
  readonly onProgress?: (progress: SearchProgress) => void;
  /** Aborting it ends the search; what was measured is kept. */
  readonly signal?: AbortSignal;
}

/** How far a search is. */
export interface SearchProgress extends DepthProgress {
  /** Whether its newest evaluation was remembered. */
  readonly reused: boolean;
  /** Tokens of the samples: those that went through the model where it was not. */
  readonly tokens: number;
}

/** What a search finds, and what it looked at. */
export interface MeasuredFindings {
  readonly findings: DepthFindings;
  /** Supervised tokens; of questions those of all choices. */
  readonly tokens: number;
  readonly cache: { readonly path: string; readonly reused: number };
}

/**
 * Searches. What one search has measured another on the same model, data and metric need not measure.
 *
 * @param identity Hash of the model's weights and config
 * @throws {InputError} for a goal that cannot be reached
 */
export async function measuredSearch(
  { model, identity }: { readonly model: Model; readonly identity: string },
  data: Calibration,
  options: MeasuredSearch,
): Promise<MeasuredFindings> {
  const { metric, goal, registry } = options;
  const { layers, vocabularySize } = model.config;
  const open = (metric: DepthMetric) =>
    EvaluationCache.open(options.cacheFolder, {
      ...{ model: identity, data: data.identity, metric: MEASURED[metric] },
    });
  const cache = await open(metric);
  const gpu = await openGpu();
  let program: SubsetProgram | undefined;
  try {
    const sizes = calibrationSizes(data, vocabularySize, gpu.description);
    program = await SubsetProgram.create(gpu, model, registry, sizes);
    const evaluator = new SubsetEvaluator(program, layers, data.samples, { signal: options.signal });
    let reused = 0;
    let isReused = false;
    const tokens = data.samples.reduce((sum, { ids }) => sum + ids.length, 0);
    const findings = await searchDepth(
      {
        layers,
        async measure(kept) {
          const known = cache.get(kept);
          isReused = known !== undefined;
          if (known) {
            reused++;
            return known;
          }
          const values = await measureSubset(evaluator, data, metric, kept);
          cache.add(kept, values);
          return values;
        },
        valueOf: (values) => valueOf(values, metric),
        cosines: () => evaluator.cosines(),
      },
      goal,
      (progress) => options.onProgress?.({ ...progress, reused: isReused, tokens }),
    );
    return {
      findings: metric === "loss"
        ? await withDivergences(findings, evaluator, data, await open("kl"))
        : findings,
      tokens: evaluator.supervised,
      cache: { path: cache.path, reused },
    };
  } finally {
    cache.close();
    program?.destroy();
    gpu.destroy();
  }
}

/** Measures the divergence too of the plans that are told of. */
async function withDivergences(
  findings: DepthFindings,
  evaluator: SubsetEvaluator,
  data: Calibration,
  cache: EvaluationCache,
): Promise<DepthFindings> {
  const more = async <P extends { kept: readonly number[]; values: SubsetValues }>(plan: P): Promise<P> => {
    let values = cache.get(plan.kept);
    if (!values) cache.add(plan.kept, values = await measureSubset(evaluator, data, "kl", plan.kept));
    return { ...plan, values: { ...plan.values, kl: values.kl ?? null } };
  };
  try {
    const others = [];
    const [full, plan] = [await more(findings.full), await more(findings.plan)];
    for (const other of findings.others) others.push(await more(other));
    return { ...findings, full, plan, others };
  } finally {
    cache.close();
  }
}
