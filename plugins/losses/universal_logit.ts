/**
 * Universal logit distillation: sum over i of |q_(i) - p_(i)|, the probabilities of each model in falling order, whichever tokens they
 * belong to. It is the 1-Wasserstein distance of the two sets of probabilities, times the vocabulary.
 *
 * Boizard et al., "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs", arXiv 2402.12030, here over one
 * vocabulary. The slope of the student's i-th token is sign(q_(i) - p_(i)), so both rows are sorted whole. Equal logits of the student
 * stand in the order of their ids; where both probabilities are equal the subgradient 0 is taken.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineLoss, type RowLoss } from "../../src/registry/contract.ts";
import { PER_ENTRY, ROW_SORTS, WORKGROUP } from "./row_sort.ts";
import { softmax } from "./softmax.ts";

const universalLogit: RowLoss = defineLoss({
  id: "universal-logit",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "ULD: all probabilities of both models compared in order, whichever tokens they belong to",
  source: "arXiv 2402.12030, over one vocabulary",
  options: z.strictObject({}),
  needsTeacher: true,
  memory: { perEntry: PER_ENTRY, workgroup: WORKGROUP },
  wgsl: () => `
    ${ROW_SORTS}
    var<private> $slopes: u32;
    var<private> $mean: f32;
    fn $value() -> f32 {
      // Three thirds: the sorted teacher in one, the sorted student in another, in the last the slope of each entry.
      let third = row_vocabulary;
      let wanted = $sort_teacher(0u, third);
      let own = $sort_student(third - wanted, 2u * third);
      $slopes = 3u * third - wanted - own;
      var total = 0.0;
      $mean = 0.0;
      // Sums of blocks are added up: a lane of a wide row has many terms.
      for (var block = lane; block < row_vocabulary; block += 32u * LANES) {
        var part = vec2<f32>();
        for (var turn = 0u; turn < 4u; turn++) {
          let first = block + 8u * LANES * turn;
          if (first >= row_vocabulary) { break; }
          ${
    Array.from({ length: 8 }, (_, u) => `part += $compare(first + ${u}u * LANES, own, wanted);`).join(
      "\n          ",
    )
  }
        }
        total += part.x;
        $mean += part.y;
      }
      let value = row_sum(total);
      $mean = row_sum($mean);
      row_barrier();
      return value;
    }
    // |q_(i) - p_(i)| and q_(i) times its sign, which becomes the slope of the student's i-th token.
    fn $compare(i: u32, own: u32, wanted: u32) -> vec2<f32> {
      if (i >= row_vocabulary) { return vec2<f32>(); }
      let id = $load(own + i);
      let q = exp($logQ(student(id)));
      let p = exp($logP($logit_of($load(wanted + i))));
      let slope = sign(q - p);
      $store($slopes + id, bitcast<u32>(slope));
      return vec2<f32>(abs(q - p), q * slope);
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      return exp($logQ(z)) * (bitcast<f32>($load($slopes + v)) - $mean) / $temperature();
    }`,
  reference({ student, teacher, temperature }) {
    const [q, p] = [softmax(student, temperature), softmax(teacher, temperature)];
    const wanted = p.toSorted().reverse();
    const slopes = new Float64Array(q.length);
    let [value, mean] = [0, 0];
    [...student.keys()].sort((a, b) => student[b]! - student[a]! || a - b).forEach((v, i) => {
      const difference = q[v]! - wanted[i]!;
      slopes[v] = Math.sign(difference);
      value += Math.abs(difference);
      mean += q[v]! * slopes[v]!;
    });
    return { value, gradient: slopes.map((s, v) => q[v]! * (s - mean) / temperature) };
  },
});

export default universalLogit;
