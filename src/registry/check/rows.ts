/**
 * Rows of logits on which row-wise losses break: ties, logits of +-60, padding with -inf, equal distributions, one-hot ones, masks.
 *
 * @module
 */

/** A row of logits with its label; -100 for a masked position. */
export interface TestRow {
  readonly name: string;
  readonly student: Float32Array;
  readonly teacher: Float32Array;
  readonly label: number;
}

/** Numbers in [0, 1), the same in every run (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One row of each kind; the masked ones come last. */
export function testRows(vocabulary: number): TestRow[] {
  const next = randomNumbers(vocabulary);
  const logits = (f: (v: number) => number) => Float32Array.from({ length: vocabulary }, (_, v) => f(v));
  const normal = () => logits(() => 3 * (next() + next() + next() - 1.5));
  const label = () => Math.floor(next() * vocabulary);
  const padded = () => normal().map((z, v) => v > 0 && v >= vocabulary - vocabulary / 3 ? -Infinity : z);
  const same = normal();
  const hot = (at: number) => logits((v) => v === at ? 40 : next());
  return [
    { name: "random", student: normal(), teacher: normal(), label: label() },
    { name: "tied", student: normal().map(Math.round), teacher: normal().map(Math.round), label: label() },
    {
      name: "extreme (+-60)",
      student: logits((v) => v % 3 ? 120 * next() - 60 : 60 - v / vocabulary),
      teacher: logits((v) => v % 2 ? 120 * next() - 60 : -60 + v / vocabulary),
      label: label(),
    },
    { name: "-inf padded", student: padded(), teacher: padded(), label: 0 },
    { name: "p = q", student: same, teacher: same.slice(), label: label() },
    { name: "one-hot", student: hot(1), teacher: hot(vocabulary - 1), label: label() },
    { name: "masked", student: normal(), teacher: normal(), label: -100 },
    {
      name: "masked, NaN",
      student: normal().fill(NaN, 0, 1),
      teacher: normal().fill(Infinity),
      label: -100,
    },
  ];
}
