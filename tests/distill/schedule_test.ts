/** The learning rate of every step of a short run, worked out by hand. */
// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { learningRateAt, type ScheduleOptions } from "../../src/distill/recipe/schedule.ts";

const options = (changes: Partial<ScheduleOptions>): ScheduleOptions => ({
  learningRate: 8,
  minimumLearningRate: 0,
  schedule: "constant",
  warmup: 0,
  steps: 10,
  ...changes,
});

function assertCourse(changes: Partial<ScheduleOptions>, expected: readonly number[]): void {
  expected.forEach((rate, step) => {
    assertAlmostEquals(learningRateAt(step, options(changes)), rate, 1e-12, `step ${step}`);
  });
}

/** sqrt(2) / 2: the cosine of an eighth of a turn. */
const R = Math.SQRT1_2;

Deno.test("learningRateAt() rises from 0 in equal parts and reaches its height right after the warm-up", () => {
  for (const schedule of ["constant", "linear", "cosine"] as const) {
    assertCourse({ schedule, warmup: 4 }, [0, 2, 4, 6, 8]);
    assertEquals(learningRateAt(0, options({ schedule })), 8);
  }
});

Deno.test("learningRateAt() keeps, lowers or bends the rate after the warm-up", () => {
  assertCourse({ warmup: 2 }, [0, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8]);
  assertCourse({ schedule: "linear", warmup: 2 }, [0, 4, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
  // 8 (1 + cos(pi k / 8)) / 2 at every second k.
  const cosine = [8, 4 + 4 * R, 4, 4 - 4 * R, 0];
  cosine.forEach((rate, i) => {
    assertAlmostEquals(learningRateAt(2 + 2 * i, options({ schedule: "cosine", warmup: 2 })), rate, 1e-12);
  });
});

Deno.test("learningRateAt() ends at the minimum, stays there, and warms up from 0 all the same", () => {
  assertCourse({ schedule: "linear", minimumLearningRate: 2, warmup: 4 }, [
    0,
    2,
    4,
    6,
    8,
    7,
    6,
    5,
    4,
    3,
    2,
    2,
    2,
  ]);
  assertCourse({ schedule: "cosine", minimumLearningRate: 2, steps: 2 }, [8, 5, 2, 2]);
});
