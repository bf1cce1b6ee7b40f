/** Several sets of samples as one stream: shares, orders, and streams that continue. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { permutation } from "../../src/base/random.ts";
import { BatchStream, type BatchStreamOptions } from "../../src/text/batch_stream.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { type MixedBy, type MixedSet, Mixture } from "../../src/text/mixture.ts";
import { randomArray } from "../tensor/harness.ts";

const set = (name: string, weight: number, count: number): MixedSet => ({ name, weight, count });

/** Lengths from 2 to 40 of the samples of these sets; those of later sets are longer. */
function lengthsOf(sets: readonly MixedSet[]): Int32Array {
  return Int32Array.from(
    sets.flatMap(({ count }, s) =>
      Array.from(
        randomArray(Math.max(1, count), s + 1).slice(0, count),
        (r) => 2 + Math.floor((r + 1) * 4 * (s + 1)),
      )
    ),
  );
}

const T = 96;

/** Batches of the first epochs, each draw as its set, its number there and its length. */
function batchesOf(sets: readonly MixedSet[], by: MixedBy, epochs: number, lengths = lengthsOf(sets)) {
  const mixture = new Mixture(lengths, { sets, by, seed: 3, tokensPerBatch: T, shuffle: true });
  const firsts = sets.map((_, s) => sets.slice(0, s).reduce((sum, { count }) => sum + count, 0));
  return Array.from({ length: epochs }, (_, epoch) => mixture.plan(epoch)).flat().map((batch) =>
    batch.map((sample) => {
      const s = firsts.findLastIndex((first, s) => first <= sample && sets[s]!.count > 0);
      return { name: sets[s]!.name, sample: sample - firsts[s]!, length: lengths[sample]! };
    })
  );
}

const tokensIn = (draws: readonly { length: number }[]) => draws.reduce((sum, { length }) => sum + length, 0);

Deno.test("a mixture is within a batch of its shares after every batch, in rows and in tokens, and fills its batches", () => {
  const sets = [set("a", 0.6, 31), set("b", 0.3, 200), set("c", 0.1, 7), set("unused", 0, 20)];
  for (const by of ["rows", "tokens"] as const) {
    const drawn: Record<string, number> = { a: 0, b: 0, c: 0 };
    const batches = batchesOf(sets, by, 4);
    let [total, largest] = [0, 0];
    for (const batch of batches) {
      for (const { name, length } of batch) drawn[name]! += by === "rows" ? 1 : length;
      const size = by === "rows" ? batch.length : tokensIn(batch);
      total += size;
      largest = Math.max(largest, size);
      for (const { name, weight } of sets.slice(0, 3)) {
        const off = Math.abs(drawn[name]! - weight * total);
        assert(off <= largest, `${by}: after ${total}, ${name} is off its share by ${off}`);
      }
      assert(tokensIn(batch) <= T);
    }
    assertEquals(Object.keys(drawn), ["a", "b", "c"]);
    assert(tokensIn(batches.flat()) > 0.93 * T * batches.length, `${by}: ${tokensIn(batches.flat())} tokens`);
  }
});

Deno.test("long samples get their share of tokens though short ones would fill every batch", () => {
  // Two of the long ones do not fit into a batch, and what one leaves could hold four of the short ones.
  const sets = [set("long", 3, 20), set("short", 1, 200)];
  const lengths = Int32Array.from({ length: 220 }, (_, i) => i < 20 ? 56 : 10);
  const batches = batchesOf(sets, "tokens", 1, lengths);
  const long = tokensIn(batches.flat().filter(({ name }) => name === "long"));
  assert(Math.abs(long / tokensIn(batches.flat()) - 0.75) < 0.02, `${long / tokensIn(batches.flat())}`);
});

Deno.test("what is drawn in rows is not in its shares in tokens, and the other way round", () => {
  const sets = [set("short", 1, 50), set("long", 1, 50)];
  const share = (by: MixedBy, size: (length: number) => number) => {
    const all = batchesOf(sets, by, 2).flat();
    const sum = (name: string) => all.filter((d) => d.name === name).reduce((s, d) => s + size(d.length), 0);
    return sum("short") / (sum("short") + sum("long"));
  };
  assert(Math.abs(share("rows", () => 1) - 0.5) < 0.03);
  assert(share("rows", (length) => length) < 0.42);
  assert(share("tokens", () => 1) > 0.58);
});

Deno.test("a set that is exhausted begins again in a new order, and none of its samples comes twice before all have come", () => {
  const sets = [set("small", 3, 5), set("large", 1, 40)];
  const small = batchesOf(sets, "rows", 1).flat().filter(({ name }) => name === "small").map((d) => d.sample);
  assert(small.length > 30);
  const rounds = [0, 1, 2, 3].map((round) => small.slice(round * 5, round * 5 + 5));
  for (const round of rounds) assertEquals([...round].sort(), [0, 1, 2, 3, 4]);
  assertNotEquals(rounds[0], rounds[1]);
});

Deno.test("an epoch has as many samples as all sets together, and what fills its last batch", () => {
  const sets = [set("a", 1, 13), set("b", 5, 57), set("unused", 0, 100)];
  for (let epochs = 1; epochs < 4; epochs++) {
    const batches = batchesOf(sets, "tokens", epochs);
    const all = batches.flat().length;
    assert(all >= 70 * epochs && all < 70 * epochs + 10 * epochs, `${all} samples in ${epochs} epochs`);
  }
});

