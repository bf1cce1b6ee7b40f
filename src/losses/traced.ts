/**
 * The losses of an objective that work on rows of logits, traced together: what the kernel and its f64 reference are both made of.
 *
 * @module
 */
import { constant, type Expression, flag, mul, select, stepScalar } from "../tensor/expr/mod.ts";
import type { StepScalar } from "../tensor/graph.ts";
import type { SizeWord } from "../tensor/op.ts";
import type { Divergence, RowLoss } from "./contract.ts";
import { PluginError } from "../base/plugin.ts";
import { RowProgram, symbolicOptions } from "./row_program.ts";
import { ROW, type Statistic } from "./row_leaves.ts";
import { ensureCacheable, looksAtTarget, type SparseTarget } from "./sparse_target.ts";

/** A loss of an objective, its options checked. */
export interface ResolvedLoss {
  readonly loss: Divergence | RowLoss;
  /** Options as its schema gives them, defaults included; of scheduled ones the value at the start. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Unique in the objective; step scalars are called `NAME.weight`, `NAME.temperature`, `NAME.OPTION`. */
  readonly name: string;
  /** Factor of its gradient; a step scalar, so it may change at every step. */
  readonly weight: number;
  /** Divides the logits of both models. Exactly 1 shares one softmax with all others at 1. */
  readonly temperature: number;
  /** The temperature may change at every step. */
  readonly temperatureVaries?: boolean;
  /** Only its value is wanted: no gradient, no weight. */
  readonly monitor?: boolean;
  /** Which of the row's token masks says whether it counts here, from 0 (default) to 31; for kernels with token masks. */
  readonly tokenMask?: number;
  /** The mask over whose positions its mean is; `tokenMask` when absent. */
  readonly countMask?: number;
}

/** A kernel for the losses of an objective, one row of logits a workgroup. */
export interface RowLossKernel {
  /** For profiles: the losses and the variant. */
  readonly label: string;
  /**
   * Bindings of group 0: labels i32 [R]; token masks i32 [R], only if the shape has them; target logits f32 [R, stride], only if
   * `needsTeacher`; learner logits f32 [R, V], read, and unless compiled for evaluation overwritten with the gradient of sum_k weight_k D_k; values f32 [K, R].
   *
   * If `needsCache`, in the place of target logits: ids u32 [R, K], {@linkcode NO_TOKEN} where there are fewer; their logits, or of
   * samples the logarithms of their weights, f32 [R, K]; and, but for samples, f32 [R, C]: log sum exp((z - m) / temperature) over all
   * other entries, m the largest of the K logits, a column for each of the target's temperatures. The learner's logits are then
   * written meanwhile in evaluation too.
   *
   * If `memoryWords` is not 0, last: u32 [groups, memoryWords], for as many rows as one dispatch does.
   */
  readonly wgsl: string;
  /** K: one value per loss in the given order, unweighted. */
  readonly valueCount: number;
  /** Names of the step scalars whose indices `size` contains, in order. */
  readonly scalars: readonly string[];
  readonly needsTeacher: boolean;
  readonly needsCache: boolean;
  /** Words of memory that a row's losses need while it is done; 0 for most losses. */
  readonly memoryWords: number;
  /** Words of the size struct for R rows, of which a dispatch does those from `first` to before `end`: all, unless it is told. */
  size(rows: number, scalar: (name: string) => StepScalar, part?: RowRange): SizeWord[];
  /** Workgroups for as many rows as a dispatch does, to be folded with `grid`. */
  groups(rows: number): number;
  /** Bytes that it moves for so many rows that all count; losses that sort or search a row move more. */
  readonly traffic: (rows: number) => number;
}

/** Rows from `first` to before `end`. */
export interface RowRange {
  readonly first: number;
  readonly end: number;
}

/** What {@linkcode compileRowLoss} makes a kernel for. */
export interface RowLossShape {
  /** Entries of a learner's row, V. */
  readonly vocabulary: number;
  /** Entries from one row of the target to the next, where its vocabulary is padded further; entries from V on are ignored. */
  readonly paddedTeacherVocabulary?: number;
  /**
   * Whether each row comes with a word of token masks, bit m of it for mask m: a loss counts where the bit of its mask is set, and a row
   * where none is set is skipped. A label of -100 then only says that there is no label. Without, a row counts where it has a label.
   */
  readonly tokenMasks?: boolean;
  /** Makes a kernel for a cached target instead of the target's logits. */
  readonly sparseTarget?: SparseTarget;
}

/** What looks at a cached target: statistics and gradient over K + 1 entries. */
export interface SupportProgram {
  readonly target: SparseTarget;
  readonly statistics: readonly Statistic[];
  /** d/dz of the weighted sum of its divergences at a temperature, by the temperature's number. */
  readonly gradients: ReadonlyMap<number, Expression>;
}

