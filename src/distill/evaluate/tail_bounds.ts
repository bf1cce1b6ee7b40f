/**
 * What a cache of the K largest logits can cost at most, as far as the weight of the rest tells.
 *
 * Of the tokens that are not among the K, p and q are known as sums alone, P and Q. A divergence that is a sum over tokens loses what it says
 * of the tail beyond what it says of the sums. With p' = p / P and q' = q / Q over the tail:
 *
 * - forward KL: P KL(p' || q') <= P (ln min(1, p_K / P) + ln (Q / q_min)): no p of the tail is above the least of the K, no q of it below
 *   q_min. The student's row is there in training, so q_min is known.
 * - soft cross-entropy: P sum p' ln (Q / q) <= P ln (Q / q_min).
 * - generalised Jensen-Shannon, m = b p + (1 - b) q: M times the divergence of p' and q' with weights w = b P / M and 1 - w, M = b P + (1 - b)
 *   Q. That is at most the entropy of the weights: M H(w, 1 - w).
 * - total variation: (sum |p - q| - |P - Q|) / 2 <= min(P, Q).
 * - skew KL, m = l p + (1 - l) q: p / m <= 1 / l, so sum p ln (p / m) - P ln (P / M) <= P ln (M / (l P)), M = l P + (1 - l) Q. Skew reverse KL
 *   with the roles changed.
 * - reverse KL: Q KL(q' || p') is bounded by nothing that a cache holds, since p of the tail may be as small as it likes.
 *
 * @module
 */
import type { ResolvedLoss } from "../../losses/traced.ts";

/** What is known of the tail, at the loss's temperature. */
export interface Tail {
  /** The teacher's probability of all its tokens, and the least of the K. */
  readonly p: number;
  readonly leastKept: number;
  /** The student's probability of all its tokens, and the least of one of them. */
  readonly q: number;
  readonly least: number;
}

/** The most by which the value of a loss can be off; undefined where nothing is known. */
export function tailBound({ loss: { id }, options }: ResolvedLoss, tail: Tail): number | undefined {
  const { p, q, leastKept, least } = tail;
  if (id === "total-variation") return Math.min(p, q);
  if (id === "skew-kl") return skewBound(p, q, Number(options.lambda));
  if (id === "skew-reverse-kl") return skewBound(q, p, Number(options.lambda));
  if (id === "jensen-shannon") return mixtureBound(p, q, Number(options.beta), options.normalize === true);
  if (id === "soft-cross-entropy") return p === 0 ? 0 : p * Math.log(q / least);
  if (id === "forward-kl") {
    return p === 0 ? 0 : p * (Math.log(Math.min(1, leastKept / p)) + Math.log(q / least));
  }
  return undefined;
}

function skewBound(p: number, q: number, lambda: number): number {
  return p === 0 ? 0 : p * Math.log((lambda * p + (1 - lambda) * q) / (lambda * p));
}

function mixtureBound(p: number, q: number, beta: number, normalised: boolean): number | undefined {
  if (beta === 0 || beta === 1) return undefined;
  const mass = beta * p + (1 - beta) * q;
  if (mass === 0) return 0;
  const entropy = [beta * p / mass, (1 - beta) * q / mass]
    .reduce((sum, w) => w > 0 ? sum - w * Math.log(w) : sum, 0);
  return mass * entropy / (normalised ? beta * (1 - beta) : 1);
}
