// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
import { align, ALIGNMENT, type Demand, pack, type Packing, verifyPacking } from "../../src/tensor/memory.ts";

/** Deterministic integers in [0, below). */
function randomIntegers(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
}

/** Pairs that are alive at once and share bytes, found by comparing every pair at every step. */
function overlaps(demands: readonly Demand[], { placements }: Packing): string[] {
  const found: string[] = [];
  demands.forEach((a, i) =>
    demands.forEach((b, j) => {
      if (j <= i || placements[i]!.arena !== placements[j]!.arena) return;
      const together = Array.from({ length: a.last - a.first + 1 }, (_, k) => a.first + k)
        .some((step) => step >= b.first && step <= b.last);
      const [p, q] = [placements[i]!.offset, placements[j]!.offset];
      if (together && p < q + b.bytes && q < p + a.bytes) found.push(`${i} and ${j}`);
    })
  );
  return found;
}

Deno.test("pack() never lets two demands that live at once share a byte", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const next = randomIntegers(seed);
    const demands = Array.from({ length: 1 + next(80) }, (): Demand => {
      const first = next(50);
      return { bytes: 1 + next(seed % 2 ? 5000 : 700), first, last: first + next(12) };
    });
    const limit = seed % 3 ? 2 ** 31 : 8192;
    const packing = pack(demands, limit);
    assertEquals(overlaps(demands, packing), [], `seed ${seed}`);
    demands.forEach((d, i) => {
      const { arena, offset } = packing.placements[i]!;
      assertEquals(offset % ALIGNMENT, 0);
      assert(offset + d.bytes <= packing.arenaBytes[arena]!, "a demand lies inside its arena");
    });
    const total = packing.arenaBytes.reduce((a, b) => a + b, 0);
    assert(total >= packing.lowerBound, "no packing does with less than what lives at once");
    assert(packing.arenaBytes.every((bytes) => bytes <= limit));
  }
});

Deno.test("pack() gives bytes to the next demand only after the last step of the one before", () => {
  const at = (first: number, last: number) => ({ bytes: 1000, first, last });
  assertEquals(pack([at(0, 1), at(2, 3)], 1e6).arenaBytes, [1024]);
  assertEquals(pack([at(0, 2), at(2, 3)], 1e6).arenaBytes, [2048]);
  assertEquals(pack([], 1e6), { placements: [], arenaBytes: [], lowerBound: 0 });
});

/** A forward and backward pass: activations kept for their layer's backward pass, temporaries of every width in between. */
function trainingTrace(layers: number, tokens: number, hidden: number, checkpointing: boolean): Demand[] {
  const demands: Demand[] = [];
  const widths = [hidden, hidden, hidden / 2, hidden / 2, hidden, hidden, 3 * hidden, 3 * hidden, 3 * hidden];
  const steps = widths.length;
  const last = 4 * steps * layers;
  let at = 0;
  const tensor = (width: number, first: number, until: number) =>
    demands.push({ bytes: width * tokens * 4, first, last: until });
  for (let layer = 0; layer < layers; layer++) {
    const backwardStart = last - 2 * steps * (layer + 1);
    tensor(hidden, at, backwardStart + 2 * steps);
    widths.forEach((width, i) =>
      tensor(width, at + i, checkpointing ? at + i + 2 : last - steps * layer - i)
    );
    at += steps;
  }
  for (let layer = layers - 1; layer >= 0; layer--) {
    if (checkpointing) widths.forEach((width, i) => tensor(width, at + i, at + 2 * steps - i));
    if (checkpointing) at += steps;
    widths.toReversed().forEach((width, i) => {
      tensor(width, at + i, at + i + 1);
      tensor(hidden, at + i, at + i + 2);
    });
    at += steps;
  }
  return demands;
}

Deno.test("pack() stays within 2 % of what lives at once on the trace of a training step", () => {
  for (const checkpointing of [false, true]) {
    for (const [layers, tokens, hidden] of [[6, 256, 288], [24, 1024, 896], [2, 64, 64]] as const) {
      const { arenaBytes, lowerBound } = pack(trainingTrace(layers, tokens, hidden, checkpointing), 2 ** 40);
      const excess = arenaBytes.reduce((a, b) => a + b, 0) / lowerBound - 1;
      assert(
        excess <= 0.02,
        `${layers} layers, checkpointing ${checkpointing}: ${(100 * excess).toFixed(2)} %`,
      );
    }
  }
});

Deno.test("pack() opens another arena where one may not grow further, and refuses what fits none", () => {
  const together = Array.from({ length: 5 }, () => ({ bytes: 4096, first: 0, last: 0 }));
  assertEquals(pack(together, 8192).arenaBytes, [8192, 8192, 4096]);
  assertEquals(pack(together, 8191).arenaBytes.length, 5);
  assertThrows(
    () => pack([{ bytes: 8000, first: 0, last: 0 }], 8191),
    DeviceError,
    "one intermediate needs 8192 bytes; this device allows 8191",
  );
});

Deno.test("verifyPacking() accepts neighbours in space or time and refuses a planted overlap", () => {
  const demands = [
    { bytes: 1000, first: 0, last: 4 },
    { bytes: 300, first: 2, last: 6 },
    { bytes: 1000, first: 5, last: 7 },
  ];
  const place = (...offsets: number[]) => offsets.map((offset) => ({ arena: 0, offset }));
  verifyPacking(demands, place(0, 1024, 0));
  verifyPacking(demands, [{ arena: 0, offset: 0 }, { arena: 1, offset: 0 }, { arena: 0, offset: 256 }]);
  for (const planted of [place(0, 768, 0), place(0, 1024, 256), place(256, 0, 512)]) {
    assertThrows(() => verifyPacking(demands, planted), DeviceError, "on each other; this is a bug");
  }
  assertEquals(align(1), 256);
  assertEquals(align(256), 256);
});
