/**
 * Targets as a cache has them: K entries of the teacher's row in the place of its whole vocabulary, and which losses can do with
 * that.
 *
 * A divergence that looks at the target is evaluated over K + 1 entries: the K of the cache, and one bucket that stands for all
 * others with P = sum p and Q = sum q over them. Its expression, its statistics and their derivatives are those of a vocabulary of
 * K + 1; what reaches the bucket's logarithm is handed on to the entries in it in proportion to q.
 *
 * @module
 */
import { derivative, type Expression, leaves, log, substitute, variable } from "../tensor/expr/mod.ts";
import type { Divergence, RowLoss } from "./contract.ts";
import { PluginError } from "../base/plugin.ts";
import { leavesOf, RowProgram, symbolicOptions } from "./row_program.ts";
import { ENTRY, ROW, type Statistic } from "./row_leaves.ts";

/** What a cache holds of a row. */
export interface SparseTarget {
  /**
   * `top-k`: the teacher's K largest logits, and for each temperature what the others weigh.
   * `samples`: weights of K tokens drawn from the teacher's distribution, whose sum is 1; the others weigh nothing (RS-KD,
   * Anshumann et al., arXiv 2503.16870).
   */
  readonly kind: "top-k" | "samples";
  /** K. */
  readonly entries: number;
  /** Temperatures for which a cache of kind `top-k` knows what the others weigh, in the order of its columns. */
  readonly temperatures: readonly number[];
}

/** No token: fills rows with fewer than K. */
export const NO_TOKEN = 0xffff_ffff;

/** In the place of the logarithm of an empty sum. Finite, because WGSL lets compilers assume that all numbers are. */
export const EMPTY_TAIL = -1e30;

/** Whether a loss looks at the teacher at all. */
export function looksAtTarget(
  loss: Divergence | RowLoss,
  options: Readonly<Record<string, unknown>>,
): boolean {
  if (loss.kind === "row-loss") return loss.needsTeacher;
  const found = leavesOf(loss, symbols(loss, options));
  return found.has(ENTRY.logP(0)) || found.has(ENTRY.teacher);
}

/** Why a loss cannot be had with a cached target, or undefined where it can. Losses that do not look at the target always can. */
export function cacheRefusal(
  loss: Divergence | RowLoss,
  options: Readonly<Record<string, unknown>>,
  { kind, entries }: Pick<SparseTarget, "kind" | "entries">,
): string | undefined {
  if (!looksAtTarget(loss, options)) return undefined;
  const needsAll = `it needs every logit of the teacher; a cache holds ${entries}`;
  if (loss.kind === "row-loss") return needsAll;
  const found = leavesOf(loss, symbols(loss, options));
  if (found.has(ENTRY.teacher) || found.has(ENTRY.student)) return needsAll;
  if (found.has(ROW.vocabulary)) return `${needsAll}, and the loss counts the entries of the vocabulary`;
  if (kind === "samples" && !isLinearInTarget(loss, options)) {
    return "its gradient is not linear in the teacher's probabilities, so a sample of them would bias it";
  }
  return undefined;
}

/** @throws {PluginError} naming a loss that cannot be had with this target */
export function ensureCacheable(
  loss: Divergence | RowLoss,
  options: Readonly<Record<string, unknown>>,
  target: SparseTarget,
): void {
  const reason = cacheRefusal(loss, options, target);
  if (!reason) return;
  throw new PluginError(loss.id, reason, {
    hint: target.kind === "samples"
      ? "Take forward-kl or soft-cross-entropy, cache the largest logits (topK), or do without a cache."
      : "Take a loss of probabilities, such as forward-kl, or do without a cache.",
  });
}

function symbols(loss: Divergence, options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return symbolicOptions(loss.scheduled ?? [], options, (name) => name);
}

/**
 * Whether the gradient of every logit is an affine function of the target's probabilities. Then its mean over samples whose mean is p
 * is the gradient with p.
 */
function isLinearInTarget(loss: Divergence, options: Readonly<Record<string, unknown>>): boolean {
  const program = new RowProgram();
  const { gradient } = program.trace(loss, symbols(loss, options), 0, false);
  const sees = (e: Expression): boolean =>
    leaves([e], "variable").some((name) => {
      const statistic = program.statistics.find((s: Statistic) => s.name === name);
      return name === ENTRY.logP(0) || name === "p" || (statistic !== undefined && sees(statistic.body));
    });
  const ofP = substitute(gradient, { numbers: new Map([[ENTRY.logP(0), log(variable("p"))]]) });
  const slope = derivative(ofP, "p");
  const statistics = program.statistics.filter((s) => leaves([gradient], "variable").includes(s.name));
  return !sees(slope) && !statistics.some((s) => sees(s.body));
}
