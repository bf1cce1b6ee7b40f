/** Losses that are not part of the product (yet): they show that the contract carries them. Equations as in the goldens' README. */
import { z } from "zod";
import {
  abs,
  constant,
  CONTRACT_VERSION,
  defineDivergence,
  defineLoss,
  detach,
  exp,
  type Expression,
  log,
  LOG_FLOOR,
  logAddExp,
  noOptions,
  select,
} from "../../src/registry/contract.ts";

const common = { version: "1.0.0", contract: CONTRACT_VERSION };

/** log(share p + (1 - share) q) */
function mixture(share: Expression, logP: Expression, logQ: Expression): Expression {
  return logAddExp(log(share).add(logP), log(constant(1).sub(share)).add(logQ));
}

export const jensenShannon = defineDivergence({
  ...common,
  id: "test/jensen-shannon",
  options: z.strictObject({
    beta: z.number().min(0).max(1).default(0.5),
    normalize: z.boolean().default(false),
  }),
  term({ p, q, logP, logQ, options: { beta, normalize } }) {
    if (beta === 0) return p.mul(logP.sub(logQ));
    if (beta === 1) return q.mul(logQ.sub(logP));
    const logM = mixture(constant(beta), logP, logQ);
    const value = p.mul(logP.sub(logM)).mul(beta).add(q.mul(logQ.sub(logM)).mul(1 - beta));
    return normalize ? value.div(beta * (1 - beta)) : value;
  },
});

export const skewForward = defineDivergence({
  ...common,
  id: "test/skew-forward-kl",
  options: z.strictObject({ lambda: z.number().gt(0).lt(1).default(0.1) }),
  scheduled: ["lambda"],
  term: ({ p, logP, logQ, options: { lambda } }) => p.mul(logP.sub(mixture(lambda, logP, logQ))),
});

export const skewReverse = defineDivergence({
  ...common,
  id: "test/skew-reverse-kl",
  options: z.strictObject({
    lambda: z.number().gt(0).lt(1).default(0.1),
    stopGradient: z.boolean().default(false),
  }),
  scheduled: ["lambda"],
  term: ({ q, logP, logQ, options: { lambda, stopGradient } }) =>
    q.mul(logQ.sub(mixture(lambda.neg().add(1), logP, stopGradient ? detach(logQ) : logQ))),
});

export const softCrossEntropy = defineDivergence({
  ...common,
  id: "test/soft-cross-entropy",
  options: noOptions,
  term: ({ p, logQ }) => p.mul(logQ).neg(),
});

export const entropy = defineDivergence({
  ...common,
  id: "test/entropy",
  options: noOptions,
  term: ({ q, logQ }) => q.mul(logQ).neg(),
});

export const totalVariation = defineDivergence({
  ...common,
  id: "test/total-variation",
  options: noOptions,
  term: ({ p, q }) => abs(q.sub(p)).mul(0.5),
});

export const alpha = defineDivergence({
  ...common,
  id: "test/alpha",
  options: z.strictObject({ alpha: z.number() }),
  term({ p, q, logP, logQ, options: { alpha: a } }) {
    const joint = exp(logP.mul(a).add(logQ.mul(1 - a)));
    return joint.sub(p.mul(a)).sub(q.mul(1 - a)).div(a * (a - 1));
  },
});

export const alphaBeta = defineDivergence({
  ...common,
  id: "test/alpha-beta",
  options: z.strictObject({ alpha: z.number(), beta: z.number() }),
  term({ logP, logQ, options: { alpha: a, beta: b } }) {
    const joint = exp(logP.mul(a).add(logQ.mul(b)));
    const own = exp(logP.mul(a + b)).mul(a / (a + b)).add(exp(logQ.mul(a + b)).mul(b / (a + b)));
    return joint.sub(own).div(-a * b);
  },
});

/** BD-KD's pair of KLs, weighted by which model is surer; its cross-entropy is a loss of its own. */
export const biDirectional = defineDivergence({
  ...common,
  id: "test/bi-directional",
  options: z.strictObject({ delta: z.number().default(2) }),
  value({ p, q, logP, logQ, sum, options: { delta } }) {
    const surer = sum(q.mul(logQ)).lessThan(sum(p.mul(logP)));
    const forward = sum(p.mul(logP.sub(logQ)));
    const reverse = sum(q.mul(logQ.sub(logP)));
    return forward.mul(select(surer, 1, delta)).add(reverse.mul(select(surer, delta, 1)));
  },
});

export const taid = defineDivergence({
  ...common,
  id: "test/taid",
  options: z.strictObject({ t: z.number() }),
  scheduled: ["t"],
  term({ logP, logQ, logSumExp, options: { t } }) {
    const logits = logQ.detach().mul(t.neg().add(1)).add(logP.mul(t));
    return exp(logits.sub(logSumExp(logits))).mul(logQ).neg();
  },
});

