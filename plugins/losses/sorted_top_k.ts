/**
 * Distance of the sorted probabilities: sum over i <= k of |q_(i) - p_(i)|, both in falling order, whichever tokens they belong to, and
 * |Q - P| of what is left to the other tokens.
 *
 * After Boizard et al., "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs", arXiv 2402.12030, which
 * sorts the whole vocabulary. The rest as one more entry never overstates the paper's sum, by the triangle inequality, and is equal to it
 * where one model's sorted tail lies above the other's throughout, as that of a flatter model does; and where k is at least the vocabulary.
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
import { softmax } from "./softmax.ts";

/** Statements that make `place` the number of the student's k entries that stand before entry v with the logit z. */
function halving(k: number): string[] {
  const steps = Array.from({ length: 32 - Math.clz32(k) }, (_, i) => 2 ** i).reverse();
  return steps.map((step) =>
    `{
        let at = min(place + ${step - 1}u, ${k - 1}u);
        let isBefore = $sorted[at] > z || ($sorted[at] == z && $ids_student[at] < v);
        place += select(0u, ${step}u, isBefore && place + ${step}u <= ${k}u);
      }`
  );
}

const sortedTopK: RowLoss = defineLoss({
  id: "sorted-top-k",
  version: "2.0.1",
  contract: CONTRACT_VERSION,
  description:
    "The k largest probabilities of both models, and the rest, compared in order, whichever tokens they belong to",
  source: "after arXiv 2402.12030, all but k tokens taken together",
  options: z.strictObject({
    k: z.int().min(1).max(64).default(32).describe("Tokens of each model"),
  }),
  needsTeacher: true,
  wgsl: ({ options: { k } }) => `
    ${topEntries("student", k)}
    ${topEntries("teacher", k)}
    var<private> $signs: array<f32, ${k}>;
    var<private> $sorted: array<f32, ${k}>;
    var<private> $mean: f32;
    var<private> $tail: f32;
    fn $value() -> f32 {
      $find_student();
      $find_teacher();
      var total = 0.0;
      var rest_q = 1.0;
      var rest_p = 1.0;
      $mean = 0.0;
      for (var i = 0u; i < ${k}u; i++) {
        var q = 0.0;
        var p = 0.0;
        $sorted[i] = -3.0e38;
        if ($ids_student[i] != ${NO_ENTRY}) {
          $sorted[i] = student($ids_student[i]);
          q = exp($logQ($sorted[i]));
        }
        if ($ids_teacher[i] != ${NO_ENTRY}) { p = exp($logP(teacher($ids_teacher[i]))); }
        rest_q -= q;
        rest_p -= p;
        total += abs(q - p);
        $signs[i] = sign(q - p);
        $mean += q * $signs[i];
      }
      // Rounding must not leave something where there is nothing.
      rest_q = select(max(rest_q, 0.0), 0.0, $ids_student[${k - 1}] == ${NO_ENTRY});
      rest_p = select(max(rest_p, 0.0), 0.0, $ids_teacher[${k - 1}] == ${NO_ENTRY});
      $tail = sign(rest_q - rest_p);
      $mean += rest_q * $tail;
      return total + abs(rest_q - rest_p);
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      // Its place among the sorted by halving, without a loop: this code stands in the kernel for each entry of a turn.
      var place = 0u;
      ${halving(k).join("\n      ")}
      let slope = select($tail, $signs[min(place, ${k - 1}u)], $ids_student[min(place, ${k - 1}u)] == v);
      return exp($logQ(z)) * (slope - $mean) / $temperature();
    }`,
  reference({ student, teacher, temperature, options: { k } }) {
    const [q, p] = [softmax(student, temperature), softmax(teacher, temperature)];
    const wanted = topIds(teacher, k).map((v) => p[v]!);
    const own = topIds(student, k);
    const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
    // What is left is summed, not subtracted: a difference of 1e-16 has a sign too.
    const left = (probabilities: Float64Array, top: readonly number[]) => {
      const taken = new Set(top);
      return top.length < k ? 0 : sum([...probabilities].filter((_, v) => !taken.has(v)));
    };
    const [restQ, restP] = [left(q, own), left(p, topIds(teacher, k))];
    const slopes = new Float64Array(student.length).fill(Math.sign(restQ - restP));
    let value = Math.abs(restQ - restP);
    let mean = restQ * Math.sign(restQ - restP);
    own.forEach((v, i) => {
      const difference = q[v]! - (wanted[i] ?? 0);
      value += Math.abs(difference);
      slopes[v] = Math.sign(difference);
      mean += q[v]! * slopes[v]!;
    });
    // Where the student has fewer finite logits than the target.
    for (const missing of wanted.slice(own.length)) value += missing;
    return { value, gradient: slopes.map((s, v) => q[v]! * (s - mean) / temperature) };
  },
});

export default sortedTopK;
