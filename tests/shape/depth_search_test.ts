// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import {
  checkDepthGoal,
  type DepthGoal,
  type DepthProgress,
  type DepthSearch,
  searchDepth,
  type SearchedModel,
} from "../../src/shape/depth/depth_search.ts";
import { depthProgram, depthProgramEvaluations } from "../../src/shape/depth/dynamic_program.ts";
import { cosineOrder, evenlySpaced, everyOther, keepByOrder } from "../../src/shape/depth/rules.ts";
import { beam, beamEvaluations, exhaustive, exhaustiveEvaluations } from "../../src/shape/depth/searches.ts";
import {
  betterFirst,
  combinationCount,
  combinations,
  type SubsetMetric,
  without,
} from "../../src/shape/depth/subsets.ts";
import ties from "./fixtures/depth_ties.json" with { type: "json" };

/** Values of subsets by their bits: bit l is set where layer l is kept. */
function tableMetric(byBits: readonly number[], asked: number[][] = []): SubsetMetric {
  return (kept) => {
    asked.push([...kept]);
    return Promise.resolve(byBits[kept.reduce((bits, layer) => bits | 1 << layer, 0)]!);
  };
}

/** Infinity as JSON has it. */
const told = (values: readonly (readonly number[])[]) =>
  values.map((row) => row.map((v) => (Number.isFinite(v) ? v : null)));

for (const { layers, keep_last: keepLast, metric_by_bits: byBits, d, plan, ties: count } of ties.cases) {
  Deno.test(`depthProgram breaks ${count} ties of ${layers} layers as AmoebaLLM does, ${keepLast} kept at the end`, async () => {
    const mostRemoved = Math.min(layers - keepLast, layers - 1);
    const asked: number[][] = [];
    const limits = { layers, keepLast, mostRemoved };
    const { values, plans, decisions } = await depthProgram(limits, tableMetric(byBits, asked));
    assertEquals(told(values), d);
    assertEquals(plans.map((row) => row.map((p) => p ?? null)), plan);
    assertEquals(decisions.filter(({ value, against }) => value === against).length, count);
    assert(decisions.every(({ removed }) => removed.every((l) => l < layers - keepLast)));
    assertEquals(asked.length, depthProgramEvaluations(limits));
  });
}

Deno.test("depthProgram with fewer removals fills the same cells", async () => {
  const { layers, metric_by_bits: byBits, d, plan } = ties.cases[1]!;
  const { values, plans } = await depthProgram({ layers, keepLast: 0, mostRemoved: 2 }, tableMetric(byBits));
  assertEquals(told(values), d.map((row) => row.slice(0, 3)));
  assertEquals(plans.map((row) => row.map((p) => p ?? null)), plan.map((row) => row.slice(0, 3)));
});

Deno.test("depthProgram goes round subsets without a number", async () => {
  // Without layer 2 nothing gives a number.
  const metric: SubsetMetric = (kept) => Promise.resolve(kept.includes(2) ? 3 - kept.length : NaN);
  const { values, plans, decisions } = await depthProgram(
    { layers: 3, keepLast: 0, mostRemoved: 2 },
    (kept) => metric(kept).then((v) => (Number.isNaN(v) ? Infinity : v)),
  );
  assertEquals(plans[3], [[], [1], [0, 1]]);
  assertEquals(values[3], [0, 1, 2]);
  assert(decisions.every(({ removed }) => removed.length === 1 || !removed.includes(2)));
});

/** A metric of no structure, but the same every time. */
const scattered = (layers: number): number[] =>
  Array.from({ length: 2 ** layers }, (_, bits) => (bits * 7919 + 17) % 1009);

Deno.test("exhaustive finds the best of all subsets", async () => {
  const asked: number[][] = [];
  const limits = { layers: 7, keepLast: 1, mostRemoved: 3 };
  const best = await exhaustive(limits, tableMetric(scattered(7), asked));
  assertEquals(asked.length, exhaustiveEvaluations(limits));
  assertEquals(new Set(asked.map(String)).size, 20);
  assert(asked.every((kept) => kept.length === 4 && kept.includes(6)));
  const table = tableMetric(scattered(7));
  for (const kept of asked) assert(best.value <= await table(kept));
});

Deno.test("exhaustive takes the first of equal subsets, by what they lack", async () => {
  const { kept } = await exhaustive({ layers: 4, keepLast: 0, mostRemoved: 2 }, () => Promise.resolve(1));
  assertEquals(kept, [2, 3]);
});

Deno.test("beam of width 1 removes the best layer each time, and a wide one finds the best subset", async () => {
  const byBits = scattered(6);
  const limits = { layers: 6, keepLast: 0, mostRemoved: 3 };
  const asked: number[][] = [];
  const greedy = await beam(limits, 1, tableMetric(byBits, asked));
  assertEquals(asked.length, 6 + 5 + 4);
  assertEquals(asked.length, beamEvaluations(limits, 1));
  let kept = without(6, []);
  const metric = tableMetric(byBits);
  for (let m = 0; m < 3; m++) {
    const found = await Promise.all(kept.map(async (gone) => {
      const fewer = kept.filter((l) => l !== gone);
      return { kept: fewer, value: await metric(fewer) };
    }));
    kept = [...found.sort(betterFirst(6))[0]!.kept];
  }
  assertEquals(greedy.kept, kept);
  const all: number[][] = [];
  const wide = await beam(limits, 100, tableMetric(byBits, all));
  assertEquals(wide, await exhaustive(limits, tableMetric(byBits)));
  assertEquals(all.length, beamEvaluations(limits, 100));
});

