/** Which shapes are on the frontier, and the picture of them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { frontier, nearFrontier, type Tradeoff } from "../../src/base/frontier.ts";
import { frontierCharts } from "../../src/runs/report/charts/frontier_chart.ts";
import type { PicturedShape } from "../../src/runs/report/charts/frontier_points.ts";
import { seededRandom } from "../random.ts";

const itself = (item: Tradeoff) => item;

Deno.test("what no other beats is on the frontier, and nothing else", () => {
  const random = seededRandom("frontier");
  for (let round = 0; round < 50; round++) {
    // Few values, so that many are equal.
    const items = Array.from(
      { length: 1 + Math.floor(random() * 30) },
      (): Tradeoff => [Math.floor(random() * 8), Math.floor(random() * 8) / 4],
    );
    const isBeaten = ([cost, loss]: Tradeoff) =>
      items.some(([c, l]) => c <= cost && l <= loss && (c < cost || l < loss));
    const found = frontier(items, itself);
    assertEquals(new Set(found), new Set(items.filter((item) => !isBeaten(item))));
    assertEquals(found.length, new Set(found).size, "each item once");
    assertEquals(found.map(([cost]) => cost), found.map(([cost]) => cost).sort((a, b) => a - b));
    for (const tolerance of [0, 0.3]) {
      const near = items.filter(([cost, loss]) => {
        const lowest = Math.min(...items.filter(([c]) => c <= cost).map(([, l]) => l));
        return loss <= lowest + tolerance * Math.abs(lowest);
      });
      assertEquals(new Set(nearFrontier(items, itself, tolerance)), new Set(near));
    }
  }
});

Deno.test("equal items stand beside each other, and what is no number on no frontier", () => {
  const items: Tradeoff[] = [[2, 1], [1, 3], [2, 1], [3, 1], [1, NaN], [0, Infinity], [NaN, 0], [-1, 4]];
  assertEquals(frontier(items, itself), [[-1, 4], [1, 3], [2, 1], [2, 1]]);
  // Losses below zero, as those of accuracies are.
  assertEquals(nearFrontier([[1, -0.5], [2, -0.48], [2, -0.4]], itself, 0.1), [[1, -0.5], [2, -0.48]]);
  assertEquals(frontier([], itself), []);
});

/** Centres of the circles of a kind, of the first chart or another. */
function circles(svg: string, kind: string): number {
  return svg.split("<figcaption")[0]!.match(new RegExp(`<circle class="${kind}"`, "g"))?.length ?? 0;
}

Deno.test("the picture greys what is beaten, draws the frontier and fills what was chosen", () => {
  const shapes: PicturedShape[] = [
    { name: "whole", value: 1, parameters: 6e6, tokensPerSecond: 100 },
    { name: "layers <0>", value: 2, parameters: 4e6, tokensPerSecond: 150, chosen: true },
    // More parameters and a higher loss than the one before, but the fastest.
    { name: "narrow", value: 2.5, parameters: 5e6, tokensPerSecond: 200 },
    { name: "untimed", value: 3, parameters: 4e6 },
    { name: "the same spot", value: 3, parameters: 4e6 },
    { name: "broken", value: null, parameters: 1e6, tokensPerSecond: 900 },
  ];
  const [parameters, speed, ...more] = frontierCharts(shapes, { name: "held-out loss" });
  assertEquals(more, []);
  assertStringIncludes(parameters!, "Held-out loss against parameters");
  assertStringIncludes(speed!, "Held-out loss against tokens a second");
  const kinds = (svg: string) => ["c0", "c0 chosen", "dominated"].map((kind) => circles(svg, kind));
  assertEquals(kinds(parameters!), [1, 1, 2]);
  assertEquals(kinds(speed!), [2, 1, 0]);
  assertStringIncludes(parameters!, "layers &lt;0&gt;: 2.000, 4 M parameters");
  assert(!/NaN|Infinity|undefined|<0>/.test(parameters! + speed!));

  // Of accuracies the highest are best: of as many parameters the first is beaten.
  const [accuracy] = frontierCharts(
    [{ ...shapes[1]!, chosen: false, value: 0.5 }, { ...shapes[3]!, value: 0.6 }, {
      ...shapes[0]!,
      value: 0.7,
    }],
    { name: "accuracy", higherIsBetter: true },
  );
  assertEquals(kinds(accuracy!), [2, 0, 1]);
  assertStringIncludes(accuracy!, "untimed: 0.600");
  assertEquals(frontierCharts(shapes.slice(0, 1), { name: "loss" }), []);
});

Deno.test("a chosen shape that is beaten is seen", () => {
  const [picture] = frontierCharts(
    [{ name: "a", value: 1, parameters: 1 }, { name: "b", value: 2, parameters: 2, chosen: true }],
    { name: "loss" },
  );
  assertEquals(["c0", "c0 chosen", "dominated"].map((kind) => circles(picture!, kind)), [1, 1, 0]);
  assert(!picture!.includes("dominated chosen"));
});
