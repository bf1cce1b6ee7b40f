/**
 * Which of the compared models is the best on each held-out set, by paired differences.
 *
 * Two things are left to chance: which texts were held out, and which seed a recipe was trained with. Each has an interval of its own. Over
 * texts, the pairs are sequences: both models read the same ones, and what makes a text hard is hard for both. Over seeds, the pairs are
 * runs of one seed, which share initialisation and order of the data. A model that is only measured has no seed, unless
 * there is one for each, and is paired with each run of a recipe. A model wins only where every interval that there is lies on its side.
 *
 * The best one is compared with each other model, and wins against all only where it wins against each; asking for all of them at once
 * needs no correction for their number (R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 1982).
 *
 * @module
 */
import { pairedBootstrap } from "../../evaluation/scores/bootstrap.ts";
import { type Interval, meanInterval, ratioInterval } from "./intervals.ts";
import { meanLoss, type MeasuredSet } from "./sequences.ts";

/** A recipe with its runs, or a model that is only measured. */
export interface Participant {
  readonly name: string;
  /** What was measured of each run by its seed; of a model that is not one for each seed, under null. */
  readonly measured: readonly { readonly seed: number | null; readonly sets: readonly MeasuredSet[] }[];
}

/** The best model of a set against one of the others. */
export interface PairVerdict {
  other: string;
  /** Mean loss of the other; null where it is not finite. */
  loss: number | null;
  /** Loss of the best less that of the other, in nats a token, over the runs that are paired; null where it is not finite. */
  difference: number | null;
  /** Pairs of runs. */
  runs: number;
  sequences: number;
  /** 95 % over texts; null below two sequences. */
  overTexts: Interval | null;
  /**
   * Two-sided p of a paired bootstrap over the same texts: how often a resample of them would show no difference, or one to the other side;
   * null below two sequences.
   */
  p: number | null;
  /** 95 % over seeds; null below two pairs of runs. */
  overSeeds: Interval | null;
  /** Whether every interval that there is lies below 0, and there is one. */
  wins: boolean;
}

/** What is found on one set. */
export interface SetVerdict {
  set: string;
  /** Supervised tokens. */
  tokens: number;
  /** Who has the lowest mean loss. */
  best: string;
  /** That loss, over the runs of a recipe. */
  loss: number;
  others: PairVerdict[];
}

/** A verdict for each set that at least two have been measured on. Losses that are not finite are never the best. */
export function verdicts(participants: readonly Participant[]): SetVerdict[] {
  const there = participants.filter(({ measured }) => measured.length > 0);
  const names = there[0]?.measured[0]?.sets.map(({ name }) => name) ?? [];
  return names.flatMap((name, set) => {
    const means = there.map(({ measured }) => {
      const losses = measured.map(({ sets }) => meanLoss(sets[set]!));
      return losses.includes(null) ? null : mean(losses as number[]);
    });
    const best = means.reduce<number>(
      (best, loss, i) => loss !== null && (best < 0 || loss < means[best]!) ? i : best,
      -1,
    );
    if (best < 0 || there.length < 2) return [];
    const others = there.flatMap((other, i) =>
      i === best ? [] : [{ ...comparePair(there[best]!, other, set), loss: means[i]! }]
    );
    const tokens = there[best]!.measured[0]!.sets[set]!.tokens.reduce((sum, n) => sum + n, 0);
    return [{ set: name, tokens, best: there[best]!.name, loss: means[best]!, others }];
  });
}

function comparePair(best: Participant, other: Participant, set: number): Omit<PairVerdict, "loss"> {
  const pairs = best.measured.flatMap((mine) =>
    other.measured
      .filter(({ seed }) => seed === null || mine.seed === null || seed === mine.seed)
      .map((its) => [mine.sets[set]!, its.sets[set]!] as const)
  );
  const tokens = pairs[0]?.[0].tokens ?? [];
  // Of each sequence the mean over the pairs: seeds are no further texts.
  const bySequence = tokens.map((_, s) => mean(pairs.map(([mine, its]) => mine.losses[s]! - its.losses[s]!)));
  const byRun = pairs.map(([mine, its]) => (meanLoss(mine) ?? NaN) - (meanLoss(its) ?? NaN));
  const difference = mean(byRun);
  const shared = { other: other.name, runs: pairs.length, sequences: tokens.length };
  if (pairs.length === 0 || !Number.isFinite(difference)) {
    return { ...shared, difference: null, overTexts: null, p: null, overSeeds: null, wins: false };
  }
  const [overTexts, overSeeds] = [ratioInterval(bySequence, tokens), meanInterval(byRun)];
  const there = [overTexts, overSeeds].filter((interval) => interval !== null);
  const wins = there.length > 0 && there.every(({ high }) => high < 0);
  const nothing = bySequence.map(() => 0);
  const p = overTexts ? pairedBootstrap(bySequence, nothing, { sizes: tokens })?.p ?? null : null;
  return { ...shared, difference, overTexts, p, overSeeds, wins };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
