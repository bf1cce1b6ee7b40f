/**
 * The terms of an objective that compare groups of tokens of two tokenisations, each of which is a pass of its own over both heads.
 *
 * @module
 */
import { InputError } from "../../../base/errors.ts";
import { compileRowLoss } from "../../../losses/compile.ts";
import type { GroupLossShape, ResolvedGroupLoss } from "../../../losses/compile_group.ts";
import type { GroupRows } from "../../../losses/group_contract.ts";
import { looksAtTarget } from "../../../losses/sparse_target.ts";
import type { ResolvedLoss } from "../../../losses/traced.ts";
import type { Registry } from "../../../registry/registry.ts";
import type { Graph } from "../../../tensor/graph.ts";
import { LOSS_SUMS } from "../loss_sets.ts";
import type { RowLosses } from "../row_loss.ts";
import { isGroupTerm, isRowTerm, measures, type ResolvedTerm } from "../terms.ts";

/** The vocabularies of a student and of a teacher with a tokenizer of its own. */
export interface TwoVocabularies {
  /** Entries of the teacher's rows. */
  readonly teacherVocabulary: number;
  /** Tokens that stand for the same in both. */
  readonly matched: number;
}

/** A loss over groups in a step. */
export interface GroupPass {
  readonly term: ResolvedGroupLoss;
  /** The term alone, as sums are read. */
  readonly terms: readonly ResolvedGroupLoss[];
  readonly rows: GroupRows;
  readonly shape: GroupLossShape;
  readonly factors: { readonly student: FactorLosses; readonly teacher: FactorLosses };
  /** Name of the state with the sum of the loss in training steps. */
  readonly sums: string;
}

/** What the factors of a group loss are made of. */
export interface FactorLosses {
  /** Cross-entropy at the loss's temperature, with weight 1; its step scalars are set like any term's. */
  readonly term: ResolvedLoss;
  /** For the head of one model, of its own vocabulary. */
  rowLosses(graph: Graph): RowLosses;
}

/** The passes of an objective's losses over groups. */
export function groupPasses(
  registry: Registry,
  terms: readonly ResolvedGroupLoss[],
  vocabulary: number,
  aligned: TwoVocabularies | undefined,
): GroupPass[] {
  if (!aligned) return [];
  return terms.map((term, i) => ({
    ...{ term, terms: [term], rows: term.loss.rows(term.options) },
    shape: { vocabulary, ...aligned },
    factors: {
      student: factorLosses(registry, term, vocabulary),
      teacher: factorLosses(registry, term, aligned.teacherVocabulary),
    },
    sums: `${LOSS_SUMS.train}.groups.${i}`,
  }));
}

/**
 * A loss has to fit the tokenizers: one over groups needs `teacher.align`, and with it nothing else can compare the two models.
 *
 * @throws {InputError} naming the loss
 */
export function refuseUnaligned(
  term: ResolvedTerm,
  aligned: TwoVocabularies | undefined,
  where: string,
): void {
  if (isGroupTerm(term)) {
    if (aligned) return;
    throw new InputError(
      `"${term.loss.id}" compares groups of tokens of two tokenizers, but teacher.align is absent`,
      {
        where,
        hint:
          "Set teacher.align: {by: bytes}, or take a loss of one vocabulary, such as universal-logit or forward-kl.",
      },
    );
  }
  if (!aligned) return;
  const compares = isRowTerm(term)
    ? [term, ...measures(term)].some(({ loss, options }) => looksAtTarget(loss, options))
    : true;
  if (!compares) return;
  throw new InputError(
    `"${term.loss.id}" compares the two models position by position, which teacher.align rules out: their tokens are not the same`,
    {
      where,
      hint:
        "Take universal-logit-groups, hybrid-logit-groups or mapped-logit-groups, or a loss of the student alone, such as cross-entropy.",
    },
  );
}

/** The losses whose sums are the log scales of groups. */
export function factorLosses(
  registry: Registry,
  group: ResolvedGroupLoss,
  vocabulary: number,
): FactorLosses {
  const loss = registry.get("loss", "cross-entropy") as ResolvedLoss["loss"];
  const term = factorTerm(group, loss, registry.options(loss, {}, "objective"));
  return {
    term,
    rowLosses: (graph) => ({
      ...{ valueCount: 1, needsTarget: false, needsCache: false, tokenMasks: false },
      weights: [graph.scalar(`${term.name}.weight`)],
      compile: (device, gradient) => {
        const kernel = compileRowLoss([term], { vocabulary }, device, { gradient });
        const { label, wgsl, memoryWords, size, groups } = kernel;
        return {
          ...{ name: label, wgsl, memoryWords, groups },
          size: (rows, part) => size(rows, (name) => graph.scalar(name), part),
        };
      },
    }),
  };
}

function factorTerm(
  { name, temperature }: Pick<ResolvedGroupLoss, "name" | "temperature">,
  loss: ResolvedLoss["loss"],
  options: Record<string, unknown>,
): ResolvedLoss {
  return {
    ...{ loss, options, name: `${name} factors`, weight: 1, temperature, temperatureVaries: true },
  };
}

/** The step scalars of a loss over groups and of its factors, with their values. */
export function groupScalars({ name, weight, temperature }: ResolvedGroupLoss): Map<string, number> {
  return new Map([
    [`${name}.weight`, weight],
    [`${name}.temperature`, temperature],
    [`${name} factors.weight`, 1],
    [`${name} factors.temperature`, temperature],
  ]);
}
