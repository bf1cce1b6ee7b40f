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
  noOptions,
  type RowLoss,
  select,
} from "../registry/contract.ts";
import type { Evaluation } from "./measure.ts";

const common = { version: "1.0.0", contract: CONTRACT_VERSION, options: noOptions };

/** KL(q || p). */
const reverseKl = defineDivergence({
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
const agreement = defineDivergence({
  ...common,
  id: "top-1-agreement",
  value({ studentLogit, teacherLogit, max }) {
    const isFirst = studentLogit.equalTo(max(studentLogit)).and(teacherLogit.equalTo(max(teacherLogit)));
    return max(select(isFirst, 1, 0));
  },
});

/** Share of positions whose likeliest token is the label. */
const accuracy = defineDivergence({
  ...common,
  id: "top-1-accuracy",
  value: ({ studentLogit, max, atLabel }) => select(atLabel(studentLogit).equalTo(max(studentLogit)), 1, 0),
});

/** Tokens of each model that are compared. */
const OVERLAP = 5;

/**
 * Overlap rate of both models' k likeliest tokens (arXiv 2409.12545). Equal logits share a place.
 */
const overlap: RowLoss = defineLoss({
  ...common,
  id: `top-${OVERLAP}-overlap`,
  needsTeacher: true,
  wgsl: () => `
    fn $lowest(ofTeacher: bool) -> f32 {
      var before = 3.0e38;
      for (var place = 0u; place < ${OVERLAP}u; place++) {
        var next = -3.0e38;
        for (var v = lane; v < row_vocabulary; v += LANES) {
          var z = student(v);
          if (ofTeacher) { z = teacher(v); }
          if (z < before) { next = max(next, z); }
        }
        before = row_max(next);
      }
      return before;
    }
    fn $value() -> f32 {
      let lowest = vec2<f32>($lowest(false), $lowest(true));
      var both = 0.0;
      for (var v = lane; v < row_vocabulary; v += LANES) {
        if (student(v) >= lowest.x && teacher(v) >= lowest.y) { both += 1.0; }
      }
      return min(1.0, row_sum(both) / f32(min(${OVERLAP}u, row_vocabulary)));
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 { return 0.0; }`,
  reference({ student, teacher }) {
    const count = Math.min(OVERLAP, student.length);
    const favourites = (logits: Float64Array) => {
      const places = [...new Set(logits)].filter((z) => z > -3e38).sort((a, b) => b - a).slice(0, count);
      return [...logits.keys()].filter((v) => places.includes(logits[v]!));
    };
    const wanted = new Set(favourites(teacher));
    const shared = favourites(student).filter((v) => wanted.has(v)).length;
    return { value: Math.min(1, shared / count), gradient: new Float64Array(student.length) };
  },
});

/**
 * Consistency rate: share of the first k places, by falling logit, at which both models have the same token. The paper
 * (arXiv 2409.12545) names such a rate; that it compares places is our reading. At equal logits the lower id comes first.
 */
const consistency: RowLoss = defineLoss({
  ...common,
  id: `top-${OVERLAP}-consistency`,
  needsTeacher: true,
  wgsl: () => `
    // The entry after \`last\` by falling logit, at equal ones by rising id.
    fn $next(last: vec2<f32>, lastId: vec2<u32>, isFirst: bool) -> array<u32, 2> {
      var top = vec2<f32>(-3.0e38);
      var at = vec2<u32>(0xffffffffu);
      for (var v = lane; v < row_vocabulary; v += LANES) {
        let z = vec2<f32>(student(v), teacher(v));
        let follows = isFirst || z.x < last.x || (z.x == last.x && v > lastId.x);
        if (follows && z.x > top.x) { top.x = z.x; at.x = v; }
        let teacherFollows = isFirst || z.y < last.y || (z.y == last.y && v > lastId.y);
        if (teacherFollows && z.y > top.y) { top.y = z.y; at.y = v; }
      }
      let highest = vec2<f32>(row_max(top.x), row_max(top.y));
      let own = select(vec2<u32>(0xffffffffu), at, top == highest);
      return array<u32, 2>(row_min_u32(own.x), row_min_u32(own.y));
    }
    fn $value() -> f32 {
      let places = min(${OVERLAP}u, row_vocabulary);
      var same = 0.0;
      var last = vec2<f32>(0.0);
      var lastId = vec2<u32>(0u);
      for (var place = 0u; place < places; place++) {
        let next = $next(last, lastId, place == 0u);
        if (next[0] == next[1] && next[0] != 0xffffffffu) { same += 1.0; }
        lastId = vec2<u32>(next[0], next[1]);
        let found = min(lastId, vec2<u32>(row_vocabulary - 1u));
        // After the last finite logit nothing follows.
        let ended = lastId == vec2<u32>(0xffffffffu);
        last = select(vec2<f32>(student(found.x), teacher(found.y)), vec2<f32>(-3.0e38), ended);
      }
      return same / f32(places);
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 { return 0.0; }`,
  reference({ student, teacher }) {
    const places = Math.min(OVERLAP, student.length);
    const order = (logits: Float64Array) =>
      [...logits.keys()].filter((v) => logits[v]! > -3e38).sort((a, b) => logits[b]! - logits[a]! || a - b);
    const [own, target] = [order(student), order(teacher)];
    const same = own.slice(0, places).filter((v, place) => v === target[place]).length;
    return { value: same / places, gradient: new Float64Array(student.length) };
  },
});

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