/** Losses with one temperature, so one softmax. */
export interface TemperatureGroup {
  readonly temperature: number;
  /** Step scalar that holds it; absent where it is 1 for good. */
  readonly scalar: string | undefined;
}

/** All that a kernel or the reference computes. */
export interface TracedObjective {
  readonly groups: readonly TemperatureGroup[];
  readonly statistics: readonly Statistic[];
  /** One for each divergence, by its place in the objective. */
  readonly values: ReadonlyMap<number, Expression>;
  /** d/dz of the weighted sum of all divergences over the vocabulary. */
  readonly gradient: Expression;
  /** Those over a cached target; absent where the target has all logits or nothing looks at it. */
  readonly support?: SupportProgram;
  /** Level-2 losses with their place in the objective and their temperature's number. */
  readonly rowLosses: readonly {
    readonly term: ResolvedLoss;
    readonly index: number;
    readonly group: number;
  }[];
  /** Whether each loss counts by its token mask, a flag of the row. */
  readonly tokenMasks: boolean;
}

/** Name of a loss's step scalar. */
function scalarName(term: ResolvedLoss, what: string): string {
  return `${term.name}.${what}`;
}

/**
 * Traces all losses of an objective together, so that equal statistics are computed once.
 *
 * @param rows Whether rows have token masks, and what their target is where it comes from a cache
 * @throws {PluginError} naming a loss that the cache cannot serve
 */
export function traceObjective(
  terms: readonly ResolvedLoss[],
  rows: Pick<RowLossShape, "tokenMasks" | "sparseTarget"> = {},
): TracedObjective {
  const { tokenMasks = false, sparseTarget: target } = rows;
  const groups: TemperatureGroup[] = [];
  const varying = new Set<TemperatureGroup>();
  const groupOf = (term: ResolvedLoss): number => {
    const { temperature, temperatureVaries } = term;
    const known = groups.findIndex((g) =>
      !temperatureVaries && g.temperature === temperature && !varying.has(g)
    );
    if (known >= 0) return known;
    const fixedAtOne = temperature === 1 && !temperatureVaries;
    const group = { temperature, scalar: fixedAtOne ? undefined : scalarName(term, "temperature") };
    if (temperatureVaries) varying.add(group);
    return groups.push(group) - 1;
  };
  const program = new RowProgram();
  const support = new RowProgram("support", constant((target?.entries ?? 0) + 1));
  const gradients = new Map<number, Expression>();
  const values = new Map<number, Expression>();
  const rowLosses: { term: ResolvedLoss; index: number; group: number }[] = [];
  let gradient: Expression = constant(0);
  terms.forEach((term, index) => {
    if (target) ensureCacheable(term.loss, term.options, target);
    const group = groupOf(term);
    if (term.loss.kind === "row-loss") {
      rowLosses.push({ term, index, group });
      return;
    }
    const options = symbolicOptions(term.loss.scheduled ?? [], term.options, (o) => scalarName(term, o));
    const cached = target !== undefined && looksAtTarget(term.loss, term.options);
    if (cached) ensureKnownTemperature(term, target);
    const traced = (cached ? support : program)
      .trace(term.loss, options, group, groups[group]!.scalar !== undefined);
    values.set(index, traced.value);
    const weighted = term.monitor
      ? constant(0)
      : mul(stepScalar(scalarName(term, "weight")), traced.gradient);
    // Chosen, not multiplied: what is masked may be infinite.
    const own = tokenMasks ? select(flag(ROW.inMask(term.tokenMask ?? 0)), weighted, 0) : weighted;
    if (cached) gradients.set(group, own.add(gradients.get(group) ?? 0));
    else gradient = gradient.add(own);
  });
  return {
    ...{ groups, statistics: program.statistics, values, gradient, rowLosses, tokenMasks },
    ...(target && gradients.size > 0
      ? { support: { target, statistics: support.statistics, gradients } }
      : {}),
  };
}

function ensureKnownTemperature(term: ResolvedLoss, { kind, temperatures }: SparseTarget): void {
  if (kind === "samples" || (!term.temperatureVaries && temperatures.includes(term.temperature))) return;
  throw new PluginError(
    term.loss.id,
    term.temperatureVaries
      ? "its temperature changes from step to step; a cache is made for given temperatures"
      : `its temperature is ${term.temperature}; the cache was made for ${temperatures.join(", ")}`,
    { hint: "Give the loss a temperature that does not change, or do without a cache." },
  );
}

/** The step scalars of an objective with their values at the start. */
export function initialScalars(terms: readonly ResolvedLoss[]): Map<string, number> {
  const values = new Map<string, number>();
  for (const term of terms) {
    if (!term.monitor) values.set(scalarName(term, "weight"), term.weight);
    values.set(scalarName(term, "temperature"), term.temperature);
    for (const option of term.loss.scheduled ?? []) {
      values.set(scalarName(term, option), Number(term.options[option]));
    }
  }
  return values;
}
