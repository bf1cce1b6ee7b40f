/** Which of compared models is the best: intervals over texts and over seeds, and who wins by them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { meanInterval, ratioInterval, studentQuantile } from "../../src/runs/compare/intervals.ts";
import type { MeasuredSet } from "../../src/runs/compare/sequences.ts";
import { type Participant, type SetVerdict, verdicts } from "../../src/runs/compare/verdicts.ts";
import { randomArray } from "../tensor/harness.ts";

Deno.test("studentQuantile() is that of the tables, also where it changes its way", () => {
  const table = [[1, 12.7062047], [2, 4.3026527], [3, 3.1824463], [5, 2.5705818], [10, 2.2281389], [
    30,
    2.0422725,
  ]];
  for (const [freedom, t] of [...table, [120, 1.9799304], [1000, 1.9623391], [1e6, 1.9599664]]) {
    assertAlmostEquals(studentQuantile(freedom!), t!, 1e-6);
  }
  const [below, above] = [studentQuantile(399), studentQuantile(400)];
  assert(below > above && below - above < 1.6e-5, `${below} ${above}`);
});

Deno.test("meanInterval() is Student's; one value has none", () => {
  // 1, 2, 3, 4: mean 2.5, variance 5/3, standard error sqrt(5/12), t of 3 degrees 3.1824463.
  const { low, high } = meanInterval([1, 2, 3, 4])!;
  const half = 3.1824463052837 * Math.sqrt(5 / 12);
  assertAlmostEquals(low, 2.5 - half, 1e-6);
  assertAlmostEquals(high, 2.5 + half, 1e-6);
  assertEquals(meanInterval([3]), null);
  assertEquals(meanInterval([2, 2]), { low: 2, high: 2 });
});

Deno.test("ratioInterval() is of the mean over tokens, and counts sequences, not tokens", () => {
  // (1 + 6 + 2) / (1 + 3 + 2) = 1.5; residuals -0.5, 1.5, -1: squares 3.5; sqrt(3/2 * 3.5) / 6.
  const { low, high } = ratioInterval([1, 6, 2], [1, 3, 2])!;
  const half = 4.30265272975 * Math.sqrt(1.5 * 3.5) / 6;
  assertAlmostEquals((low + high) / 2, 1.5, 1e-12);
  assertAlmostEquals((high - low) / 2, half, 1e-6);
  assertEquals([ratioInterval([1], [2]), ratioInterval([0, 0], [0, 0])], [null, null]);
});

Deno.test("ratioInterval() holds the truth in 19 of 20 draws of sequences of many lengths", () => {
  const [draws, n] = [800, 40];
  const random = randomArray(draws * n * 4, 11);
  let held = 0;
  for (let d = 0; d < draws; d++) {
    const [values, sizes]: [number[], number[]] = [[], []];
    for (let i = 0; i < n; i++) {
      const [a, b, c, e] = random.subarray((d * n + i) * 4, (d * n + i) * 4 + 4) as unknown as number[];
      const size = 5 + Math.floor((a! + 1) * 50);
      sizes.push(size);
      // Each sequence has an effect of its own around 0.1, which all of its tokens share.
      values.push(size * (0.1 + b! + c! + e!));
    }
    const { low, high } = ratioInterval(values, sizes)!;
    if (low <= 0.1 && 0.1 <= high) held++;
  }
  assert(held / draws > 0.925 && held / draws < 0.97, `${held} of ${draws}`);
});

/** A set whose sequences come to these losses a token. */
function measured(name: string, perToken: readonly number[], tokens: readonly number[]): MeasuredSet {
  return { name, tokens, losses: perToken.map((loss, i) => loss * tokens[i]!) };
}

const TOKENS = Array.from({ length: 30 }, (_, i) => 10 + i % 7);
/** How hard each text is, which all models share. */
const HARD = [...randomArray(30, 1)].map((r) => 3 + r);
const noise = (seed: number, size: number) => [...randomArray(30, seed)].map((r) => r * size);

