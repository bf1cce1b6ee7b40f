/**
 * What is measured beside the losses on held-out samples: how near the student is to the teacher, and how well its confidence
 * fits. Part of evaluation blocks only, so a training step costs nothing more.
 *
 * All are written as losses whose value alone is used, at temperature 1.
 *
 * @module
 */
import {
  constant,
  CONTRACT_VERSION,
  defineDivergence,
  defineLoss,
  type Divergence,
  NO_ENTRY,
  noOptions,
  type RowLoss,
  select,
  topEntries,
  topIds,
} from "../../registry/contract.ts";

const common = { version: "1.0.0", contract: CONTRACT_VERSION, options: noOptions };

/** KL(q || p). */
export const reverseKl: Divergence = defineDivergence({
  ...common,
  id: "reverse-kl",
  term: ({ q, logP, logQ }) => q.mul(logQ.sub(logP)),
});

const teacherEntropy = defineDivergence({
  ...common,
  id: "teacher-entropy",
  term: ({ p, logP }) => p.mul(logP).neg(),
});

const studentEntropy = defineDivergence({
  ...common,
  id: "student-entropy",
  term: ({ q, logQ }) => q.mul(logQ).neg(),
});

/** Share of positions whose likeliest token is the same for both models. */
export const agreement: Divergence = defineDivergence({
  ...common,
  id: "top-1-agreement",
  value({ studentLogit, teacherLogit, max }) {
    const isFirst = studentLogit.equalTo(max(studentLogit)).and(teacherLogit.equalTo(max(teacherLogit)));
    return max(select(isFirst, 1, 0));
  },
});

/** Share of positions whose likeliest token is the label. */
export const accuracy: Divergence = defineDivergence({
  ...common,
  id: "top-1-accuracy",
  value: ({ studentLogit, max, atLabel }) => select(atLabel(studentLogit).equalTo(max(studentLogit)), 1, 0),
});

/** Tokens of each model that are compared; at equal logits the lower id is the likelier. */
const FAVOURITES = 5;

/** A monitor over the ids of both models' k likeliest tokens, `$ids_student` and `$ids_teacher`; a rate of `most` at the most. */
function ofFavourites(
  id: string,
  k: number,
  most: string,
  rate: string,
  inF64: (own: number[], target: number[], vocabulary: number) => number,
): RowLoss {
  return defineLoss({
    ...common,
    id,
    needsTeacher: true,
    wgsl: () => `
      ${topEntries("student", k)}
      ${topEntries("teacher", k)}
      fn $value() -> f32 {
        $find_student();
        $find_teacher();
        var count = 0.0;
        ${rate}
        return count / f32(${most});
      }
      fn $gradient(v: u32, z: f32, t: f32) -> f32 { return 0.0; }`,
    reference: ({ student, teacher }) => ({
      value: inF64(topIds(student, k), topIds(teacher, k), student.length),
      gradient: new Float64Array(student.length),
    }),
  });
}

/** Overlap rate: share of one model's k likeliest tokens that are among the other's (arXiv 2409.12545). */
export function topOverlap(k: number): RowLoss {
  return ofFavourites(
    `top-${k}-overlap`,
    k,
    `min(${k}u, row_vocabulary)`,
    `for (var i = 0u; i < ${k}u; i++) {
      for (var j = 0u; j < ${k}u; j++) {
        if ($ids_student[i] == $ids_teacher[j] && $ids_student[i] != ${NO_ENTRY}) { count += 1.0; }
      }
    }`,
    (own, target, vocabulary) => own.filter((v) => target.includes(v)).length / Math.min(k, vocabulary),
  );
}

/** Whether the target's likeliest token is among the learner's k likeliest. */
export function teacherFirstAmong(k: number): RowLoss {
  return ofFavourites(
    `teacher-first-in-top-${k}`,
    k,
    "1u",
    `for (var i = 0u; i < ${k}u; i++) {
      if ($ids_student[i] == $ids_teacher[0] && $ids_student[i] != ${NO_ENTRY}) { count += 1.0; }
    }`,
    (own, [first]) => (own.includes(first!) ? 1 : 0),
  );
}

/** The probability of the likeliest token. */
export const confidence: Divergence = defineDivergence({
  ...common,
  id: "confidence",
  value: ({ logQ, max }) => max(logQ).exp(),
});

const overlap = topOverlap(FAVOURITES);

/**
 * Consistency rate: share of the first k places, by falling logit, at which both models have the same token. The paper
 * (arXiv 2409.12545) names such a rate; that it compares places is our reading.
 */
const consistency = ofFavourites(
  `top-${FAVOURITES}-consistency`,
  FAVOURITES,
  `min(${FAVOURITES}u, row_vocabulary)`,
  `for (var i = 0u; i < ${FAVOURITES}u; i++) {
    if ($ids_student[i] == $ids_teacher[i] && $ids_student[i] != ${NO_ENTRY}) { count += 1.0; }
  }`,
  (own, target, vocabulary) =>
    own.filter((v, place) => v === target[place]).length / Math.min(FAVOURITES, vocabulary),
);

/** Bins of equal width that confidences are sorted into. */
const BINS = 15;

/**
 * Confidence (the probability of the likeliest token) less correctness, of positions whose confidence lies in one bin.
 *
 * From the sums over all positions follows the calibration error: see {@linkcode withCalibrationError}.
 */
const calibrationGaps: Divergence[] = Array.from({ length: BINS }, (_, bin) =>
  defineDivergence({
    ...common,
    id: `calibration-gap-${bin}`,
    value({ logQ, studentLogit, max, atLabel }) {
      const confidence = max(logQ).exp();
      const correct = select(atLabel(studentLogit).equalTo(max(studentLogit)), 1, 0);
      const above = bin === 0 ? constant(1) : select(confidence.greaterThan(bin / BINS), 1, 0);
      // Rounding may give a confidence above 1.
      const below = bin === BINS - 1 ? constant(1) : select(confidence.lessOrEqual((bin + 1) / BINS), 1, 0);
      return confidence.sub(correct).mul(above).mul(below);
    },
  }));

/** Mean losses over some samples, nats a token. */
export interface Evaluation {
  /** Each over the tokens that it counts; a loss that counts none of them is not there. */
  readonly losses: Readonly<Record<string, number>>;
  /** Supervised tokens. */
  readonly tokens: number;
}

/** Every monitor, by the key under which it is reported; the calibration's bins still apart. */
export const MONITORS: readonly (Divergence | RowLoss)[] = [
  reverseKl,
  teacherEntropy,
  studentEntropy,
  agreement,
  accuracy,
  overlap,
  consistency,
  ...calibrationGaps,
];

/**
 * Puts `expected-calibration-error` in the place of the bins: sum over bins of |mean gap|, weighted by the bin's share (Guo et al.,
 * arXiv 1706.04599; 15 bins of equal width).
 */
export function withCalibrationError(evaluation: Evaluation): Evaluation {
  const losses: Record<string, number> = {};
  let error: number | undefined;
  for (const [name, value] of Object.entries(evaluation.losses)) {
    if (name.startsWith("calibration-gap-")) error = (error ?? 0) + Math.abs(value);
    else losses[name] = value;
  }
  if (error !== undefined) losses["expected-calibration-error"] = error;
  return { ...evaluation, losses };
}
