/** Which models compute alike, and which of their layers can stand in for one another: of families that do not exist. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { checkAlike, layerDifferences } from "../../src/merge/parents/alike.ts";
import type { Parent } from "../../src/merge/parents/parents.ts";
import type { DecoderConfig } from "../../src/models/config.ts";

/** A config with what a family may say of its decoder: a layer is `x` or has another window. */
function configOf(layers: readonly object[], more: object = {}): DecoderConfig {
  return {
    hiddenSize: 16,
    layers: layers.length,
    vocabularySize: 100,
    eosTokens: layers.map((_, i) => i),
    inverseFrequencies: Float64Array.of(1, 0.1),
    decoder: { scale: 4, epsilon: 1e-6, layers },
    ...more,
  } as unknown as DecoderConfig;
}

function parentOf(name: string, config: DecoderConfig): Parent {
  return { name, architecture: { config } } as unknown as Parent;
}

const full = { attention: { scale: 0.25 } };
const windowed = { attention: { scale: 0.25, window: 8 } };

Deno.test("models are alike where only depth, tokens and what the result takes from the first differ", () => {
  const one = configOf([full, windowed]);
  const other = configOf([windowed, full, full], {
    vocabularySize: 101,
    inverseFrequencies: Float64Array.of(1, 0.2),
    decoder: { scale: 4, epsilon: 1e-5, layers: [windowed, full, full] },
  });
  assertEquals(checkAlike([parentOf("a", one), parentOf("b", one)]), []);
  assertEquals(checkAlike([parentOf("a", one), parentOf("b", other)]), [
    "the rotary frequencies (rope_theta, rope_scaling) of b differ from those of a, which the result has",
    "rms_norm_eps of b differ from those of a, which the result has",
  ]);
});

Deno.test("a number that differs deep in a config is told by its path", () => {
  const one = configOf([full]);
  const other = configOf([full], { hiddenSize: 32, decoder: { scale: 5, epsilon: 1e-6, layers: [full] } });
  assertThrows(
    () => checkAlike([parentOf("a", one), parentOf("b", other)]),
    InputError,
    "b: is another kind of model than a: hiddenSize is 32, not 16; decoder.scale is 5, not 4",
  );
});

Deno.test("models of one depth must have the same layers in the same order", () => {
  const [one, other] = [configOf([full, windowed, full]), configOf([full, full, full])];
  assertThrows(
    () => checkAlike([parentOf("a", one), parentOf("b", other)]),
    InputError,
    "b: is another kind of model than a: decoder.layers.attention.window is undefined, not 8",
  );
});

Deno.test("layers are compared as they are placed, whatever their numbers, but for norms and frequencies", () => {
  const one = configOf([full, windowed]);
  const table = (...numbers: number[]) => ({
    ...windowed,
    epsilon: numbers[0],
    rotary: {
      inverseFrequencies: Float64Array.from(numbers),
      theta: numbers[1],
      long: { beyond: numbers[0] },
    },
  });
  assertEquals(layerDifferences(configOf([{ ...full, rotary: { width: 4 } }]), 0, one, 0), [
    'decoder.layers.rotary is undefined, not {"width":4}',
  ]);
  assertEquals(layerDifferences(one, 0, one, 0), []);
  assertEquals(layerDifferences(one, 1, configOf([windowed]), 0), []);
  assertEquals(layerDifferences(one, 0, configOf([full, full, windowed]), 2), [
    "decoder.layers.attention.window is 8, not undefined",
  ]);
  assertEquals(layerDifferences(configOf([table(1, 2)]), 0, configOf([full, table(3, 4)]), 1), []);
});
