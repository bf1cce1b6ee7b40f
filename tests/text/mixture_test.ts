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

/** Draws of the first epochs as [set, number in the set, length]. */
function draws(sets: readonly MixedSet[], by: MixedBy, epochs: number, seed = 3) {
  const lengths = lengthsOf(sets);
  const mixture = new Mixture(lengths, { sets, by, seed });
  const firsts = sets.map((_, s) => sets.slice(0, s).reduce((sum, { count }) => sum + count, 0));
  return Array.from({ length: epochs }, (_, epoch) => [...mixture.order(epoch)]).flat().map((sample) => {
    const s = firsts.findLastIndex((first, s) => first <= sample && sets[s]!.count > 0);
    return { name: sets[s]!.name, sample: sample - firsts[s]!, length: lengths[sample]! };
  });
}

Deno.test("a mixture is within a sample of its shares at every moment, in samples and in tokens", () => {
  const sets = [set("a", 0.6, 31), set("b", 0.3, 200), set("c", 0.1, 7), set("unused", 0, 20)];
  for (const by of ["rows", "tokens"] as const) {
    const drawn: Record<string, number> = { a: 0, b: 0, c: 0 };
    let [total, longest] = [0, 1];
    for (const { name, length } of draws(sets, by, 4)) {
      const size = by === "rows" ? 1 : length;
      drawn[name]! += size;
      total += size;
      longest = Math.max(longest, size);
      for (const { name, weight } of sets.slice(0, 3)) {
        const off = Math.abs(drawn[name]! - weight * total);
        assert(off <= longest, `${by}: after ${total}, ${name} is off its share by ${off}`);
      }
    }
    assertEquals(Object.keys(drawn), ["a", "b", "c"]);
  }
});

Deno.test("what is drawn in samples is not in its shares in tokens, and the other way round", () => {
  const sets = [set("short", 1, 50), set("long", 1, 50)];
  const share = (by: MixedBy, size: (length: number) => number) => {
    const all = draws(sets, by, 2);
    const sum = (name: string) => all.filter((d) => d.name === name).reduce((s, d) => s + size(d.length), 0);
    return sum("short") / (sum("short") + sum("long"));
  };
  assertEquals(share("rows", () => 1), 0.5);
  assert(share("rows", (length) => length) < 0.42);
  assert(share("tokens", () => 1) > 0.58);
});

Deno.test("a set that is exhausted begins again in a new order, and none of its samples comes twice before all have come", () => {
  const sets = [set("small", 3, 5), set("large", 1, 40)];
  const small = draws(sets, "rows", 1).filter(({ name }) => name === "small").map(({ sample }) => sample);
  assertEquals(small.length, 34);
  const rounds = [0, 1, 2, 3].map((round) => small.slice(round * 5, round * 5 + 5));
  for (const round of rounds) assertEquals([...round].sort(), [0, 1, 2, 3, 4]);
  assertNotEquals(rounds[0], rounds[1]);
});

Deno.test("weights in proportion to the sets read everything exactly once an epoch", () => {
  const sizes = [13, 1, 57, 29];
  const sets = sizes.map((count, s) => set(`set ${s}`, count, count));
  for (let epoch = 0, all = draws(sets, "rows", 3); epoch < 3; epoch++) {
    const seen = new Set(
      all.slice(epoch * 100, epoch * 100 + 100).map(({ name, sample }) => `${name} ${sample}`),
    );
    assertEquals(seen.size, 100);
  }
  const lengths = lengthsOf(sets);
  let at = 0;
  const byTokens = sets.map(({ name, count }) => {
    const weight = lengths.slice(at, at += count).reduce((a, b) => a + b, 0);
    return { name, count, weight };
  });
  assertEquals(new Set(new Mixture(lengths, { sets: byTokens, by: "tokens", seed: 1 }).order(0)).size, 100);
});

Deno.test("the order follows from the seed, whichever epoch is asked for first and however the sets are listed", () => {
  const sets = [set("b", 2, 20), set("a", 1, 30), set("c", 1, 20)];
  for (const by of ["rows", "tokens"] as const) {
    const lengths = lengthsOf(sets);
    const mixture = new Mixture(lengths, { sets, by, seed: 7 });
    const orders = [0, 1, 2].map((epoch) => [...mixture.order(epoch)]);
    assertEquals([...mixture.order(1)], orders[1]);
    assertEquals([...mixture.order(0)], orders[0]);
    assertEquals([...new Mixture(lengths, { sets, by, seed: 7 }).order(2)], orders[2]);
    assertNotEquals([...new Mixture(lengths, { sets, by, seed: 8 }).order(0)], orders[0]);
    const listed = draws(sets, by, 2);
    // The lengths of a set hang on its place in the list here, so only those of equal length can be listed otherwise.
    if (by === "rows") {
      const other = draws([sets[2]!, sets[1]!, sets[0]!], by, 2);
      assertEquals(
        other.map(({ name, sample }) => [name, sample]),
        listed.map(({ name, sample }) => [name, sample]),
      );
    }
    // Rows of two sets that belong together, line by line, do not come together.
    const [b, c] = ["b", "c"].map((name) =>
      listed.filter((d) => d.name === name).slice(0, 20).map((d) => d.sample)
    );
    assertNotEquals(b, c);
  }
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
