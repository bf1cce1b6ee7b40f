/** Chosen tokens against the distribution function in f64, and their frequencies against exact probabilities. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { philox4x32 } from "../../src/base/random.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { type Draw, DRAW_WORDS, drawWords, sampleTokens } from "../../src/tensor/ops/sample_tokens.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, modelTest, randomArray, run } from "./harness.ts";
import { type Mistake, plantAny } from "./planted.ts";

const plain: Draw = { place: 3, sequence: 11, temperature: 1, topK: 0, topP: 1, seed: [7, 9] };

interface Chosen {
  readonly tokens: number[];
  readonly logProbabilities: number[];
  readonly entropies: number[];
}

/** What the kernel chooses of rows; tokens begin as -9. */
async function choose(
  gpu: Gpu,
  list: readonly Float32Array[],
  draws: readonly (Draw | undefined)[],
  options: { spoil?: (t: Tensor) => Tensor; scalars?: Record<string, number> } = {},
): Promise<Chosen> {
  const data = Float32Array.from(list.flatMap((row) => [...row]));
  const { inputs } = await run(
    gpu,
    [
      { shape: [list.length, list[0]!.length], data },
      { shape: [list.length, DRAW_WORDS], dtype: "u32", data: drawWords(draws) },
      { shape: [list.length], dtype: "i32", kind: "state", data: new Int32Array(list.length).fill(-9) },
      { shape: [list.length, 2], kind: "state", data: new Float32Array(2 * list.length).fill(NaN) },
    ],
    (_, x, draws, tokens, measures) => {
      const chosen = sampleTokens(x!, draws!, tokens!, measures!);
      return [options.spoil?.(chosen.tokens) ?? chosen.tokens, chosen.measures];
    },
    options.scalars,
  );
  const [, , tokens, measures] = inputs;
  return {
    tokens: [...tokens!],
    logProbabilities: list.map((_, r) => measures![2 * r]!),
    entropies: list.map((_, r) => measures![2 * r + 1]!),
  };
}

/** Probabilities by the definition: temperature, then top-k, then top-p over what is left. */
function exact(logits: Float32Array, { temperature, topK, topP }: Draw): number[] {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const top = logits[order[0]!]!;
  if (temperature === 0) return Array.from(logits.keys(), (id) => Number(id === order[0]));
  const weights = Float64Array.from(logits, (z) => Math.exp((z - top) / temperature));
  let kept = order.slice(0, topK || logits.length);
  if (topP < 1) {
    const all = kept.reduce((sum, id) => sum + weights[id]!, 0);
    let [sum, count] = [0, 0];
    while (sum < topP * all - 1e-12) sum += weights[kept[count++]!]!;
    kept = kept.slice(0, count);
  }
  const all = kept.reduce((sum, id) => sum + weights[id]!, 0);
  const probabilities = new Array<number>(logits.length).fill(0);
  for (const id of kept) probabilities[id] = weights[id]! / all;
  return probabilities;
}

/** What is wrong with a token, if anything: it must be the inverse of the distribution function at its number, but for f32's sums. */
function fault(logits: Float32Array, draw: Draw, token: number, slack = 2e-5): string | undefined {
  const probabilities = exact(logits, draw);
  if (!(probabilities[token]! > 0)) return `${token} has no probability`;
  const low = probabilities.slice(0, token).reduce((a, b) => a + b, 0);
  const high = low + probabilities[token]!;
  const [word] = philox4x32([draw.place, draw.sequence, 0, 0x73616d70], draw.seed);
  const number = ((word >>> 8) + 0.5) / 2 ** 24;
  return number < low - slack || number > high + slack
    ? `${number} gives ${token}: ${low}..${high}`
    : undefined;
}

/** Log-probability of a token and entropy of softmax(logits / temperature), in f64. */
function measure(logits: Float32Array, temperature: number, token: number): [number, number] {
  const z = Array.from(logits, (x) => x / (temperature || 1));
  const top = Math.max(...z);
  const normaliser = top + Math.log(z.reduce((sum, x) => sum + Math.exp(x - top), 0));
  const entropy = z.reduce(
    (sum, x) => x === -Infinity ? sum : sum - Math.exp(x - normaliser) * (x - normaliser),
    0,
  );
  return [z[token]! - normaliser, entropy];
}

