// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { drawTokens } from "../../src/tensor/ops/draw_tokens.ts";
import { Program } from "../../src/tensor/plan.ts";
import { philox4x32 } from "../../src/base/random.ts";
import { gpuTest, randomArray, run } from "./harness.ts";
import { type Mistake, plantAny } from "./planted.ts";

const NONE = 0xffff_ffff;
type Draws = { readonly ids: number[]; readonly counts: number[] };

async function drawn(
  gpu: Gpu,
  list: readonly Float32Array[],
  draws: number,
  options: {
    seed?: [number, number];
    counters?: number[];
    spoil?: (t: Tensor) => Tensor;
    scalars?: Record<string, number>;
  } = {},
): Promise<Draws[]> {
  const { seed = [7, 9], counters = list.map((_, r) => 100 + r), spoil = (t) => t } = options;
  const data = Float32Array.from(list.flatMap((row) => [...row]));
  const { outputs } = await run(
    gpu,
    [
      { shape: [list.length, list[0]!.length], data },
      { shape: [list.length], dtype: "u32", data: Uint32Array.from(counters) },
    ],
    (_, x, counter) => {
      const { ids, counts } = drawTokens(x!, counter!, { draws, seed });
      return [ids, spoil(counts)];
    },
    options.scalars,
  );
  const part = (t: Float32Array, r: number) => [...t.slice(r * draws, (r + 1) * draws)];
  return list.map((_, r) => ({ ids: part(outputs[0]!, r), counts: part(outputs[1]!, r) }));
}

/** The uniform numbers of a row's draws, in f64 from an implementation of its own. */
function uniformNumbers(draws: number, counter: number, seed: [number, number]): number[] {
  return Array.from({ length: draws }, (_, j) => {
    const word = philox4x32([j >> 2, counter, 0x72736b64, 0], seed)[j & 3]!;
    return ((word >>> 8) + 0.5) / 2 ** 24;
  });
}

/**
 * What is wrong with the draws of a row, if anything: each must be the inverse of the distribution function at its number, but for what
 * f32 makes of sums.
 */
function fault(
  row: Float32Array,
  { ids, counts }: Draws,
  numbers: number[],
  slack: number,
): string | undefined {
  const top = row.reduce((a, b) => Math.max(a, b));
  const weights = [...row].map((z) => Math.exp(z - top));
  const total = weights.reduce((a, b) => a + b);
  const upTo: number[] = [];
  weights.reduce((sum, w) => (upTo.push((sum + w) / total), sum + w), 0);
  const used = ids.findIndex((id) => id === NONE);
  const unique = used < 0 ? ids.length : used;
  if (!ids.slice(0, unique).every((id, i) => i === 0 || id > ids[i - 1]!)) return "ids do not rise";
  if (!ids.slice(unique).every((id) => id === NONE)) return "an id after the end";
  if (!counts.every((c, i) => i < unique ? c > 0 : c === 0)) return "a count of nothing";
  if (counts.reduce((a, b) => a + b) !== numbers.length) return "not as many draws as there are";
  const flat = ids.slice(0, unique).flatMap((id, i) => new Array<number>(counts[i]!).fill(id));
  const sorted = [...numbers].sort((a, b) => a - b);
  for (const [j, id] of flat.entries()) {
    if (weights[id] === 0) return `${id} has no probability`;
    const [low, high] = [id > 0 ? upTo[id - 1]! : 0, upTo[id]!];
    if (sorted[j]! < low - slack || sorted[j]! > high + slack) {
      return `${sorted[j]} gives ${id}: ${low}..${high}`;
    }
  }
  return undefined;
}

function rows(width: number): Float32Array[] {
  return [
    randomArray(width, 1, 4),
    new Float32Array(width),
    randomArray(width, 2, 60),
    randomArray(width, 3, 1).map((z, v) => width > 1 && v % 2 === 0 ? -Infinity : z),
    Float32Array.from({ length: width }, (_, v) => v === width - 1 ? 30 : 0),
  ];
}

for (const [width, draws] of [[1, 5], [7, 50], [255, 1], [257, 256], [2049, 50], [152_064, 64]]) {
  gpuTest(`drawTokens() of ${draws} from ${width} inverts the distribution function`, async (gpu) => {
    const list = rows(width!);
    const found = await drawn(gpu, list, draws!);
    list.forEach((row, r) => {
      const numbers = uniformNumbers(draws!, 100 + r, [7, 9]);
      assertEquals(fault(row, found[r]!, numbers, 2e-5), undefined, `row ${r}`);
    });
  });
}

gpuTest(
  "drawTokens() has the teacher's probabilities as its mean, and depends on counter and seed alone",
  async (gpu) => {
    const [row] = rows(9);
    const list = Array.from({ length: 400 }, () => row!);
    const draws = 100;
    const found = await drawn(gpu, list, draws);
    const top = Math.max(...row!);
    const weights = [...row!].map((z) => Math.exp(z - top));
    const total = weights.reduce((a, b) => a + b);
    let chiSquare = 0;
    for (const [v, w] of weights.entries()) {
      const seen = found.reduce(
        (sum, f) => sum + f.ids.reduce((s, id, i) => s + (id === v ? f.counts[i]! : 0), 0),
        0,
      );
      const expected = 400 * draws * w / total;
      chiSquare += (seen - expected) ** 2 / expected;
    }
    // 8 degrees of freedom: above 26 once in a thousand, and the numbers are the same in every run.
    assert(chiSquare < 26, `chi square ${chiSquare}`);
    const some = list.slice(0, 3);
    const counters = [500, 100, 101];
    const again = await drawn(gpu, some, draws, { counters });
    assertEquals([again[1], again[2]], [found[0], found[1]]);
    const other = await drawn(gpu, some, draws, { counters, seed: [8, 9] });
    assert(some.every((_, r) => String(other[r]!.counts) !== String(again[r]!.counts)));
  },
);

gpuTest("a draw with a planted mistake does not pass", async (gpu) => {
  const list = rows(300);
  const mistakes: Mistake[] = [
    ["counters[row], 0x72736b64u", "select(counters[row], row, WRONG), 0x72736b64u"],
    ["- before < sum", "- select(before, 0.0, WRONG) < sum"],
    ["isNew && other <= i", "isNew && other < i + select(1u, 0u, WRONG)"],
    [
      "exp(x[first + min(v, end - 1u)] - top)",
      "exp(select(1.0, 0.5, WRONG) * (x[first + min(v, end - 1u)] - top))",
    ],
    ["draws[other] < draw ||", "(draws[other] < draw && !WRONG) ||"],
  ];
  const faults = async (mistake: number) => {
    const found = await drawn(gpu, list, 40, { spoil: (t) => plantAny(t, mistakes), scalars: { mistake } });
    return list.flatMap((row, r) => fault(row, found[r]!, uniformNumbers(40, 100 + r, [7, 9]), 2e-5) ?? []);
  };
  assertEquals(await faults(0), []);
  for (const [i, [right]] of mistakes.entries()) assert((await faults(i + 1)).length > 0, right);
});

Deno.test("drawTokens() refuses more than 256 draws, and counters that do not fit", () => {
  const g = new Program().block("test");
  const x = g.input("x", [2, 3], "f32");
  const attributes = { draws: 257, seed: [0, 0] as const };
  assertThrows(
    () => drawTokens(x, g.input("c", [2], "u32"), attributes),
    ShapeError,
    "cannot draw 257 times",
  );
  assertThrows(
    () => drawTokens(x, g.input("d", [3], "u32"), { ...attributes, draws: 2 }),
    ShapeError,
    "one u32 counter a row",
  );
});
