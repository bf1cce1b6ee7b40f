// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import {
  inputScores,
  keepBestOfAll,
  keepBestOfEach,
  standardised,
  unitCosts,
  unitScores,
} from "../../src/shape/width/flap.ts";
import type { DecoderConfig } from "../../src/models/config.ts";

const floats = (...values: number[]) => Float64Array.from(values);

Deno.test("inputScores() multiplies the variance of an input by the squares of the weights that read it", () => {
  assertEquals(inputScores(floats(2, 0, 3), floats(5, 7, 1)), floats(10, 0, 3));
});

Deno.test("standardised() divides by the sample deviation", () => {
  // Deviations -1, 0, 1 from the mean: the sample variance is 2 / 2, the population's 2 / 3.
  assertEquals(standardised(floats(3, 4, 5), "x"), floats(-1, 0, 1));
});

Deno.test("standardised() refuses values that are alike, or no numbers", () => {
  assertThrows(() => standardised(floats(2, 2, 2), "the inputs"), InputError, "vary alike");
  assertThrows(() => standardised(floats(2), "the inputs"), InputError, "vary alike");
  assertThrows(() => standardised(floats(2, NaN, 3), "the inputs"), InputError, "not finite");
});

Deno.test("unitScores() squares scores of attention, and takes the mean over a group's inputs", () => {
  const { groups, channels } = unitScores(floats(0, 1, 2, 3), floats(0, 1, 2, 3), 2, 0);
  // Squares 0 1 4 9: mean 3.5, sample variance 49 / 3; the groups' means are 0.5 and 6.5.
  assertAlmostEquals(groups[0]!, -3 / Math.sqrt(49 / 3), 1e-12);
  assertAlmostEquals(groups[1]!, 3 / Math.sqrt(49 / 3), 1e-12);
  // Not squared: mean 1.5, sample variance 5 / 3.
  [-1.5, -0.5, 0.5, 1.5].forEach((d, i) => assertAlmostEquals(channels[i]!, d / Math.sqrt(5 / 3), 1e-12));
});

Deno.test("unitCosts() counts rows of queries, keys and values, columns of the output, and a channel's three vectors", () => {
  const config = { hiddenSize: 64, headDim: 8, attentionHeads: 8, keyValueHeads: 4 } as DecoderConfig;
  assertEquals(unitCosts(config), { group: 3072, channel: 192 });
});

const SCORES = {
  groups: [floats(0.5, -1), floats(0.5, 2)],
  channels: [floats(0.5, 3, -2), floats(1, 0.5, -3)],
};
// Sorted: 3 (MLP 0.1), 2 (group 1.1), 1 (MLP 1.0), then 0.5: group 0.0, group 1.0, MLP 0.0, MLP 1.1; -1, -2, -3.
const COSTS = { group: 10, channel: 1 };

Deno.test("keepBestOfAll() keeps units up to the closest to the ratio, that one included", () => {
  // 46 in all. Cumulated: 1, 11, 12, 22, 32, 33, 34, 44, 45, 46.
  const kept = keepBestOfAll(SCORES, COSTS, 22 / 46);
  assertEquals(kept, { groups: [[0], [1]], channels: [[1], [0]], threshold: 0.5, next: 0.5 });
  assertEquals(keepBestOfAll(SCORES, COSTS, 1), {
    groups: [[0, 1], [0, 1]],
    channels: [[0, 1, 2], [0, 1, 2]],
    threshold: -3,
  });
});

Deno.test("keepBestOfAll() takes attention before the MLP and lower layers before higher ones where scores are alike", () => {
  assertEquals(keepBestOfAll(SCORES, COSTS, 32 / 46).groups, [[0], [0, 1]]);
  assertEquals(keepBestOfAll(SCORES, COSTS, 32 / 46).channels, [[1], [0]]);
  assertEquals(keepBestOfAll(SCORES, COSTS, 33 / 46).channels, [[0, 1], [0]]);
});

Deno.test("keepBestOfAll() takes the first of two that are equally close, and may leave a layer nothing", () => {
  // 6.5 of 13 lies in the middle of 6 and 7.
  const even = { groups: [floats(), floats()], channels: [floats(9, 8, 7), floats(-1, -2, -3)] };
  assertEquals(keepBestOfAll(even, COSTS, 0.5).channels, [[0, 1, 2], []]);
  const between = { groups: [floats()], channels: [floats(3, 2, 1)] };
  assertEquals(keepBestOfAll(between, COSTS, 0.5).channels, [[0]]);
});

Deno.test("keepBestOfAll() as AmoebaLLM's code does it cuts the unit at the threshold too, and weighs heads by 170", () => {
  // 686 in all; cumulated 1, 171, 172, 342: the last is the nearest to half.
  const kept = keepBestOfAll(SCORES, COSTS, 0.5, true);
  assertEquals(kept.threshold, 0.5);
  assertEquals([kept.groups, kept.channels], [[[], [1]], [[1], [0]]]);
});

Deno.test("keepBestOfEach() keeps as many in every layer, rounded half up, one at the least", () => {
  assertEquals(keepBestOfEach(SCORES, 0.5), { groups: [[0], [1]], channels: [[0, 1], [0, 1]] });
  assertEquals(keepBestOfEach(SCORES, 0.01), { groups: [[0], [1]], channels: [[1], [0]] });
  assertEquals(keepBestOfEach({ groups: [floats(1, 1, 1)], channels: [] }, 0.34).groups, [[0]]);
  assertEquals(keepBestOfEach({ groups: [floats(1, 1)], channels: [] }, 0.74).groups, [[0]]);
  assertEquals(keepBestOfEach({ groups: [floats(1, 1)], channels: [] }, 0.75).groups, [[0, 1]]);
});

Deno.test("a width out of (0, 1] is refused", () => {
  for (const ratio of [0, -0.5, 1.01, NaN]) {
    assertThrows(() => keepBestOfAll(SCORES, COSTS, ratio), InputError, "above 0 and at most 1");
    assertThrows(() => keepBestOfEach(SCORES, ratio), InputError, "above 0 and at most 1");
  }
});
