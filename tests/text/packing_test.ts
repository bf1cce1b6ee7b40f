// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch, type PackedBatch, packSequential, planBatches } from "../../src/text/packing.ts";
import { BatchStream } from "../../src/text/batch_stream.ts";
import { philox4x32 } from "../../src/base/random.ts";

/** A sample whose first `prompt` tokens are not targets. */
function sample(ids: number[], prompt = 1, line = 1): EncodedSample {
  return {
    ids: Int32Array.from(ids),
    supervised: Uint8Array.from(ids, (_, i) => i < prompt ? 0 : 1),
    source: { file: "train.jsonl", line },
  };
}

/** Samples of 1 to `longest` tokens, ids unique over all samples. */
function samples(count: number, longest: number): EncodedSample[] {
  let id = 1;
  return Array.from({ length: count }, (_, i) => {
    const [draw] = philox4x32([i, 0, 0, 0], [5, 0]);
    return sample(Array.from({ length: 1 + draw % longest }, () => id++), 1 + draw % 3, i + 1);
  });
}

const arrays = (batch: PackedBatch) => ({
  tokens: [...batch.tokens],
  position: [...batch.position],
  segment: [...batch.segment],
  kvStart: [...batch.kvStart],
  kvEnd: [...batch.kvEnd],
  label: [...batch.label],
  supervised: batch.supervised,
  samples: batch.samples,
});

Deno.test("packBatch() pairs position t with the token at t + 1: a sample of two tokens has one label, at the first", () => {
  assertEquals(arrays(packBatch([sample([7, 9])], 3)), {
    tokens: [7, 9, 0],
    position: [0, 1, 0],
    segment: [0, 0, -1],
    kvStart: [0, 0, 2],
    kvEnd: [1, 2, 3],
    label: [9, -100, -100],
    supervised: 1,
    samples: 1,
  });
});

Deno.test("packBatch() never predicts or attends across samples", () => {
  const batch = packBatch([sample([5, 6, 7], 2), sample([8, 9]), sample([10])], 8);
  assertEquals(arrays(batch), {
    tokens: [5, 6, 7, 8, 9, 10, 0, 0],
    position: [0, 1, 2, 0, 1, 0, 0, 0],
    segment: [0, 0, 0, 1, 1, 2, -1, -1],
    kvStart: [0, 0, 0, 3, 3, 5, 6, 7],
    kvEnd: [1, 2, 3, 4, 5, 6, 7, 8],
    // The second token of the first sample is no target, so position 0 has no label.
    label: [-100, 7, -100, 9, -100, -100, -100, -100],
    supervised: 2,
    samples: 3,
  });
  assertThrows(() => packBatch([sample([1, 2])], 1), RangeError);
});

Deno.test("packed batches hold every sample whole, once an epoch, and count every target", () => {
  const all = samples(300, 40);
  const targets = all.reduce((sum, s) => sum + s.supervised.reduce((n, flag) => n + flag, 0), 0);
  const stream = new BatchStream(all, { tokensPerBatch: 64, seed: 3 });
  for (const batches of [packSequential(all, 64), stream.plan(2).map((_, i) => stream.batchAt(2, i))]) {
    assertEquals(batches.reduce((sum, b) => sum + b.supervised, 0), targets);
    assertEquals(batches.reduce((sum, b) => sum + b.samples, 0), 300);
    const seen = new Set<number>();
    for (const { tokens, position, segment, kvStart, kvEnd, label } of batches) {
      for (let t = 0; t < 64; t++) {
        assertEquals(kvEnd[t], t + 1);
        assertEquals(kvStart[t], t - position[t]);
        if (segment[t] < 0) {
          assertEquals([tokens[t], position[t], label[t]], [0, 0, -100]);
          continue;
        }
        assert(!seen.has(tokens[t]));
        seen.add(tokens[t]);
        if (label[t] !== -100) assertEquals([segment[t + 1], tokens[t + 1]], [segment[t], label[t]]);
        assert(segment[kvStart[t]] === segment[t] && position[kvStart[t]] === 0);
      }
    }
    assertEquals(seen.size, all.reduce((sum, s) => sum + s.ids.length, 0));
  }
});

