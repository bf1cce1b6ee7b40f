/**
 * Pairwise logistic ranking: the student should order the teacher's k favourites as the teacher does; mean over the pairs of
 * log(1 + exp(-(z_i - z_j))), i before j.
 *
 * The pair loss of RankNet (Burges et al., ICML 2005) with certain pairs. On logits as they are: temperature has no
 * effect. At ties of the teacher the lower id counts as the better.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineLoss,
  NO_ENTRY,
  type RowLoss,
  topEntries,
  topIds,
} from "../../src/registry/contract.ts";

const pairwiseRanking: RowLoss = defineLoss({
  id: "pairwise-ranking",
  version: "1.0.1",
  contract: CONTRACT_VERSION,
  description: "Logistic loss on every pair of the teacher's k likeliest tokens",
  source: "RankNet, ICML 2005",
  options: z.strictObject({
    k: z.int().min(2).max(64).default(8).describe("Tokens that are ranked"),
  }),
  needsTeacher: true,
  wgsl: ({ options: { k } }) => `
    ${topEntries("teacher", k)}
    var<private> $slopes: array<f32, ${k}>;
    var<private> $lowest: f32;
    var<private> $count: u32;
    fn $value() -> f32 {
      $find_teacher();
      $count = 0u;
      $lowest = 3.0e38;
      for (var i = 0u; i < ${k}u; i++) {
        $slopes[i] = 0.0;
        if ($ids_teacher[i] != ${NO_ENTRY}) { $count++; $lowest = teacher($ids_teacher[i]); }
      }
      let share = 1.0 / max(1.0, f32($count * (max($count, 1u) - 1u)) / 2.0);
      var total = 0.0;
      for (var i = 0u; i < $count; i++) {
        for (var j = i + 1u; j < $count; j++) {
          let gap = student($ids_teacher[i]) - student($ids_teacher[j]);
          total += max(-gap, 0.0) + log(1.0 + exp(-abs(gap)));
          let slope = share / (1.0 + exp(min(gap, 80.0)));
          $slopes[i] -= slope;
          $slopes[j] += slope;
        }
      }
      return total * share;
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      if (t < $lowest) { return 0.0; }
      for (var i = 0u; i < $count; i++) { if ($ids_teacher[i] == v) { return $slopes[i]; } }
      return 0.0;
    }`,
  reference({ student, teacher, options: { k } }) {
    const ids = topIds(teacher, k);
    const share = 1 / Math.max(1, ids.length * (ids.length - 1) / 2);
    const gradient = new Float64Array(student.length);
    let value = 0;
    ids.forEach((i, rank) =>
      ids.slice(rank + 1).forEach((j) => {
        const gap = student[i]! - student[j]!;
        value += share * (Math.max(-gap, 0) + Math.log1p(Math.exp(-Math.abs(gap))));
        const slope = share / (1 + Math.exp(gap));
        gradient[i]! -= slope;
        gradient[j]! += slope;
      })
    );
    return { value, gradient };
  },
});

export default pairwiseRanking;
