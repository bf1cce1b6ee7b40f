/** When a run stops because its numbers are none, or have become much worse. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { DivergedError } from "../../src/base/errors.ts";
import type { StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { checkDivergence } from "../../src/distill/run/divergence_guard.ts";

const GUARD = { maxLossFactor: 3, window: 2 };
const BEGIN = { sum: 0, count: 0, lowest: null };

const step = (changed: Partial<StepMetrics> = {}): StepMetrics => ({
  ...{ step: 7, loss: 2, losses: {}, learningRate: 1e-3, gradientNorm: 1, supervisedTokens: 1, tokens: 1 },
  ...{ nonFinite: false, controlled: {} },
  ...changed,
});

Deno.test("a step whose loss or gradient is no finite number ends the run, infinite ones as those that are none", () => {
  for (const loss of [NaN, Infinity, -Infinity]) {
    const error = assertThrows(() => checkDivergence(step({ loss }), BEGIN, GUARD), DivergedError);
    assertEquals(error.message, "the loss of step 7 is not a finite number");
  }
  for (const wrong of [{ gradientNorm: NaN }, { gradientNorm: Infinity }, { nonFinite: true }]) {
    const error = assertThrows(() => checkDivergence(step(wrong), BEGIN, GUARD), DivergedError);
    assertEquals(error.message, "the gradient of step 7 is not a finite number");
  }
  // As SwiftShader has it, where exp(NaN) is infinite: the loss is the log of that, the gradient still none.
  assertThrows(
    () => checkDivergence(step({ loss: Infinity, gradientNorm: NaN }), BEGIN, GUARD),
    DivergedError,
  );
  assertThrows(() => checkDivergence(step({ loss: 89.1, gradientNorm: NaN }), BEGIN, GUARD), DivergedError);
});

Deno.test("a run ends where the mean loss of a window is so many times the lowest, and not for a single bad step", () => {
  let window: ReturnType<typeof checkDivergence> = BEGIN;
  for (const loss of [2, 2, 1, 1, 4, 1.9]) window = checkDivergence(step({ loss }), window, GUARD);
  assertEquals(window, { sum: 0, count: 0, lowest: 1 });
  const before = checkDivergence(step({ loss: 3 }), window, GUARD);
  assertEquals(before, { sum: 3, count: 1, lowest: 1 });
  assertThrows(
    () => checkDivergence(step({ loss: 3.1 }), before, GUARD),
    DivergedError,
    "3.0 times the lowest",
  );
  assertEquals(checkDivergence(step({ loss: 3.1 }), before, { ...GUARD, maxLossFactor: 0 }).lowest, 1);
});
