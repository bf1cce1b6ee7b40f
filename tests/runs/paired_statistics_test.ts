// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { summarisePairs, summariseSample } from "../../src/runs/compare/paired_statistics.ts";

Deno.test("summariseSample() divides by n - 1, leaves out what is missing, and gives one value no spread", () => {
  // Deviations -1, 0, 1, 4, -4 of 8: squares 1 + 0 + 1 + 16 + 16 = 34, / 4 = 8.5.
  const { n, mean, standardDeviation } = summariseSample([7, null, 8, 9, 12, 4]);
  assertEquals([n, mean], [5, 8]);
  assertAlmostEquals(standardDeviation!, 2.9154759474226504, 1e-15);
  assertEquals(summariseSample([null, 3]), { n: 1, mean: 3, standardDeviation: null });
  assertEquals(summariseSample([null]), { n: 0, mean: null, standardDeviation: null });
});

Deno.test("summarisePairs() takes differences seed by seed, and counts the better ones by their direction", () => {
  // Differences -1, -2, 0: mean -1, standard deviation 1, standard error 1 / sqrt(3).
  const [mine, others] = [[1, 3, 5, 7, null], [2, 5, 5, null, 1]];
  const lower = summarisePairs(mine, others, "lower");
  assertEquals([lower.n, lower.mean, lower.better], [3, -1, 2]);
  assertAlmostEquals(lower.standardError!, 0.5773502691896258, 1e-15);
  assertEquals(summarisePairs(mine, others, "higher").better, 0);
  assertEquals(summarisePairs(others, mine, "higher").better, 2);
  assertEquals(summarisePairs([1], [2], "lower"), { n: 1, mean: -1, standardError: null, better: 1 });
  assertEquals(summarisePairs([1], [null], "lower"), { n: 0, mean: null, standardError: null, better: 0 });
});

Deno.test("summarisePairs() sees a small effect that the spread over seeds hides", () => {
  const [mine, others] = [[2.0, 2.4, 2.8], [2.01, 2.42, 2.81]];
  const { mean, standardError, better } = summarisePairs(mine, others, "lower");
  assertAlmostEquals(mean!, -0.04 / 3, 1e-12);
  // Deviations from the mean: 1/300, -2/300, 1/300; squares 6/90000, / 2, / 3.
  assertAlmostEquals(standardError!, Math.sqrt(6 / 90000 / 2 / 3), 1e-12);
  assertEquals(better, 3);
  assertAlmostEquals(summariseSample(mine).standardDeviation!, 0.4, 1e-12);
});
