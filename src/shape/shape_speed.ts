/**
 * How fast shapes of a model are, measured.
 *
 * @module
 */
import { Model } from "../distill/inputs/models.ts";
import type { WidthCut } from "../distill/inputs/width_cut.ts";
import { openGpu } from "../gpu/device.ts";
import type { Registry } from "../registry/registry.ts";
import { type Calibration, calibrationSizes } from "./depth/calibration.ts";
import { type SubsetEvaluator, withEvaluator } from "./depth/subset_evaluator.ts";
import { without } from "./depth/subsets.ts";
import type { MeasuredShape } from "./shapes.ts";

/** Shapes are timed in turns, so that whatever else the machine does slows all alike. */
const TURNS = 5;
/** Seconds that a turn lasts at the least: waiting for the GPU takes up to a hundredth. */
const SHORTEST = 0.1;

/** What speeds are measured with. */
export interface SpeedOptions {
  readonly registry: Registry;
  readonly onStage?: (message: string) => void;
  /** Told how many turns of how many are done. */
  readonly onTimed?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
  /** Seconds that a turn lasts at the least; a tenth when absent. */
  readonly shortest?: number;
}

/**
 * Tokens a second of each shape, forward with the head over one full batch of the calibration samples: the median of several turns, after
 * some that warm up and do not count.
 *
 * @param model The whole model
 * @param cutOf The cut of a shape that has a width
 */
export async function measureSpeeds(
  model: Model,
  data: Calibration,
  shapes: readonly MeasuredShape[],
  cutOf: (shape: MeasuredShape) => WidthCut,
  { registry, onStage = () => {}, onTimed = () => {}, signal, shortest = SHORTEST }: SpeedOptions,
): Promise<{ speeds: Map<MeasuredShape, number>; adapter: string }> {
  const gpu = await openGpu();
  const found = new Map<MeasuredShape, number>();
  let turns = 0;
  // Warming up is the first turn of each.
  const turned = () => onTimed(++turns, shapes.length * (1 + TURNS));
  try {
    const sizes = calibrationSizes(data, model.config.vocabularySize, gpu.description);
    const subsets = shapes.filter(({ width }) => width === undefined);
    if (subsets.length > 0) {
      onStage(`timing ${subsets.length} shapes`);
      const speeds = await withEvaluator(
        gpu,
        model,
        registry,
        sizes,
        data.samples,
        (evaluator) => timed(evaluator, subsets.map(({ layers }) => layers), shortest, turned),
        { signal },
      );
      subsets.forEach((shape, i) => found.set(shape, speeds[i]!));
    }
    for (const shape of shapes.filter(({ width }) => width !== undefined)) {
      onStage(`timing the width ${shape.width} of ${shape.layers.length} layers`);
      const narrow = await Model.open(
        model.path,
        { category: "weights", layers: shape.layers, width: cutOf(shape) },
        model.architecture.further,
      );
      try {
        const all = without(narrow.config.layers, []);
        const time = (evaluator: SubsetEvaluator) => timed(evaluator, [all], shortest, turned);
        const [speed] = await withEvaluator(gpu, narrow, registry, sizes, data.samples, time, { signal });
        found.set(shape, speed!);
      } finally {
        narrow.close();
      }
    }
    return { speeds: found, adapter: gpu.description.name };
  } finally {
    gpu.destroy();
  }
}

async function timed(
  evaluator: SubsetEvaluator,
  subsets: readonly (readonly number[])[],
  shortest: number,
  turned: () => void,
): Promise<number[]> {
  const times: number[] = [];
  for (const kept of subsets) {
    let passes = 1;
    for (let taken = 0; taken < shortest; passes *= 2) taken = (await evaluator.passes(kept, passes)).seconds;
    times.push(passes / 2);
    turned();
  }
  const speeds: number[][] = subsets.map(() => []);
  for (let turn = 0; turn < TURNS; turn++) {
    for (const [i, kept] of subsets.entries()) {
      const { tokens, seconds } = await evaluator.passes(kept, times[i]!);
      speeds[i]!.push(tokens / seconds);
      turned();
    }
  }
  return speeds.map((of) => of.sort((a, b) => a - b)[(TURNS - 1) / 2]!);
}
