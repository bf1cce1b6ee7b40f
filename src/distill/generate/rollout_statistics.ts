/**
 * What the texts of a rollout are like, and when that is a cause for alarm.
 *
 * @module
 */
import type { RolloutAlarms } from "../recipe/recipe.ts";
import type { GeneratedText } from "./generator.ts";

/** What the texts of a rollout are like. */
export interface RolloutStatistics {
  readonly answers: number;
  /** Tokens of all answers, their stop tokens with them. */
  readonly tokens: number;
  /** Tokens of an answer. */
  readonly meanLength: number;
  /** Share of answers that were cut off by their limit. */
  readonly atLimit: number;
  /** Mean entropy of the student where it wrote, in nats, at the sampling temperature. */
  readonly entropy: number;
  /** Share of n-grams that their answer has had before, over the answers that have any. */
  readonly repetition: number;
}

/** What is to be told of a rollout. */
export interface RolloutAlarm {
  /** Stable. */
  readonly code: "rollout_short" | "rollout_endless" | "rollout_certain" | "rollout_repeats";
  readonly message: string;
}

/** The statistics of a rollout; an empty one has nothing but zeros. */
export function rolloutStatistics(texts: readonly GeneratedText[], ngram: number): RolloutStatistics {
  const lengths = texts.map(({ tokens, finished }) => tokens.length + Number(finished));
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const mean = (sum: number, count: number) => count > 0 ? sum / count : 0;
  const repeated = texts.map((text) => repetition(text.tokens, ngram)).filter((r) => r !== undefined);
  return {
    answers: texts.length,
    tokens,
    meanLength: mean(tokens, texts.length),
    atLimit: mean(texts.filter(({ finished }) => !finished).length, texts.length),
    entropy: mean(texts.reduce((sum, { entropies }) => entropies.reduce((s, e) => s + e, sum), 0), tokens),
    repetition: mean(repeated.reduce((sum, r) => sum + r, 0), repeated.length),
  };
}

/** Share of the n-grams of a text that stand in it before; undefined where it has none. */
export function repetition(tokens: ArrayLike<number>, n: number): number | undefined {
  const count = tokens.length - n + 1;
  if (count < 1) return undefined;
  const all = Array.from(tokens);
  const different = new Set(Array.from({ length: count }, (_, i) => all.slice(i, i + n).join()));
  return 1 - different.size / count;
}

/** Answers below which nothing is said of them: chance decides too much. */
const FEWEST = 4;

/** What of a rollout is a cause for alarm, each with what can be done. */
export function rolloutAlarms(found: RolloutStatistics, limits: RolloutAlarms): RolloutAlarm[] {
  if (found.answers < FEWEST) return [];
  const alarms: RolloutAlarm[] = [];
  const knob = (name: keyof RolloutAlarms, never: number) =>
    `(train.onPolicy.alarms.${name} is ${limits[name]}; ${never} says nothing)`;
  if (limits.shortest > 0 && found.meanLength < limits.shortest) {
    alarms.push({
      code: "rollout_short",
      message:
        `the student's answers have ${
          found.meanLength.toFixed(1)
        } tokens on the average: it has learnt to end at once. ` +
        `Look at its samples; lower train.onPolicy.ratio, so that the data keep it writing, or the learning rate ${
          knob("shortest", 0)
        }`,
    });
  }
  if (limits.atLimit > 0 && found.atLimit >= limits.atLimit) {
    alarms.push({
      code: "rollout_endless",
      message:
        `${
          (100 * found.atLimit).toFixed(0)
        } % of the student's answers were cut off before they ended, so it learns no end from them. ` +
        `Raise train.onPolicy.tokens or data.contextLength, or see whether the stop tokens are right (data.endToken) ${
          knob("atLimit", 0)
        }`,
    });
  }
  if (limits.entropy > 0 && found.entropy < limits.entropy) {
    alarms.push({
      code: "rollout_certain",
      message:
        `the student's entropy is ${
          found.entropy.toFixed(3)
        } nats where it writes: it has but one answer left. ` +
        `Raise train.onPolicy.temperature, lower the learning rate, or take a loss that covers the teacher, such as forward-kl ${
          knob("entropy", 0)
        }`,
    });
  }
  if (limits.repetition < 1 && found.repetition > limits.repetition) {
    alarms.push({
      code: "rollout_repeats",
      message:
        `${
          (100 * found.repetition).toFixed(0)
        } % of the ${limits.ngram}-grams of the student's answers stand in them before: it goes round in circles. ` +
        `Lower train.onPolicy.ratio or the learning rate, or raise the sampling temperature ${
          knob("repetition", 1)
        }`,
    });
  }
  return alarms;
}
