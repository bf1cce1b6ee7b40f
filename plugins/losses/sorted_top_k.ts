/**
 * Distance of the sorted probabilities: sum over i <= k of |q_(i) - p_(i)|, both in falling order, whichever tokens they belong to.
 *
 * After Boizard et al., "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs", arXiv 2402.12030,
 * cut to the k likeliest tokens of each model: the paper sorts the whole vocabulary, which is what this is where k is at least
 * the vocabulary.
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

const sortedTopK: RowLoss = defineLoss({
  id: "sorted-top-k",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "The k largest probabilities of both models compared in order, whichever tokens they belong to",
  source: "after arXiv 2402.12030, cut to k tokens",
  options: z.strictObject({
    k: z.int().min(1).max(64).default(32).describe("Tokens of each model"),
  }),
  needsTeacher: true,
  wgsl: ({ options: { k } }) => `
    ${topEntries("student", k)}
    ${topEntries("teacher", k)}
    var<private> $signs: array<f32, ${k}>;
    var<private> $lowest: f32;
    var<private> $mean: f32;
    fn $value() -> f32 {
      $find_student();
      $find_teacher();
      var total = 0.0;
      $mean = 0.0;
      $lowest = 3.0e38;
      for (var i = 0u; i < ${k}u; i++) {
        var q = 0.0;
        var p = 0.0;
        if ($ids_student[i] != ${NO_ENTRY}) {
          $lowest = student($ids_student[i]);
          q = exp($logQ($lowest));
        }
        if ($ids_teacher[i] != ${NO_ENTRY}) { p = exp($logP(teacher($ids_teacher[i]))); }
        total += abs(q - p);
        $signs[i] = sign(q - p);
        $mean += q * $signs[i];
      }
      return total;
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      var slope = 0.0;
      if (z >= $lowest) {
        for (var i = 0u; i < ${k}u; i++) { if ($ids_student[i] == v) { slope = $signs[i]; } }
      }
      return exp($logQ(z)) * (slope - $mean) / $temperature();
    }`,
  reference({ student, teacher, temperature, options: { k } }) {
    const softmax = (logits: Float64Array) => {
      const highest = Math.max(...logits);
      const e = logits.map((x) => Math.exp((x - highest) / temperature));
      const sum = e.reduce((a, b) => a + b, 0);
      return e.map((x) => x / sum);
    };
    const [q, p] = [softmax(student), softmax(teacher)];
    const wanted = topIds(teacher, k).map((v) => p[v]!);
    const slopes = new Float64Array(student.length);
    let [value, mean] = [0, 0];
    topIds(student, k).forEach((v, i) => {
      const difference = q[v]! - (wanted[i] ?? 0);
      value += Math.abs(difference);
      slopes[v] = Math.sign(difference);
      mean += q[v]! * slopes[v]!;
    });
    // Where the student has fewer finite logits than the target.
    for (const missing of wanted.slice(topIds(student, k).length)) value += missing;
    return { value, gradient: slopes.map((s, v) => q[v]! * (s - mean) / temperature) };
  },
});

export default sortedTopK;
