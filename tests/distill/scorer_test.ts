/** Log-probabilities of texts against softmaxes in f64 of whole sequences' logits. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { Scorer, type TextScores } from "../../src/distill/generate/scorer.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { maxDifference, modelTest } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import { tinySample, withTiny } from "./tiny_model.ts";

const LENGTH = 70;
/** Texts that fill the cache more than once, and need more than one pass together. */
const TEXTS = [5, 70, 1, 17, 31, 30].map((length, i) => tinySample(length, 0, i + 1).ids);

/** What is the furthest from what whole sequences give. */
async function furthest(reader: Reader, all: readonly TextScores[]): Promise<number> {
  let worst = 0;
  const far = (found: number, right: number) => {
    const distance = Math.abs(found - right);
    worst = Math.max(worst, Number.isNaN(distance) ? Infinity : distance);
  };
  for (const { tokens, logProbabilities, ranks, topIds, topLogProbabilities, top } of all) {
    for (let n = 1; n <= tokens.length; n++) {
      const logits = await reader.next(tokens.slice(0, n));
      const highest = Math.max(...logits);
      const lse = highest + Math.log(logits.reduce((sum, z) => sum + Math.exp(z - highest), 0));
      const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
      if (n < tokens.length) {
        far(logProbabilities[n]!, logits[tokens[n]!]! - lse);
        far(ranks[n]!, order.indexOf(tokens[n]!) + 1);
      }
      for (let k = 0; k < top; k++) {
        far(topIds[n * top + k]!, order[k]!);
        far(topLogProbabilities[n * top + k]!, logits[order[k]!]! - lse);
      }
    }
  }
  return worst;
}

modelTest(
  "score() gives the log-probabilities, places and likeliest tokens of whole sequences",
  (gpu) =>
    withTiny(async ({ teacher }) => {
      const model = await Model.open(teacher, { category: "weights" });
      using reader = await Reader.open(gpu, model, LENGTH);
      const scorer = await Scorer.create(gpu, model, reader.weights, {
        length: LENGTH,
        top: 5,
        passTokens: 64,
      });
      try {
        const scores = await scorer.score(TEXTS);
        assertEquals(scores.map(({ tokens }) => [...tokens]), TEXTS.map((ids) => [...ids]));
        assert(scores.every(({ logProbabilities }) => Number.isNaN(logProbabilities[0])));
        const some = scores.filter(({ tokens }) => tokens.length < 32);
        assert(await furthest(reader, some) < 1e-4);
        // What is scored beside a text moves it in the cache, and its numbers by rounding alone.
        const [alone] = await scorer.score([TEXTS[3]!]);
        const tops = (scores: TextScores) => scores.topLogProbabilities.slice(5);
        assert(maxDifference(tops(alone!), tops(scores[3]!)) < 1e-5);
        // The likeliest token has the number that it has among the likeliest, to the last bit.
        const first = scores[1]!;
        for (let i = 1; i < first.tokens.length; i++) {
          if (first.ranks[i] !== 1) continue;
          assertEquals(first.logProbabilities[i], first.topLogProbabilities[i * 5]);
        }
        // A mistake of one place would be seen.
        const moved = some.map((s) => ({ ...s, logProbabilities: s.logProbabilities.slice().reverse() }));
        assert(!(await furthest(reader, moved) < 1e-2));
        await assertRejects(() => scorer.score([new Int32Array(0)]), InputError, "at least 1");
        await assertRejects(() => scorer.score([new Int32Array(LENGTH + 1)]), InputError, "at most 70");
      } finally {
        scorer.destroy();
        model.close();
      }
    }, { seed: 5 }),
);