/** Rows of one width: sharp, flat, peaked, half impossible, one likely last element; and how a token of each is chosen. */
function cases(width: number): { rows: Float32Array[]; draws: Draw[] } {
  const rows = [
    randomArray(width, 1, 4),
    new Float32Array(width),
    randomArray(width, 2, 60),
    randomArray(width, 3, 1).map((z, v) => width > 1 && v % 2 === 0 ? -Infinity : z),
    Float32Array.from({ length: width }, (_, v) => v === width - 1 ? 30 : 0),
    randomArray(width, 4, 2).map((z) => Math.round(z)),
  ];
  const ways: Partial<Draw>[] = [
    {},
    { temperature: 0 },
    { temperature: 0.7 },
    { topK: 5 },
    { topP: 0.9 },
    { temperature: 1.5, topK: 12, topP: 0.8 },
    { topK: width + 3 },
    { topP: 1e-6 },
  ];
  const all = rows.flatMap((row, r) =>
    ways.map((way, w) => ({ row, draw: { ...plain, ...way, sequence: 100 * r + w, place: w } }))
  );
  return { rows: all.map(({ row }) => row), draws: all.map(({ draw }) => draw) };
}

for (const width of [1, 7, 255, 257, 2049]) {
  gpuTest(`sampleTokens() of ${width} inverts the distribution function that is left`, async (gpu) => {
    const { rows, draws } = cases(width);
    const { tokens, logProbabilities, entropies } = await choose(gpu, rows, draws);
    rows.forEach((row, r) => {
      const what = `row ${r}: ${JSON.stringify(draws[r])}`;
      assertEquals(fault(row, draws[r]!, tokens[r]!), undefined, what);
      const [logProbability, entropy] = measure(row, draws[r]!.temperature, tokens[r]!);
      assertWithin([logProbabilities[r]!, entropies[r]!], [logProbability, entropy], 1e-4, what);
    });
  });
}

gpuTest("sampleTokens() copes with a large vocabulary, top-k and top-p together", async (gpu) => {
  const rows = [randomArray(262_145, 1, 6)];
  const draw = { ...plain, temperature: 0.9, topK: 40, topP: 0.7 };
  const { tokens } = await choose(gpu, rows, [draw]);
  assertEquals(fault(rows[0]!, draw, tokens[0]!), undefined);
});

/** Pearson's statistic over the degrees of freedom of so many draws of one row: about 1 for the right distribution. */
async function distance(
  gpu: Gpu,
  logits: Float32Array,
  draw: Draw,
  probabilities: number[],
): Promise<number> {
  const count = 4000;
  const draws = Array.from({ length: count }, (_, i) => ({ ...draw, sequence: i >> 6, place: i & 63 }));
  const { tokens } = await choose(gpu, draws.map(() => logits), draws);
  const counts = new Array<number>(logits.length).fill(0);
  for (const token of tokens) counts[token]!++;
  let [sum, freedom] = [0, -1];
  probabilities.forEach((p, id) => {
    if (p === 0) assertEquals(counts[id], 0, `token ${id} has no probability`);
    else if (p * count >= 5) {
      sum += (counts[id]! - p * count) ** 2 / (p * count);
      freedom++;
    }
  });
  return freedom < 1 ? 0 : sum / freedom;
}

