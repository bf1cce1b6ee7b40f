// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { RunningFluctuation, RunningMoments } from "../../src/shape/width/running_moments.ts";
import { randomArray } from "../tensor/harness.ts";

/** Sums as the GPU makes them: in f32, around a mean in f32, or so far from it. */
function blockOf(rows: readonly number[][], off = 0) {
  const columns = rows[0]!.map((_, j) => Float32Array.from(rows, (row) => row[j]!));
  const shift = columns.map((x) => Math.fround(x.reduce((a, b) => Math.fround(a + b), 0) / x.length) + off);
  const over = (of: (x: number) => number) =>
    columns.map((x, j) => x.reduce((sum, v) => Math.fround(sum + of(Math.fround(v - shift[j]!))), 0));
  return { count: rows.length, shift, sum: over((d) => d), squares: over((d) => Math.fround(d * d)) };
}

/** Rows of two columns far from zero, the second drifting. */
function drifting(count: number): number[][] {
  const noise = randomArray(2 * count, 5);
  return Array.from({ length: count }, (_, t) => [
    Math.fround(300 + noise[2 * t]!),
    Math.fround(-40 + 0.001 * t + 0.1 * noise[2 * t + 1]!),
  ]);
}

Deno.test("RunningMoments keeps mean and variance exact over many blocks of different lengths, far from zero", () => {
  const rows = drifting(20_000);
  const moments = new RunningMoments(2);
  for (let t = 0; t < rows.length;) {
    const length = 1 + (t * 37) % 1000;
    moments.add(blockOf(rows.slice(t, t + length)));
    t += length;
  }
  assertEquals(moments.count, rows.length);
  for (const j of [0, 1]) {
    const mean = rows.reduce((sum, row) => sum + row[j]!, 0) / rows.length;
    const variance = rows.reduce((sum, row) => sum + (row[j]! - mean) ** 2, 0) / rows.length;
    assert(Math.abs(moments.mean[j]! - mean) < 1e-5, `mean ${moments.mean[j]} for ${mean}`);
    assert(Math.abs(moments.variance[j]! / variance - 1) < 1e-5, `${moments.variance[j]} for ${variance}`);
  }
  // What a sum of squares in f32 would have given.
  const [sum, squares] = rows.reduce(
    ([a, b], [x]) => [Math.fround(a! + x!), Math.fround(b! + Math.fround(x! * x!))],
    [0, 0],
  );
  const naive = squares! / rows.length - (sum! / rows.length) ** 2;
  assert(Math.abs(naive / moments.variance[0]! - 1) > 0.01, "the case is too easy to tell");
});

Deno.test("RunningMoments takes no shift for the mean", () => {
  const rows = drifting(300);
  const [near, far] = [new RunningMoments(2), new RunningMoments(2)];
  for (let t = 0; t < rows.length; t += 100) {
    near.add(blockOf(rows.slice(t, t + 100)));
    far.add(blockOf(rows.slice(t, t + 100), 0.25));
  }
  for (const j of [0, 1]) {
    assert(Math.abs(near.mean[j]! - far.mean[j]!) < 1e-5);
    assert(Math.abs(near.variance[j]! / far.variance[j]! - 1) < 1e-3);
  }
});

Deno.test("RunningFluctuation does what AmoebaLLM's code does, slips and all", () => {
  const samples = [
    drifting(7),
    drifting(5).map(([a, b]) => [a! + 1, b! - 2]),
    drifting(6).map(([a, b]) => [a! - 3, b!]),
  ];
  const running = new RunningFluctuation(2);
  for (const rows of samples) running.add(blockOf(rows));
  const expected = [0, 1].map((j) => {
    let [mean, fluctuation] = [0, 0];
    samples.forEach((rows, i) => {
      const own = rows.reduce((sum, row) => sum + row[j]!, 0) / rows.length;
      mean = i === 0 ? own : mean * (i / (i + 1)) + own / (i + 1);
      if (i === 0) return;
      const around = rows.reduce((sum, row) => sum + (row[j]! - mean) ** 2, 0);
      fluctuation = fluctuation * ((i - 1) / i) + around / (i + 1);
    });
    return fluctuation;
  });
  for (const j of [0, 1]) assert(Math.abs(running.variance[j]! / expected[j]! - 1) < 1e-4);
});