export const decoupled = defineDivergence({
  ...common,
  id: "test/decoupled",
  options: z.strictObject({ target: z.number().default(1), others: z.number().default(2) }),
  value({ logP, logQ, isLabel, atLabel, sum, logSumExp, options: { target, others } }) {
    const [logPy, logQy] = [atLabel(logP), atLabel(logQ)];
    const rest = (x: Expression) => logSumExp(select(isLabel, LOG_FLOOR, x));
    const [restP, restQ] = [rest(logP), rest(logQ)];
    const binary = exp(logPy).mul(logPy.sub(logQy)).add(exp(restP).mul(restP.sub(restQ)));
    const among = sum(select(isLabel, 0, exp(logP.sub(restP)).mul(logP.sub(restP).sub(logQ.sub(restQ)))));
    return binary.mul(target).add(among.mul(others));
  },
});

export const centredMse = defineDivergence({
  ...common,
  id: "test/centred-mse",
  options: noOptions,
  value({ studentLogit, teacherLogit, sum, vocabulary }) {
    const difference = studentLogit.sub(teacherLogit);
    return sum(difference.sub(sum(difference).div(vocabulary)).square()).div(vocabulary);
  },
});

/** Forward KL weighted by the share of the gap that lies where p is large: statistics of statistics, detached. */
export const headWeighted = defineDivergence({
  ...common,
  id: "test/head-weighted",
  options: noOptions,
  value({ p, q, logP, logQ, sum, max }) {
    const isHead = logP.greaterThan(max(logP).sub(1));
    const gap = sum(abs(p.sub(q)));
    const head = sum(select(isHead, abs(p.sub(q)), 0)).div(gap.add(1e-6)).detach();
    return head.mul(sum(p.mul(logP.sub(logQ)))).add(head.neg().add(1).mul(sum(q.mul(logQ.sub(logP)))));
  },
});

/** Nothing is detached here: the gradient goes through a maximum, a look-up and a product of sums. */
export const entangled = defineDivergence({
  ...common,
  id: "test/entangled",
  options: z.strictObject({ strength: z.number().default(0.3) }),
  scheduled: ["strength"],
  value({ p, q, logP, logQ, studentLogit, sum, max, atLabel, options: { strength } }) {
    const reverse = sum(q.mul(logQ.sub(logP)));
    const centred = sum(q.mul(logQ.sub(reverse).square()));
    return centred.mul(strength).add(max(studentLogit).mul(atLabel(p))).add(reverse.mul(sum(p.mul(logQ))));
  },
});

/** Pairwise logistic ranking of the target's k favourites (ties: lower id first), mean over the pairs. */
export const pairwise = defineLoss({
  ...common,
  id: "test/pairwise-ranking",
  options: z.strictObject({ k: z.int().min(2) }),
  needsTeacher: true,
  wgsl: ({ options: { k } }) => `
    var<private> $ids: array<u32, ${k}>;
    var<private> $slopes: array<f32, ${k}>;
    fn $taken(v: u32, count: u32) -> bool {
      for (var i = 0u; i < count; i++) { if ($ids[i] == v) { return true; } }
      return false;
    }
    fn $value() -> f32 {
      for (var rank = 0u; rank < ${k}u; rank++) {
        var top = -3.0e38;
        var at = 0xffffffffu;
        for (var v = lane; v < row_vocabulary; v += LANES) {
          let z = teacher(v);
          if (z > top && !$taken(v, rank)) { top = z; at = v; }
        }
        let highest = row_max(top);
        $ids[rank] = row_min_u32(select(0xffffffffu, at, top == highest));
        $slopes[rank] = 0.0;
      }
      var total = 0.0;
      for (var i = 0u; i < ${k}u; i++) {
        for (var j = i + 1u; j < ${k}u; j++) {
          let gap = student($ids[i]) - student($ids[j]);
          total += max(-gap, 0.0) + log(1.0 + exp(-abs(gap)));
          let slope = 1.0 / (1.0 + exp(gap)) / ${k * (k - 1) / 2}.0;
          $slopes[i] -= slope;
          $slopes[j] += slope;
        }
      }
      return total / ${k * (k - 1) / 2}.0;
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      for (var i = 0u; i < ${k}u; i++) { if ($ids[i] == v) { return $slopes[i]; } }
      return 0.0;
    }`,
  reference({ student, teacher, options: { k } }) {
    const ids = [...teacher.keys()].sort((a, b) => teacher[b]! - teacher[a]! || a - b).slice(0, k);
    const gradient = new Float64Array(student.length);
    let value = 0;
    ids.forEach((i, rank) =>
      ids.slice(rank + 1).forEach((j) => {
        const pairs = k * (k - 1) / 2;
        value += Math.log1p(Math.exp(student[j]! - student[i]!)) / pairs;
        const slope = 1 / (1 + Math.exp(student[i]! - student[j]!)) / pairs;
        gradient[i]! -= slope;
        gradient[j]! += slope;
      })
    );
    return { value, gradient };
  },
});