modelTest(
  "sampleTokens() draws with the probabilities that temperature, top-k and top-p leave",
  async (gpu) => {
    const logits = randomArray(37, 5, 3);
    for (
      const way of [
        {},
        { temperature: 2 },
        { topK: 5 },
        { topP: 0.9 },
        { temperature: 1.5, topK: 12, topP: 0.8 },
        { seed: [0xffff_ffff, 0] as const },
      ]
    ) {
      const draw = { ...plain, ...way };
      const found = await distance(gpu, logits, draw, exact(logits, draw));
      assert(found < 2.2, `${JSON.stringify(way)}: chi-squared / freedom ${found}`);
    }
    // The test is sharp enough to see a temperature that is a quarter off.
    assertGreater(await distance(gpu, logits, plain, exact(logits, { ...plain, temperature: 1.25 })), 4);
    // Of equal ones the first are kept.
    const equal = Float32Array.of(1, 3, 3, 0, 3, -1);
    assert(await distance(gpu, equal, { ...plain, topK: 2 }, [0, 0.5, 0.5, 0, 0, 0]) < 8);
    const far = Float32Array.of(1e30, -1e30, 1e30, -Infinity);
    assert(await distance(gpu, far, { ...plain, topP: 0.99, topK: 3 }, [0.5, 0, 0.5, 0]) < 8);
  },
);

gpuTest("sampleTokens() leaves rows without a draw alone, and depends on its draw alone", async (gpu) => {
  const { rows, draws } = cases(33);
  const { tokens } = await choose(gpu, rows, draws);
  const some = await choose(gpu, rows, draws.map((draw, r) => r % 3 === 0 ? undefined : draw));
  assertEquals(some.tokens, tokens.map((token, r) => r % 3 === 0 ? -9 : token));
  assert(Number.isNaN(some.entropies[0]));
  const turned = await choose(gpu, [...rows].reverse(), [...draws].reverse());
  assertEquals(turned.tokens.reverse(), tokens);
  const other = await choose(gpu, rows, draws.map((draw) => ({ ...draw, seed: [8, 9] as const })));
  assert(other.tokens.some((token, r) => token !== tokens[r]));
});

gpuTest("a choice with a planted mistake does not pass", async (gpu) => {
  const { rows, draws } = cases(300);
  const mistakes: Mistake[] = [
    ["vec4<u32>(place, draws[8u * row + 1u]", "vec4<u32>(place, select(draws[8u * row + 1u], 0u, WRONG)"],
    ["if (z > top) {", "if (z > top || (WRONG && z == top)) {"],
    ["select(1.0 / max(temperature, 1.0e-6), 1.0,", "select(1.0 / max(temperature, 1.0e-6), 1.0, WRONG ||"],
    ["seen < kept_equals", "(WRONG || seen < kept_equals)"],
    ["var wanted = f32(top_k);", "var wanted = f32(top_k) + select(0.0, 1.0, WRONG);"],
    ["wanted = top_p * left;", "wanted = top_p * select(left, all, WRONG);"],
    ["wanted -= before;", "wanted -= select(before, 0.0, WRONG);"],
    ["all_moments / all", "select(1.0, 1.1, WRONG) * all_moments / all"],
  ];
  const faults = async (mistake: number) => {
    const { tokens, entropies } = await choose(gpu, rows, draws, {
      spoil: (t) => plantAny(t, mistakes),
      scalars: { mistake },
    });
    return rows.flatMap((row, r) => {
      const [, entropy] = measure(row, draws[r]!.temperature, tokens[r]!);
      return [
        fault(row, draws[r]!, tokens[r]!) ?? [],
        Math.abs(entropy - entropies[r]!) < 1e-4 ? [] : `entropy ${entropies[r]}, not ${entropy}`,
      ].flat();
    });
  };
  assertEquals(await faults(0), []);
  for (const [i, [right]] of mistakes.entries()) assert((await faults(i + 1)).length > 0, right);
});

Deno.test("sampleTokens() refuses operands that do not fit", () => {
  const g = new Program().block("test");
  const x = g.input("x", [2, 3], "f32");
  const draws = g.input("draws", [2, DRAW_WORDS], "u32");
  const tokens = g.state("tokens", [2], "i32");
  const measures = g.state("measures", [2, 2], "f32");
  sampleTokens(x, draws, tokens, measures);
  assertThrows(() => sampleTokens(x, draws, g.state("t", [3], "i32"), measures), ShapeError, "i32 [2]");
  assertThrows(
    () => sampleTokens(x, g.input("d", [2, 7], "u32"), tokens, measures),
    ShapeError,
    "expected u32 [2, 8]",
  );
});