Deno.test("the batches follow from the seed, whichever epoch is asked for first and however the sets are listed", () => {
  const sets = [set("b", 2, 20), set("a", 1, 30), set("c", 1, 20)];
  for (const by of ["rows", "tokens"] as const) {
    const lengths = lengthsOf(sets);
    const options = { sets, by, tokensPerBatch: T, shuffle: true };
    const mixture = new Mixture(lengths, { ...options, seed: 7 });
    const plans = [0, 1, 2].map((epoch) => mixture.plan(epoch));
    assertEquals(mixture.plan(1), plans[1]);
    assertEquals(mixture.plan(0), plans[0]);
    assertEquals(new Mixture(lengths, { ...options, seed: 7 }).plan(2), plans[2]);
    assertNotEquals(new Mixture(lengths, { ...options, seed: 8 }).plan(0), plans[0]);
    const listed = batchesOf(sets, by, 2, lengths);
    const turned = Int32Array.of(
      ...lengths.subarray(50),
      ...lengths.subarray(20, 50),
      ...lengths.subarray(0, 20),
    );
    assertEquals(batchesOf([sets[2]!, sets[1]!, sets[0]!], by, 2, turned), listed);
  }
});

Deno.test("rows of two sets that belong together, line by line, do not come together", () => {
  const sets = [set("a", 1, 20), set("b", 1, 20)];
  const draws = batchesOf(sets, "rows", 1, new Int32Array(40).fill(T / 4)).flat();
  const [a, b] = ["a", "b"].map((of) => draws.filter(({ name }) => name === of).map(({ sample }) => sample));
  assertEquals([a!.length, b!.length], [20, 20]);
  assertNotEquals(a, b);
});

Deno.test("a sample that has to wait for a batch with room is drawn before its set begins again", () => {
  const sets = [set("small", 1, 5), set("large", 1, 40)];
  const lengths = Int32Array.from({ length: 45 }, (_, i) => i === 0 ? T - 2 : 7);
  const small = batchesOf(sets, "rows", 2, lengths).flat().filter(({ name }) => name === "small").map((d) =>
    d.sample
  );
  assert(small.length > 30);
  for (let i = 0; i + 5 <= small.length; i += 5) assertEquals(small.slice(i, i + 5).sort(), [0, 1, 2, 3, 4]);
});

Deno.test("a mixture without shuffling keeps the order of each file where samples fit", () => {
  const sets = [set("a", 1, 6), set("b", 1, 9)];
  const lengths = new Int32Array(15).fill(T / 4);
  const mixture = new Mixture(lengths, { sets, by: "rows", seed: 1, tokensPerBatch: T, shuffle: false });
  assertEquals(mixture.plan(0).flat().filter((sample) => sample >= 6), [6, 7, 8, 9, 10, 11, 12, 13]);
});

Deno.test("permutation() of the first set is that of a set alone; others differ even far into the epochs", () => {
  assertEquals(permutation(50, 9, 4, 0), permutation(50, 9, 4));
  assertNotEquals(permutation(50, 9, 4, 1), permutation(50, 9, 4));
  assertNotEquals(permutation(50, 9, 2 ** 52, 2047), permutation(50, 9, 2 ** 52, 2046));
});

/** Samples of `lengthsOf` whose tokens say which sample they are of. */
function samplesOf(sets: readonly MixedSet[]): EncodedSample[] {
  return [...lengthsOf(sets)].map((length, i) => ({
    ids: new Int32Array(length).fill(i),
    supervised: Uint8Array.from({ length }, (_, t) => Number(t > length / 2)),
    source: { file: "made.jsonl", line: i + 1 },
  }));
}

Deno.test("a stream of a mixture continues from any place, and says what it has drawn as one that never stopped", () => {
  const sets = [set("a", 3, 9), set("b", 1, 30)];
  const samples = samplesOf(sets);
  const options: BatchStreamOptions = { tokensPerBatch: 48, seed: 5, mixture: { sets, by: "tokens" } };
  const whole = new BatchStream(samples, options);
  const counted = { a: 0, b: 0 };
  for (let i = 0; i < 40; i++) {
    const continued = new BatchStream(samples, options);
    continued.restore(JSON.parse(JSON.stringify(whole.state())));
    assertEquals(continued.drawn(), whole.drawn());
    const batch = whole.next();
    assertEquals(continued.next(), batch);
    for (const { ids } of batch.members) counted[ids[0]! < 9 ? "a" : "b"] += ids.length;
  }
  assertEquals(whole.drawn().map(({ name, tokens }) => [name, tokens]), Object.entries(counted));
  const [a, b] = whole.drawn();
  assert(Math.abs(a!.tokens / (a!.tokens + b!.tokens) - 0.75) < 0.03);
  assert(a!.supervisedTokens > 0 && a!.supervisedTokens < a!.tokens && a!.samples > 9);
});

Deno.test("a stream of one set in a list is that of the set alone, its cursor too; weights and names are part of a mixture's", () => {
  const sets = [set("a", 4, 12)];
  const samples = samplesOf(sets);
  const options = { tokensPerBatch: 40, seed: 2 };
  const [plain, listed] = [{}, { mixture: { sets, by: "tokens" as const } }].map((m) =>
    new BatchStream(samples, { ...options, ...m })
  );
  for (let i = 0; i < 12; i++) {
    assertEquals(listed!.state(), plain!.state());
    assertEquals(listed!.next(), plain!.next());
  }
  assertEquals([plain!.drawn().length, listed!.drawn().length], [0, 1]);
  const two = [set("a", 1, 6), set("b", 1, 6)];
  const keyOf = (sets: MixedSet[], by: MixedBy = "rows") =>
    new BatchStream(samples, { ...options, mixture: { sets, by } }).state().key;
  const others = [
    keyOf(two),
    keyOf([set("a", 2, 6), two[1]!]),
    keyOf([set("c", 1, 6), two[1]!]),
    keyOf(two, "tokens"),
  ];
  assertEquals(new Set([plain!.state().key, ...others]).size, 5);
});
