/** Scores by hand: what a clone without the reference folder has. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { pairedBootstrap } from "../../src/evaluation/scores/bootstrap.ts";
import { binOf, calibration } from "../../src/evaluation/scores/calibration.ts";
import { choiceScore, pick, pickConfidence } from "../../src/evaluation/scores/choices.ts";
import { extractedAnswer, normalNumber } from "../../src/evaluation/scores/extracted_answer.ts";
import { porterStem } from "../../src/evaluation/scores/porter_stemmer.ts";
import { rouge, rougeL } from "../../src/evaluation/scores/rouge.ts";
import { textWindows } from "../../src/evaluation/scores/windows.ts";

Deno.test("stems are Porter's, with the exceptions of those who came after", () => {
  const stems = {
    ...{ caresses: "caress", ponies: "poni", ties: "tie", cats: "cat", feed: "feed", agreed: "agre" },
    ...{ plastered: "plaster", motoring: "motor", sing: "sing", conflated: "conflat", hopping: "hop" },
    ...{ filing: "file", happy: "happi", sky: "sky", relational: "relat", rational: "ration" },
    ...{ vietnamization: "vietnam", hopefulness: "hope", electrical: "electr", adjustment: "adjust" },
    ...{ adoption: "adopt", probate: "probat", controlling: "control", say: "say", dying: "die" },
  };
  for (const [word, stem] of Object.entries(stems)) assertEquals(porterStem(word), stem, word);
});

Deno.test("ROUGE counts words, pairs and common subsequences", () => {
  // Six words against five; the longest common subsequence is "the cat on the mat", of five.
  const { rouge1, rouge2, rougeL: whole } = rouge("the cat sat on the mat", "The cat: on the MAT!");
  assertEquals([rouge1.precision, rouge1.recall], [1, 5 / 6]);
  assertEquals([rouge2.precision, rouge2.recall], [3 / 4, 3 / 5]);
  assertEquals([whole.precision, whole.recall], [1, 5 / 6]);
  assertAlmostEquals(whole.f, 10 / 11, 1e-15);
  assertEquals(rougeL("a b c d", "d c b a").recall, 1 / 4);
  assertEquals(rougeL("running dogs", "run dog").f, 0);
  assertEquals(rougeL("running dogs", "run dogs", { stemmed: true }).f, 1);
  assertEquals([rougeL("", "a").f, rougeL("a", "").f, rougeL("猫", "猫").f], [0, 0, 0]);
  // By lines, each line of the reference finds its own.
  const lines = rouge("a b\nc d", "c d\na b");
  assertEquals([lines.rougeL.recall, lines.rougeLsum.recall], [0.5, 1]);
});

Deno.test("the number of an answer is found behind the strongest mark", () => {
  const answers: readonly (readonly [string, string | null])[] = [
    ["2 + 3 = 5, so #### 1,234.50 eggs", "1234.5"],
    ["#### none of it\nThe answer is -7.", "-7"],
    ["\\boxed{\\frac{1}{2}} or \\boxed{42 \\text{ km}}", "42"],
    ["The answer is 3. No: the Answer : 4", "4"],
    ["10-3", "3"],
    ["It costs -$5.00", "-5"],
    ["x2 and y3", null],
    ["-0", "0"],
  ];
  for (const [text, expected] of answers) assertEquals(extractedAnswer(text), expected, text);
  assertEquals(["+007", "1,000.00", "-.50", "−3"].map(normalNumber), ["7", "1000", "-0.5", "-3"]);
});

Deno.test("a bin holds its upper edge; the error is the mean gap over bins", () => {
  assertEquals([0, 1 / 15, 3 / 15, 0.2, 0.2 + 1e-12, 1].map((c) => binOf(c)), [0, 0, 2, 2, 3, 14]);
  const { expectedError, greatestError, accuracy, brier, bins } = calibration([0.9, 0.9, 0.5, 0.5], [
    1,
    0,
    1,
    1,
  ], 10);
  assertAlmostEquals(expectedError, 0.5 * 0.4 + 0.5 * 0.5, 1e-15);
  assertAlmostEquals(greatestError, 0.5, 1e-15);
  assertEquals([accuracy, bins[8]!.count, bins[4]!.count], [0.75, 2, 2]);
  assertAlmostEquals(brier, (0.01 + 0.81 + 0.25 + 0.25) / 4, 1e-15);
  assertEquals(calibration([], []).expectedError, 0);
});

Deno.test("the paired bootstrap comes near to all resamples, is the same for one seed, and weighs items", () => {
  const [a, b] = [[1, 0, 1, 1], [0, 0, 1, 0]];
  // Of d = 1, 0, 0, 1, the number of ones in four draws is binomial: 2.5 % lie below 1/4, 1/16 at 0.
  const found = pairedBootstrap(a, b, { seed: 3 })!;
  assertEquals([found.difference, found.low, found.high, found.items], [0.5, 0, 1, 4]);
  assertAlmostEquals(found.p, 2 / 16, 0.02);
  assertEquals(pairedBootstrap(a, b, { seed: 3 }), found);
  assert(pairedBootstrap(a, b, { seed: 4 })!.p !== found.p);
  assertEquals(pairedBootstrap([2, 2], [1, 1])!.p, 0);
  // Sums of ten and of one token: the mean is by tokens.
  assertAlmostEquals(pairedBootstrap([20, 0], [10, 1], { sizes: [10, 1] })!.difference, 9 / 11, 1e-15);
  assertEquals(pairedBootstrap([], []), undefined);
  assertThrows(() => pairedBootstrap([1], []), RangeError);
});

Deno.test("windows count each token once where they overlap", () => {
  for (
    const [tokens, length, stride] of [[1, 4, 4], [2, 4, 2], [10, 4, 3], [11, 4, 1], [23, 8, 7]] as const
  ) {
    const counted = textWindows(tokens, length, stride).flatMap(({ start, end, firstCounted }) => {
      assert(end - start <= length && firstCounted > start);
      return Array.from({ length: end - firstCounted }, (_, i) => firstCounted + i);
    });
    assertEquals(
      counted,
      Array.from({ length: tokens - 1 }, (_, i) => i + 1),
      `${tokens} ${length} ${stride}`,
    );
  }
  assertEquals(textWindows(8, 4, 4).map(({ firstCounted }) => firstCounted), [1, 5]);
  assertThrows(() => textWindows(8, 4, 5), RangeError);
  assertThrows(() => textWindows(8, 1), RangeError);
});

Deno.test("of equal scores the first is taken, and told; what is not finite decides nothing", () => {
  assertEquals(pick([-3, -1, -1]), { choice: 1, margin: 0, tied: true });
  assertEquals(pick([-3, -1, -2]), { choice: 1, margin: 1, tied: false });
  assertEquals(pick([-3, NaN]).choice, -1);
  const choice = { logLikelihood: -6, tokens: 3, bytes: 12 };
  assertEquals(
    (["sum", "per-token", "per-byte"] as const).map((way) => choiceScore(choice, way)),
    [-6, -2, -0.5],
  );
  assertAlmostEquals(pickConfidence([Math.log(0.3), Math.log(0.1)]), 0.75, 1e-12);
});
