/**
 * DistiLLM-2's curriculum for the share lambda of the skew divergences: the nearer the student comes to the teacher on a text, the
 * nearer the divergence to plain KL.
 *
 * Ko et al., "DistiLLM-2", arXiv 2503.07067: alpha = 1 - (1 - alpha0) m / (gap + 1e-5), kept within [0.01, alpha0], where gap is the
 * difference of both models' probability of a response (the geometric mean over its tokens) and m its mean at the start. Formula and
 * bounds are those of the paper's code, which leaves the rule switched off. There each response has its own alpha in the very
 * step. Ours: one alpha a step, from the tokens of all samples that the loss counts in the step before, with m from the first step.
 *
 * @module
 */
import {
  CONTRACT_VERSION,
  type Controller,
  defineDivergence,
  type Divergence,
  noOptions,
} from "../../src/registry/contract.ts";

const common = { version: "1.0.0", contract: CONTRACT_VERSION, options: noOptions };

/** log p of the label. */
const teacherLikelihood: Divergence = defineDivergence({
  ...common,
  id: "teacher-log-likelihood",
  value: ({ logP, atLabel }) => atLabel(logP),
});

/** log q of the label. */
const studentLikelihood: Divergence = defineDivergence({
  ...common,
  id: "student-log-likelihood",
  value: ({ logQ, atLabel }) => atLabel(logQ),
});

/** What the options of a loss with the curriculum have in common. */
interface CurriculumOptions {
  readonly lambda: number;
  readonly curriculum: boolean;
}

const LOWEST = 0.01;

/**
 * The curriculum of a loss.
 *
 * @param wroteIt The model whose responses the loss is for: the gap is its probability less the other's
 */
export function skewCurriculum(wroteIt: "teacher" | "student"): Controller<CurriculumOptions> {
  const [own, other] = wroteIt === "teacher"
    ? [teacherLikelihood, studentLikelihood]
    : [studentLikelihood, teacherLikelihood];
  return {
    sets: ["lambda"],
    measures: [own, other],
    start: ({ lambda, curriculum }) => curriculum ? { lambda, first: null } : undefined,
    next({ first }, { measured }, { lambda }) {
      const probability = ({ id }: Divergence) => Math.exp(Math.min(0, measured[id]!));
      const gap = probability(own) - probability(other);
      const start = first ?? gap;
      const wanted = 1 - (1 - lambda) * start / (gap + 1e-5);
      return { lambda: Math.min(lambda, Math.max(LOWEST, wanted)), first: start };
    },
    values: ({ lambda }) => ({ lambda: lambda! }),
    heldOut: ({ lambda }) => ({ lambda }),
  };
}
