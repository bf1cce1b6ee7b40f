/** YaRN's frequencies against those of transformers 5.24, which computes them in f32. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { parseRope } from "../../src/models/rope.ts";
import cases from "./yarn.json" with { type: "json" };

const RULES = { headDim: 16, theta: 10_000, contextLength: 128 };

for (const { rope, inverseFrequencies, attentionScaling } of cases) {
  const { rope_type: type, rope_theta, ...parameters } = rope as Record<string, unknown>;
  Deno.test(`frequencies of YaRN by ${JSON.stringify(parameters)}`, () => {
    const newer = parseRope({ rope_parameters: rope }, RULES, "config.json");
    assertEquals(newer.inverseFrequencies.length, inverseFrequencies.length);
    newer.inverseFrequencies.forEach((found, i) => {
      const wanted = inverseFrequencies[i]!;
      assert(Math.abs(found - wanted) <= 1e-6 * wanted, `frequency ${i} is ${found}, not ${wanted}`);
    });
    assert(Math.abs(newer.attentionScaling - attentionScaling) < 1e-12, `${newer.attentionScaling}`);
    const older = parseRope({ rope_theta, rope_scaling: { ...parameters, type } }, RULES, "config.json");
    assertEquals(older, newer);
  });
}

Deno.test("YaRN takes the ratio of the contexts where its factor is null", () => {
  const scaling = (factor: number | null) => ({
    rope_scaling: { type: "yarn", factor, original_max_position_embeddings: 32 },
  });
  const read = (factor: number | null) => parseRope(scaling(factor), RULES, "config.json");
  assertEquals(read(null), read(4));
  assert(read(4).inverseFrequencies.some((frequency, i) => frequency !== read(8).inverseFrequencies[i]));
});