/** A model that is this much better or worse than the texts are hard, run by run. */
function participant(
  name: string,
  runs: readonly [seed: number | null, shift: number][],
  size = 0.05,
): Participant {
  return {
    name,
    measured: runs.map(([seed, shift], k) => {
      const own = noise(100 * name.length + 10 * k + (seed ?? 0), size);
      return { seed, sets: [measured("held", HARD.map((hard, i) => hard + shift + own[i]!), TOKENS)] };
    }),
  };
}

const only = (found: SetVerdict[]) => {
  assertEquals(found.length, 1);
  return found[0]!;
};

Deno.test("a small difference on the same texts is seen through how different the texts are", () => {
  const found = only(verdicts([participant("base", [[null, 0]]), participant("merge", [[null, -0.05]])]));
  assertEquals([found.set, found.best, found.tokens], ["held", "merge", TOKENS.reduce((a, b) => a + b, 0)]);
  const [pair] = found.others;
  assertAlmostEquals(pair!.difference!, -0.05, 0.02);
  assert(pair!.wins && pair!.overTexts!.high < 0 && pair!.overSeeds === null);
  assertEquals([pair!.other, pair!.runs, pair!.sequences], ["base", 1, 30]);
  // Their own spread over texts is many times the difference.
  assert(meanInterval(HARD)!.high - meanInterval(HARD)!.low > 0.3);
});

Deno.test("a recipe wins over another only where seeds say so too", () => {
  const steady = only(verdicts([
    participant("plain", [[1, 0], [2, 0.01], [3, -0.01]]),
    participant("better", [[1, -0.1], [2, -0.09], [3, -0.11]]),
  ]));
  assertEquals([steady.best, steady.others[0]!.wins, steady.others[0]!.runs], ["better", true, 3]);
  // The same mean difference, but seeds do not agree: texts alone would have called it.
  const lucky = only(verdicts([
    participant("plain", [[1, 0], [2, 0.01], [3, -0.01]]),
    participant("better", [[1, -0.5], [2, 0.25], [3, -0.05]]),
  ]));
  const [pair] = lucky.others;
  assert(pair!.overTexts!.high < 0 && pair!.overSeeds!.high > 0 && !pair!.wins);
});

Deno.test("runs are paired by their seed, and a model that is only measured with each run", () => {
  const far = participant("far", [[1, 0], [2, 1], [7, 5]]);
  const near = participant("near", [[2, 0.9], [1, -0.1], [9, -5]]);
  const found = only(verdicts([far, near, participant("model", [[null, 3]])]));
  assertEquals(found.best, "near");
  const [of, model] = found.others;
  assertEquals([of!.runs, model!.runs], [2, 3]);
  assertAlmostEquals(of!.difference!, -0.1, 0.02);
  assert(of!.overSeeds!.high - of!.overSeeds!.low < 0.2, "paired by their places, seeds would differ by one");
  assertAlmostEquals(found.loss - model!.loss!, model!.difference!, 1e-9);
});

Deno.test("nothing wins where there is one text and one run, where losses are equal, or where one is not finite", () => {
  const one = (name: string, loss: number) => ({
    name,
    measured: [{ seed: null, sets: [measured("held", [loss], [5])] }],
  });
  const [pair] = only(verdicts([one("a", 1), one("b", 2)])).others;
  assertEquals([pair!.difference, pair!.overTexts, pair!.overSeeds, pair!.wins], [-1, null, null, false]);
  const same = participant("same", [[null, 0]]);
  assertEquals(only(verdicts([same, { ...same, name: "copy" }])).others[0]!.wins, false);
  const broken = { ...participant("broken", [[null, NaN]]) };
  const found = only(verdicts([broken, same]));
  assertEquals([found.best, found.others[0]!.difference, found.others[0]!.wins], ["same", null, false]);
  assertEquals(verdicts([broken]), []);
  assertEquals(verdicts([same]), []);
  assertEquals(verdicts([]), []);
});