Deno.test("packSequential() keeps file order; a stream fills better by looking ahead", () => {
  const all = samples(300, 40);
  const sequential = packSequential(all, 64);
  const order = sequential.flatMap((b) => [...b.tokens].filter((t, i) => b.segment[i] >= 0 && t > 0));
  assertEquals(order, [...order].sort((a, b) => a - b));
  const planned = new BatchStream(all, { tokensPerBatch: 64, seed: 3 }).plan(0).length;
  const ideal = Math.ceil(all.reduce((sum, s) => sum + s.ids.length, 0) / 64);
  assert(
    planned < sequential.length && planned <= ideal * 1.05,
    `${planned}, ${sequential.length}, ideal ${ideal}`,
  );
});

Deno.test("planBatches() takes the first that fit, in order, within its window", () => {
  const lengths = [5, 6, 3, 4, 2];
  assertEquals(planBatches(lengths, [0, 1, 2, 3, 4], 8), [[0, 2], [1, 4], [3]]);
  assertEquals(planBatches([5, 6, 7, 3], [0, 1, 2, 3], 8, 2), [[0], [1], [2], [3]]);
  assertEquals(planBatches([5, 6, 7, 3], [0, 1, 2, 3], 8, 4), [[0, 3], [1], [2]]);
  assertEquals(planBatches(lengths, [0, 1, 2, 3, 4], 8, 1), [[0], [1], [2, 3], [4]]);
});

Deno.test("BatchStream has a frozen order for a seed", () => {
  const stream = new BatchStream(samples(12, 6), { tokensPerBatch: 10, seed: 1 });
  assertEquals([stream.plan(0), stream.plan(1)], [
    [[0, 6, 2, 7], [4, 1, 3, 10], [8, 9], [5], [11]],
    [[0, 2, 9, 7, 10], [8, 4, 1], [11], [5], [3], [6]],
  ]);
});

Deno.test("BatchStream without shuffling gives the file's order in every epoch", () => {
  const stream = new BatchStream([sample([1, 2]), sample([3, 4])], {
    tokensPerBatch: 2,
    seed: 1,
    shuffle: false,
  });
  assertEquals([1, 2, 3, 4].map(() => stream.next().tokens[0]), [1, 3, 1, 3]);
});

Deno.test("BatchStream resumed anywhere equals the uninterrupted stream, epochs and all", () => {
  const all = samples(20, 10);
  const options = { tokensPerBatch: 16, seed: 9 };
  const whole = new BatchStream(all, options);
  const batches = Array.from({ length: 40 }, () => whole.next());
  assert(whole.state().epoch >= 2);
  assertNotEquals(batches.slice(0, 5), batches.slice(5, 10));
  for (let stop = 0; stop < 40; stop++) {
    const first = new BatchStream(all, options);
    for (let i = 0; i < stop; i++) first.next();
    const second = new BatchStream(all, options);
    second.restore(JSON.parse(JSON.stringify(first.state())));
    for (let i = stop; i < Math.min(stop + 12, 40); i++) {
      assertEquals(arrays(second.next()), arrays(batches[i]));
    }
  }
});

Deno.test("BatchStream.restore() refuses cursors of other data, seeds or sizes, and broken ones", () => {
  const all = samples(20, 10);
  const make = (list = all, seed = 1, tokensPerBatch = 16) => new BatchStream(list, { tokensPerBatch, seed });
  const state = make().state();
  for (const other of [make(all.slice(1)), make(all, 2), make(all, 1, 17), make(all.toReversed())]) {
    assertThrows(() => other.restore(state), InputError, "differ from those of the saved run");
  }
  const masked = all.map((s) => ({ ...s, supervised: s.supervised.map(() => 1) }));
  assertThrows(() => make(masked).restore(state), InputError, "differ");
  const written = all.map((s, i) => (i === 3 ? { ...s, origin: "student" } : s));
  assertThrows(() => make(written).restore(state), InputError, "differ");
  for (const change of [{ index: 1e6 }, { index: -1 }, { epoch: 0.5 }]) {
    assertThrows(() => make().restore({ ...state, ...change }), InputError, "cursor is not valid");
  }
});

Deno.test("BatchStream and packSequential() refuse no samples and samples longer than a batch", () => {
  assertThrows(() => new BatchStream([], { tokensPerBatch: 8, seed: 1 }), InputError, "no samples");
  assertThrows(
    () => packSequential([sample([1, 2, 3], 1, 4)], 2),
    InputError,
    "train.jsonl:4: the sample has 3 tokens, but a micro-batch holds 2",
  );
});
