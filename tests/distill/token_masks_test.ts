// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type TokenChoice, TokenMasks } from "../../src/distill/objective/token_masks.ts";
import { InputError } from "../../src/base/errors.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch } from "../../src/text/packing.ts";
import { philox4x32 } from "../../src/base/random.ts";

/** A sample of which `targets` (places in it) are to be predicted. */
function sample(ids: number[], targets: number[], origin?: string): EncodedSample {
  return {
    ids: Int32Array.from(ids),
    supervised: Uint8Array.from(ids, (_, i) => Number(targets.includes(i))),
    source: { file: "train.jsonl", line: 1 },
    ...(origin === undefined ? {} : { origin }),
  };
}

const bits = (masks: Int32Array, bit: number) => [...masks].map((word) => (word >>> bit) & 1);

Deno.test("TokenMasks tell causal from unshifted on a sample of two tokens", () => {
  const choices: TokenChoice[] = [{}, { tokens: "unshifted" }, { tokens: "all" }];
  const masks = new TokenMasks(choices);
  const { labels, masks: words, counts } = masks.mark(packBatch([sample([7, 9], [1])], 3));
  // Position 0 predicts the target 9; the unshifted mask counts position 1, which holds it and predicts nothing.
  assertEquals(choices.map((c) => bits(words!, masks.bit(c))), [[1, 0, 0], [0, 1, 0], [1, 0, 0]]);
  assertEquals([...labels], [9, -100, -100]);
  assertEquals(counts, [1, 1, 1]);
});

Deno.test("TokenMasks mark prompts, targets and origins, and nothing across samples", () => {
  const choices: TokenChoice[] = [
    {},
    { tokens: "all" },
    { source: "teacher" },
    { source: "student", tokens: "all" },
    { source: "nobody" },
  ];
  const masks = new TokenMasks(choices);
  const batch = packBatch([
    sample([1, 2, 3, 4], [2, 3], "teacher"),
    sample([5, 6, 7], [2], "student"),
    sample([8, 9], [1]),
  ], 10);
  const { labels, masks: words, counts } = masks.mark(batch);
  assertEquals(choices.map((c) => bits(words!, masks.bit(c))), [
    [0, 1, 1, 0, 0, 1, 0, 1, 0, 0],
    [1, 1, 1, 0, 1, 1, 0, 1, 0, 0],
    [0, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  ]);
  assertEquals([...labels], [2, 3, 4, -100, 6, 7, -100, 9, -100, -100]);
  assertEquals(counts, [4, 6, 2, 2, 0]);
  assertEquals([batch.supervised, [...batch.label]], [4, [-100, 3, 4, -100, -100, 7, -100, 9, -100, -100]]);
});

Deno.test("TokenMasks count in a packed batch what they count in its samples one by one", () => {
  const masks = new TokenMasks([{ tokens: "all" }, { tokens: "unshifted" }, { source: "b" }]);
  const samples = Array.from({ length: 12 }, (_, i) => {
    const [draw, more] = philox4x32([i, 0, 0, 0], [3, 0]);
    const ids = Array.from({ length: 2 + draw % 5 }, (_, j) => 100 * i + j);
    return sample(ids, ids.map((_, j) => j).slice(1 + more % (ids.length - 1)), ["a", "b"][i % 3]);
  });
  const whole = masks.mark(packBatch(samples, 80));
  let at = 0;
  const total = whole.counts.map(() => 0);
  for (const one of samples) {
    const { length } = one.ids;
    const alone = masks.mark(packBatch([one], length));
    assertEquals([...whole.masks!.slice(at, at + length)], [...alone.masks!]);
    assertEquals([...whole.labels.slice(at, at + length)], [...alone.labels]);
    alone.counts.forEach((n, k) => total[k]! += n);
    at += length;
  }
  assertEquals([...whole.counts], total);
  assert(total.every((n) => n > 0));
});

Deno.test("TokenMasks are not needed where all losses count the supervised tokens", () => {
  const masks = new TokenMasks([{}, { tokens: "supervised" }]);
  const batch = packBatch([sample([1, 2, 3], [2])], 4);
  const { labels, masks: words, counts } = masks.mark(batch);
  assertEquals([masks.needed, masks.bit({ tokens: "supervised" }), words, counts], [false, 0, undefined, [
    1,
  ]]);
  assert(labels === batch.label);
});

Deno.test("TokenMasks refuse more choices than a word has bits", () => {
  const sources = Array.from({ length: 32 }, (_, i) => ({ source: `${i}` }));
  assertEquals(new TokenMasks(sources.slice(1)).bit({ source: "31" }), 31);
  assertThrows(() => new TokenMasks(sources), InputError, "33 different sets of tokens");
});
