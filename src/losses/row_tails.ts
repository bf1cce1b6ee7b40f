/**
 * What the entries of a row outside of its K largest weigh, for caches of teachers: printed from the same sweep as training kernels,
 * so a learner equal to the teacher finds its own numbers equal to the last bit.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import { constant, type Expression, variable } from "../tensor/expr/mod.ts";
import type { StepScalar } from "../tensor/graph.ts";
import type { SizeWord } from "../tensor/op.ts";
import type { TracedObjective } from "./traced.ts";
import { printRowKernel } from "./kernel/row_kernel.ts";
import { tailOfLearner } from "./kernel/cached_target.ts";
import type { SparseTarget } from "./sparse_target.ts";

/** A kernel over rows of logits, one a workgroup. */
export interface TailKernel {
  readonly label: string;
  /**
   * Bindings of group 0: labels i32 [R], rows of -100 are skipped; ids u32 [R, K]; logits f32 [R, V], written meanwhile, left as they
   * were; tails f32 [C, R]: log sum exp((z - m) / temperature) over the other entries, m the row's largest logit.
   */
  readonly wgsl: string;
  /** Words of the size struct for R rows. */
  size(rows: number, scalar: (name: string) => StepScalar): SizeWord[];
}

/** Name of the step scalar that holds a temperature of a cache. */
export function cacheTemperature(temperature: number): string {
  return `cache.temperature.${temperature}`;
}

/** Compiles the kernel for C temperatures; those other than 1 are read from step scalars: {@linkcode cacheTemperature}. */
export function compileTails(
  target: SparseTarget,
  vocabulary: number,
  device: DeviceDescription,
): TailKernel {
  const groups = target.temperatures.map((temperature) => ({
    temperature,
    scalar: temperature === 1 ? undefined : cacheTemperature(temperature),
  }));
  const zero: Expression = constant(0);
  const traced: TracedObjective = {
    ...{ groups, statistics: [], gradient: zero, rowLosses: [], tokenMasks: false },
    values: new Map(groups.map((_, g) => [g, variable(tailOfLearner(g))])),
    support: { target, statistics: [], gradients: new Map(groups.map((_, g) => [g, zero])) },
  };
  const printed = printRowKernel([], traced, { vocabulary }, device, false);
  return {
    label: `rowTails ${target.entries}`,
    wgsl: printed.wgsl,
    size: (rows, scalar) => [rows, vocabulary, vocabulary, rows, 0, ...printed.scalars.map(scalar)],
  };
}