Deno.test("beam leaves the last layers alone", async () => {
  const asked: number[][] = [];
  await beam({ layers: 5, keepLast: 2, mostRemoved: 3 }, 2, tableMetric(scattered(5), asked));
  assert(asked.every((kept) => kept.includes(3) && kept.includes(4)));
});

Deno.test("combinations and their number agree", () => {
  assertEquals([...combinations(4, 2)], [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
  assertEquals([...combinations(3, 0)], [[]]);
  assertEquals([...combinations(2, 3)], []);
  for (const [n, k] of [[7, 3], [9, 9], [12, 5], [5, 1]] as const) {
    assertEquals([...combinations(n, k)].length, combinationCount(n, k));
  }
  assertEquals(combinationCount(32, 16), 601_080_390);
});

Deno.test("rules choose layers as they say", () => {
  assertEquals(cosineOrder([0.5, 0.9, 0.5, 0.95]), [3, 1, 0, 2]);
  assertEquals(keepByOrder([3, 1, 0, 2], 2, 0), [0, 2]);
  assertEquals(keepByOrder([3, 1, 0, 2], 2, 1), [2, 3]);
  assertEquals(everyOther(5), [0, 2, 4]);
  assertEquals(everyOther(6), [0, 2, 4]);
  assertEquals(evenlySpaced(6, 4), [0, 2, 3, 5]);
  assertEquals(evenlySpaced(6, 1), [0]);
  assertEquals(evenlySpaced(12, 12), without(12, []));
});

/** A model whose subsets are worth what a table says. */
function tableModel(layers: number, byBits: readonly number[], asked: number[][] = []): SearchedModel {
  const metric = tableMetric(byBits, asked);
  return {
    layers,
    measure: async (kept) => {
      const value = await metric(kept);
      return { value: Number.isFinite(value) ? value : null };
    },
    valueOf: ({ value }) => value ?? Infinity,
    cosines: () => Promise.resolve(Array.from({ length: layers }, (_, l) => 1 / (1 + l))),
  };
}

const goal = (search: DepthSearch, layers: number, more: Partial<DepthGoal> = {}): DepthGoal => ({
  ...{ search, layers, keepLast: 0, beamWidth: 2 },
  ...more,
});

Deno.test("searchDepth measures each subset once, and places plans among all of their size", async () => {
  const asked: number[][] = [];
  const told: DepthProgress[] = [];
  const found = await searchDepth(tableModel(6, scattered(6), asked), goal("dp", 3), (p) => told.push(p));
  assertEquals(new Set(asked.map(String)).size, asked.length);
  assertEquals(found.subsets.map(({ kept }) => kept), asked);
  assertEquals(told.map(({ kept }) => kept), asked);
  assertEquals(told.map(({ done }) => done), asked.map((_, i) => i + 1));
  assert(told.every(({ done, total }) => done <= total));
  assertEquals(found.possible, 20);
  const equals = found.subsets.filter(({ kept }) => kept.length === 3);
  assertEquals(found.evaluated, equals.length);
  for (const { value, rank } of [found.plan, ...found.others]) {
    assertEquals(rank, 1 + equals.filter((other) => other.value < value).length);
  }
  assertEquals(found.others.map(({ by }) => by).filter((by) => by !== "best"), [
    "cosine",
    "evenly-spaced",
    "every-other",
  ]);
  assertEquals(found.byLayers.map(({ layers }) => layers), [6, 5, 4, 3]);
  assertEquals(found.byLayers.at(-1)!.kept, found.plan.kept);
});

Deno.test("searchDepth tells of a better subset than the one it found", async () => {
  // A rule happens on the best subset; greedy removal does not.
  const byBits = Array.from({ length: 2 ** 4 }, (_, bits) => 10 - bits % 4);
  byBits[0b0101] = 0;
  const { plan, others } = await searchDepth(tableModel(4, byBits), goal("beam", 2, { beamWidth: 1 }));
  assertEquals([plan.kept, plan.by, plan.rank], [[0, 1], "beam", 2]);
  assertEquals(others[0], { by: "best", rank: 1, kept: [0, 2], value: 0, values: { value: 0 } });
});

Deno.test("searchDepth lets the last layers stay, and rules only that do", async () => {
  const { plan, others, subsets } = await searchDepth(
    tableModel(5, scattered(5)),
    goal("exhaustive", 3, { keepLast: 2 }),
  );
  assertEquals(plan.kept.slice(-2), [3, 4]);
  assertEquals(others.map(({ by, kept }) => [by, kept]), [["cosine", [2, 3, 4]]]);
  assert(subsets.every(({ kept }) => kept.includes(3) && kept.includes(4)));
});

Deno.test("searchDepth refuses a model without a value, and one that nothing is left of", async () => {
  const nothing = tableModel(4, new Array(16).fill(NaN));
  await assertRejects(
    () => searchDepth(nothing, goal("dp", 2)),
    InputError,
    "the whole model gives no finite",
  );
  const only = new Array(16).fill(Infinity);
  only[15] = 1;
  for (const search of ["dp", "exhaustive", "beam", "cosine"] as const) {
    await assertRejects(
      () => searchDepth(tableModel(4, only), goal(search, 2)),
      InputError,
      "no subset of 2 layers that was evaluated gives a finite value",
    );
  }
});

Deno.test("an exhaustive search over too many subsets is refused", () => {
  checkDepthGoal(goal("exhaustive", 8), 16);
  checkDepthGoal(goal("dp", 16), 32);
  assertThrows(
    () => checkDepthGoal(goal("exhaustive", 16), 32),
    InputError,
    "there are 601080390 ways to keep 16 of 32 layers, more than 100000",
  );
});
