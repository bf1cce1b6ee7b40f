/** Scores of texts and predictions against the reference values: rouge-score, nltk, own counts in f64, all resamples. */
import { createHash } from "node:crypto";
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { pairedBootstrap } from "../../src/evaluation/scores/bootstrap.ts";
import { binOf, calibration } from "../../src/evaluation/scores/calibration.ts";
import { extractedAnswer, normalNumber } from "../../src/evaluation/scores/extracted_answer.ts";
import { porterStem } from "../../src/evaluation/scores/porter_stemmer.ts";
import { rouge } from "../../src/evaluation/scores/rouge.ts";
import { textWindows } from "../../src/evaluation/scores/windows.ts";
import { goldenArrays } from "../goldens/arrays.ts";
import { sharedPath, sharedTest } from "../shared.ts";

async function golden<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(sharedPath(`goldens/evaluation/${name}.json`)));
}

const ROUGES = ["rouge1", "rouge2", "rougeL", "rougeLsum"] as const;
type Scores = Record<typeof ROUGES[number], [number, number, number]>;

sharedTest("ROUGE and stems are those of rouge-score and nltk", async () => {
  const { pairs, stems, mean } = await golden<{
    pairs: { reference: string; prediction: string; plain: Scores; stemmed: Scores }[];
    stems: Record<string, string>;
    mean: { plain: Scores; stemmed: Scores };
  }>("rouge");
  for (const [word, stem] of Object.entries(stems)) assertEquals(porterStem(word), stem, word);
  for (const way of ["plain", "stemmed"] as const) {
    const sums = Object.fromEntries(ROUGES.map((name) => [name, [0, 0, 0]]));
    for (const { reference, prediction, ...expected } of pairs) {
      const found = rouge(reference, prediction, { stemmed: way === "stemmed" });
      for (const name of ROUGES) {
        const values = [found[name].precision, found[name].recall, found[name].f];
        values.forEach((value, i) => {
          assertAlmostEquals(
            value,
            expected[way][name][i]!,
            1e-9,
            `${name} of ${JSON.stringify(prediction)}`,
          );
          sums[name]![i]! += value;
        });
      }
    }
    for (const name of ROUGES) {
      sums[name]!.forEach((sum, i) => assertAlmostEquals(sum / pairs.length, mean[way][name][i]!, 1e-9));
    }
  }
});

sharedTest("answers are extracted as the rule says, of 60 texts and all of GSM8K's test set", async () => {
  const { cases, gsm8k_test } = await golden<{
    cases: { text: string; expected: string | null }[];
    gsm8k_test: {
      count: number;
      first_20: string[];
      sum: string;
      sha256_of_values_joined_by_newline: string;
    };
  }>("extract");
  for (const { text, expected } of cases) {
    assertEquals(extractedAnswer(text), expected, JSON.stringify(text));
    if (expected !== null) assertEquals(normalNumber(expected), expected);
  }
  const lines = (await Deno.readTextFile(sharedPath("data/gsm8k/test.jsonl"))).trim().split("\n");
  const answers = lines.map((line) => extractedAnswer(JSON.parse(line).answer)!);
  assertEquals(answers.length, gsm8k_test.count);
  assertEquals(answers.slice(0, 20), gsm8k_test.first_20);
  assertEquals(String(answers.reduce((sum, answer) => sum + Number(answer), 0)), gsm8k_test.sum);
  assertEquals(
    createHash("sha256").update(answers.join("\n")).digest("hex"),
    gsm8k_test.sha256_of_values_joined_by_newline,
  );
});

sharedTest("calibration is that of the reference, to the bin", async () => {
  const sets = await golden<
    Record<string, { n: number; ece: number; mce: number; accuracy: number; brier: number }>
  >("ece");
  const arrays = await goldenArrays("goldens/evaluation/ece.safetensors");
  for (const [name, { n, ece, mce, accuracy, brier }] of Object.entries(sets)) {
    const of = (what: string) => arrays.get(`${name}.${what}`)!;
    const found = calibration(of("confidence"), of("correct"));
    assertEquals(found.count, n);
    assertEquals(Array.from(of("confidence"), (c) => binOf(c)), Array.from(of("bin")), name);
    const close = (value: number, expected: number, what: string) =>
      assertAlmostEquals(value, expected, 1e-12, `${name} ${what}`);
    close(found.expectedError, ece, "ece");
    close(found.greatestError, mce, "mce");
    close(found.accuracy, accuracy, "accuracy");
    close(found.brier, brier, "brier");
    found.bins.forEach((bin, k) => {
      assertEquals(bin.count, of("count")[k]);
      close(bin.confidence, of("mean_confidence")[k]!, `confidence of bin ${k}`);
      close(bin.accuracy, of("accuracy")[k]!, `accuracy of bin ${k}`);
    });
  }
});

interface ExactBootstrap {
  name: string;
  a: number[];
  b: number[];
  mean_difference: number;
  two_sided_p: number;
  intervals: Record<string, {
    lower: number;
    upper: number;
    with_10000_resamples_lower_within: [number, number];
    with_10000_resamples_upper_within: [number, number];
  }>;
}

sharedTest("the paired bootstrap lies where one of 10,000 resamples must lie", async () => {
  for (const set of await golden<ExactBootstrap[]>("bootstrap")) {
    for (const [level, { ...expected }] of Object.entries(set.intervals)) {
      const found = pairedBootstrap(set.a, set.b, { level: Number(level), seed: 7 })!;
      assertAlmostEquals(found.difference, set.mean_difference, 1e-9);
      const within = (value: number, [least, most]: [number, number], what: string) =>
        assert(value >= least - 1e-9 && value <= most + 1e-9, `${set.name} ${level} ${what}: ${value}`);
      within(found.low, expected.with_10000_resamples_lower_within, "low");
      within(found.high, expected.with_10000_resamples_upper_within, "high");
      assertAlmostEquals(found.p, set.two_sided_p, 0.02, `${set.name} p`);
    }
  }
});

sharedTest("windows are those of the reference", async () => {
  const { tokens, settings } = await golden<{
    tokens: number;
    settings: {
      length: number;
      stride: number;
      windows: number;
      first: number[][];
      last: number[];
      counted: number;
    }[];
  }>("ppl");
  for (const { length, stride, windows, first, last, counted } of settings) {
    const found = textWindows(tokens, length, stride);
    const ends = found.map(({ start, end }) => [start, end]);
    assertEquals(found.length, windows);
    assertEquals(ends.slice(0, first.length), first.map((row) => row.slice(0, 2)));
    assertEquals(ends.at(-1), last.slice(0, 2));
    assertEquals(found.reduce((sum, { end, firstCounted }) => sum + end - firstCounted, 0), counted);
  }
});
