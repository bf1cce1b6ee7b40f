// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { readOption, readSetting, type Settings } from "../../src/merge/recipe/setting.ts";

Deno.test("a gradient is linear between evenly spaced knots", () => {
  const at = (knots: number[], t: number) => readSetting(knots, "w", t) as number;
  assertEquals([0, 0.25, 0.5, 1].map((t) => at([1, 3, 5], t)), [1, 2, 3, 5]);
  // By hand: t = 2/3 lies at 2 of [0, 3], on the third knot; t = 0.9 at 2.7, 0.7 of the way from -1 to 4.
  assertAlmostEquals(at([0, 10, -1, 4], 2 / 3), -1, 1e-12);
  assertAlmostEquals(at([0, 10, -1, 4], 0.9), 2.5, 1e-12);
  assertEquals(at([7], 0.5), 7);
});

Deno.test("of a list of filters the first that fits counts", () => {
  const setting = [{ filter: "mlp", value: [1, 2] }, { filter: "layers.1.", value: 5 }, { value: 9 }];
  assertEquals(readSetting(setting, "model.layers.1.mlp.up_proj.weight", 0.5), 1.5);
  assertEquals(readSetting(setting, "model.layers.1.self_attn.q_proj.weight", 0.5), 5);
  assertEquals(readSetting(setting, "model.norm.weight", 0), 9);
  assertEquals(readSetting([{ filter: "*", value: true }], "w", 0), true);
  assertEquals(readSetting([{ filter: "mlp", value: 1 }], "model.norm.weight", 0), undefined);
  assertEquals(readSetting({ filter: "norm", value: 3 }, "model.norm.weight", 0), 3);
});

Deno.test("a level that says nothing for a tensor leaves it to the next", () => {
  const levels: Settings[] = [{ weight: [{ filter: "mlp", value: 1 }] }, { density: 4 }, {
    weight: 2,
    density: 3,
  }];
  assertEquals(readOption("weight", levels, "mlp.x", 0), 1);
  assertEquals(readOption("weight", levels, "norm", 0), 2);
  assertEquals(readOption("density", levels, "norm", 0), 4);
  assertEquals(readOption("gamma", levels, "norm", 0), undefined);
  assertEquals(readOption("toString", levels, "norm", 0), undefined);
});
