/** Frequencies of sampled tokens against exact probabilities. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater } from "@std/assert";
import { argmax, sampleToken, type SamplingOptions } from "../../src/distill/generate/sampling.ts";
import { randomArray } from "../tensor/harness.ts";

const DRAWS = 20_000;
const plain: SamplingOptions = { temperature: 1, topK: 0, topP: 1, seed: 3 };

/** Probabilities by the definition: temperature, then top-k, then top-p over what is left. */
function exact(logits: Float32Array, { temperature, topK, topP }: SamplingOptions): number[] {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  let kept = order.slice(0, topK || logits.length);
  const weight = (id: number) => Math.exp((logits[id]! - logits[order[0]!]!) / temperature);
  const total = (ids: number[]) => ids.reduce((sum, id) => sum + weight(id), 0);
  const all = total(kept);
  // The fewest of the likeliest that reach topP.
  const count = kept.findIndex((_, i) => total(kept.slice(0, i + 1)) >= topP * all - 1e-12);
  if (topP < 1) kept = kept.slice(0, count + 1);
  return Array.from(logits.keys(), (id) => kept.includes(id) ? weight(id) / total(kept) : 0);
}

/** Pearson's statistic over the degrees of freedom: about 1 for the right distribution. */
function distance(logits: Float32Array, options: SamplingOptions, probabilities: number[]): number {
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < DRAWS; i++) counts[sampleToken(logits, options, i >> 6, i & 63)]!++;
  let [sum, freedom] = [0, -1];
  probabilities.forEach((p, id) => {
    if (p === 0) assertEquals(counts[id], 0, `token ${id} has no probability`);
    else if (p * DRAWS >= 5) {
      sum += (counts[id]! - p * DRAWS) ** 2 / (p * DRAWS);
      freedom++;
    }
  });
  return freedom < 1 ? 0 : sum / freedom;
}

const logits = randomArray(37, 5, 3);

Deno.test("sampleToken() draws with the probabilities that temperature, top-k and top-p leave", () => {
  for (
    const change of [
      {},
      { temperature: 0.5 },
      { temperature: 2 },
      { topK: 5 },
      { topK: 37 },
      { topK: 100 },
      { topK: 1 },
      { topP: 0.9 },
      { topP: 0.3 },
      { topP: 0.01 },
      { temperature: 1.5, topK: 12, topP: 0.8 },
      { seed: 2 ** 32 - 1 },
    ]
  ) {
    const options = { ...plain, ...change };
    const found = distance(logits, options, exact(logits, options));
    assert(found < 2.2, `${JSON.stringify(change)}: chi-squared / freedom ${found}`);
  }
  // The test is sharp enough to see a temperature that is a tenth off, and a nucleus cut too early.
  assertGreater(distance(logits, plain, exact(logits, { ...plain, temperature: 1.1 })), 4);
  assertGreater(distance(logits, { ...plain, topP: 0.8 }, exact(logits, { ...plain, topP: 0.9 })), 4);
});

Deno.test("sampleToken() takes the first among equals where it must choose, and each as often where it may", () => {
  const equal = Float32Array.of(1, 3, 3, 0, 3, -1);
  assertEquals(argmax(equal), 1);
  assertEquals(sampleToken(equal, { ...plain, temperature: 0 }, 0, 0), 1);
  const two = { ...plain, topK: 2 };
  assert(distance(equal, two, [0, 0.5, 0.5, 0, 0, 0]) < 8);
  assert(distance(equal, { ...plain, topK: 3 }, [0, 1 / 3, 1 / 3, 0, 1 / 3, 0]) < 5);
});

Deno.test("sampleToken() copes with one token, enormous logits and minus infinity", () => {
  assertEquals(sampleToken(Float32Array.of(-7), plain, 0, 0), 0);
  const far = Float32Array.of(1e30, -1e30, 1e30, -Infinity);
  assert(distance(far, plain, [0.5, 0, 0.5, 0]) < 8);
  assert(distance(far, { ...plain, topP: 0.99, topK: 3 }, [0.5, 0, 0.5, 0]) < 8);
});

Deno.test("sampleToken() draws independently at every position and in every sequence", () => {
  const even = new Float32Array(2);
  const draw = (sequence: number, position: number, seed = 3) =>
    sampleToken(even, { ...plain, seed }, sequence, position);
  const agree = (a: (i: number) => number, b: (i: number) => number) => {
    let same = 0;
    for (let i = 0; i < 4000; i++) same += Number(a(i) === b(i));
    assert(Math.abs(same - 2000) < 4 * Math.sqrt(1000), `${same} of 4000 agree`);
  };
  agree((i) => draw(0, i), (i) => draw(1, i));
  agree((i) => draw(0, i), (i) => draw(0, i + 1));
  agree((i) => draw(i, 0), (i) => draw(0, i + 1));
  agree((i) => draw(0, i), (i) => draw(0, i, 4));
  assertEquals(
    Array.from({ length: 50 }, (_, i) => draw(2, i)),
    Array.from({ length: 50 }, (_, i) => draw(2, i)),
  );
});
