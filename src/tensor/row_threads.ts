/**
 * How many threads make a row of a kernel that gives each row a workgroup.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import type { TemplateConstants } from "../gpu/template.ts";

/** Units that a thread takes before a row gets more threads. */
const UNITS_EACH = 4;
/** Units of a row that a thread can keep: 32 registers, of which backward passes need two sets. */
const MOST_HELD = 8;

/** See {@linkcode rowThreads}. */
export interface RowThreads {
  readonly subgroup: boolean;
  readonly threads: number;
  /** Units of the row that each thread keeps in registers, so that it is read once; 0 where the row is too long. */
  readonly held: number;
  /** What `include/row_sum.wgsl` and the kernels that use it are expanded with. */
  readonly constants: TemplateConstants;
}

/**
 * The threads of a row: one subgroup on software devices; elsewhere 64, 128 or 256, the fewest that have no more than four units each. A unit
 * is what a thread reads at once: four elements where the width is a multiple of four, else one.
 *
 * @param units In a row
 */
export function rowThreads(units: number, device: DeviceDescription): RowThreads {
  if (device.family === "subgroup8") {
    return {
      ...{ subgroup: true, threads: 8, held: 0 },
      constants: { SUBGROUP: true, THREADS: 8, LEVELS: 0, HELD: 0 },
    };
  }
  const most = [64, 128, 256].filter((n) => n <= device.maxInvocations);
  const threads = most.find((n) => units <= UNITS_EACH * n) ?? most.at(-1)!;
  const each = Math.ceil(units / threads);
  const held = each <= MOST_HELD ? each : 0;
  return {
    ...{ subgroup: false, threads, held },
    constants: { SUBGROUP: false, THREADS: threads, LEVELS: Math.log2(threads), HELD: held },
  };
}
