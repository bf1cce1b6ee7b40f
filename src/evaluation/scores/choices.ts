/**
 * Multiple choice by log-likelihood: the choice that a model finds the likeliest, by several ways of making long and short ones comparable.
 *
 * @module
 */

/** Ways of scoring: the plain sum of log-probabilities, or that divided by tokens, or by bytes of UTF-8. */
export const CHOICE_SCORES = ["sum", "per-token", "per-byte"] as const;

/** See {@linkcode CHOICE_SCORES}. */
export type ChoiceScore = typeof CHOICE_SCORES[number];

/** One choice of a question, as a model finds it. */
export interface ScoredChoice {
  /** Sum of log p over its tokens, in nats. */
  readonly logLikelihood: number;
  readonly tokens: number;
  /** Of the choice's own text in UTF-8. */
  readonly bytes: number;
}

/** What a model takes. */
export interface Pick {
  /** Number of the choice; -1 where a score is not finite. */
  readonly choice: number;
  /** Greatest score less the second; 0 on a tie. */
  readonly margin: number;
  /** Whether several choices share the greatest score: the first of them is taken. */
  readonly tied: boolean;
}

/** The score of a choice. */
export function choiceScore({ logLikelihood, tokens, bytes }: ScoredChoice, score: ChoiceScore): number {
  if (score === "sum") return logLikelihood;
  return logLikelihood / (score === "per-token" ? tokens : bytes);
}

/** The choice with the greatest score, the first on a tie. */
export function pick(scores: readonly number[]): Pick {
  if (scores.length === 0 || !scores.every(Number.isFinite)) return { choice: -1, margin: 0, tied: false };
  const greatest = Math.max(...scores);
  const choice = scores.indexOf(greatest);
  const second = Math.max(...scores.filter((_, i) => i !== choice));
  return { choice, margin: greatest - second, tied: second === greatest };
}

/** The probability that the greatest of some scores has, were they logarithms of weights: exp s / sum exp s. */
export function pickConfidence(scores: readonly number[]): number {
  const greatest = Math.max(...scores);
  return 1 / scores.reduce((sum, score) => sum + Math.exp(score - greatest), 0);
}
