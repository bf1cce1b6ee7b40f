// A loss over groups of tokens of two tokenizers, for a teacher whose vocabulary is not the student's: each model's probability that two
// draws give the same token. It says how sure a model is, whichever tokens it has.
//
//   limbeck plugin check examples/plugins/collision.ts

import { CONTRACT_VERSION, defineGroupLoss } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineGroupLoss({
  id: "example/collision",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "half the squared difference of the sums of squared probabilities",
  options: z.strictObject({
    rows: z.enum(["first", "chain", "observed"]).default("first").describe("What stands for a group"),
  }),
  rows: ({ rows }) => rows,

  wgsl: () => /* wgsl */ `
    var<private> $own: f32;
    var<private> $difference: f32;

    // The loss of the group. All lanes call it together, and each must return the same number.
    fn $value() -> f32 {
      var own = 0.0;
      var other = 0.0;
      for (var v = lane; v < row_vocabulary; v += LANES) { own += exp(2.0 * $logU(student(v))); }
      for (var w = lane; w < row_teacher_vocabulary; w += LANES) { other += exp(2.0 * $logV(teacher(w))); }
      $own = row_sum(own);
      $difference = $own - row_sum(other);
      return 0.5 * $difference * $difference;
    }

    // Its derivative by the logarithm of what u is multiplied by: the sum of dD/d ln u over the vocabulary.
    fn $slope() -> f32 { return 2.0 * $difference * $own; }

    // Its derivative by the student's logit z of entry v: (dD/d ln u_v - q_v * slope) / temperature.
    fn $gradient(v: u32, z: f32) -> f32 {
      return (2.0 * $difference * exp(2.0 * $logU(z)) - exp($logQ(z)) * $slope()) / $temperature();
    }`,

  reference({ student, teacher, studentScale, teacherScale, temperature }) {
    const softmax = (z: Float64Array) => {
      const high = Math.max(...z);
      const e = z.map((x) => Math.exp((x - high) / temperature));
      const sum = e.reduce((a, b) => a + b);
      return e.map((x) => x / sum);
    };
    const q = softmax(student);
    const squares = (p: Float64Array, scale: number) =>
      p.reduce((sum, x) => sum + (x * Math.exp(scale)) ** 2, 0);
    const own = squares(q, studentScale);
    const difference = own - squares(softmax(teacher), teacherScale);
    const slope = 2 * difference * own;
    const gradient = q.map((x) =>
      (2 * difference * (x * Math.exp(studentScale)) ** 2 - x * slope) / temperature
    );
    return { value: 0.5 * difference ** 2, gradient, slope };
  },
});
