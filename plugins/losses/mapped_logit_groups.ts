/**
 * Forward KL to the teacher's distribution brought into the student's vocabulary token by token, one to one:
 *
 *   D = sum over mapped v of p^(v) ln(p^(v) / q(v)), p^ the teacher's distribution over the tokens that are mapped, made to sum to 1,
 *
 * for each of the student's tokens beside which one of the teacher's stands for the same; -ln q(label) for the others, of which the teacher
 * says nothing. q is over the whole of the student's vocabulary.
 *
 * FuseLLM (Wan et al., arXiv 2401.10491), whose sources keep the ten largest logits of each position; here all take part.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineGroupLoss, type GroupLoss, LOG_FLOOR } from "../../src/registry/contract.ts";
import { softmax } from "./softmax.ts";
import { groupSweep } from "./sorted_difference.ts";

const mappedLogitGroups: GroupLoss = defineGroupLoss({
  id: "mapped-logit-groups",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Forward KL to the distribution of a teacher with another tokenizer, mapped token by token",
  source: "arXiv 2401.10491 (FuseLLM)",
  options: z.strictObject({}),
  rows: () => "mapped",
  needsMatch: true,
  wgsl: () => `
    // Logarithm of the teacher's mass on mapped tokens.
    var<private> $mass: f32;
    fn $is_apart() -> bool { return row_is_apart || row_matched == 0u; }
    fn $log_target(v: u32) -> f32 {
      let w = teacher_of(v);
      if (w < 0) { return -3.0e38; }
      return $logV(teacher(u32(w))) - $mass;
    }
    fn $high(v: u32) -> f32 {
      if (v >= row_vocabulary) { return -3.0e38; }
      return $log_target(v);
    }
    fn $exp(v: u32, high: f32) -> f32 {
      if (v >= row_vocabulary) { return 0.0; }
      return exp($log_target(v) - high);
    }
    fn $term(v: u32) -> f32 {
      if (v >= row_vocabulary) { return 0.0; }
      let wanted = $log_target(v);
      if (wanted < -1.0e38) { return 0.0; }
      return exp(wanted) * (wanted - $logQ(student(v)));
    }
    fn $value() -> f32 {
      // Threads of a row go together, which the compiler must see: rows that stand apart sweep over nothing instead of returning.
      let count = select(row_vocabulary, 0u, $is_apart());
      $mass = 0.0;
      var high = -3.0e38;
      ${groupSweep("count", (v) => `high = max(high, $high(${v}));`, "")}
      high = row_max(high);
      var sum = 0.0;
      var part = 0.0;
      ${groupSweep("count", (v) => `part += $exp(${v}, high);`, "sum += part; part = 0.0;")}
      $mass = high + log(row_sum(sum));
      sum = 0.0;
      ${groupSweep("count", (v) => `part += $term(${v});`, "sum += part; part = 0.0;")}
      return select(row_sum(sum), -$logQ(student(row_label)), $is_apart());
    }
    fn $slope() -> f32 { return 0.0; }
    fn $gradient(v: u32, z: f32) -> f32 {
      var wanted = 0.0;
      if ($is_apart()) { wanted = select(0.0, 1.0, v == row_label); } else { wanted = exp($log_target(v)); }
      return (exp($logQ(z)) - wanted) / $temperature();
    }`,
  reference({ student, teacher, teacherOf, label = 0, isApart = false, temperature }) {
    const log = (x: number) => Math.max(Math.log(x), LOG_FLOOR);
    const q = softmax(student, temperature);
    const target = new Float64Array(q.length);
    const mapped = Array.from(teacherOf!).flatMap((w, v) => w >= 0 ? [v] : []);
    if (isApart || mapped.length === 0) target[label] = 1;
    else {
      const of = softmax(teacher, temperature);
      const logs = mapped.map((v) => log(of[teacherOf![v]!]!));
      const high = Math.max(...logs);
      const mass = logs.reduce((sum, l) => sum + Math.exp(l - high), 0);
      mapped.forEach((v, k) => target[v] = Math.exp(logs[k]! - high) / mass);
    }
    const value = target.reduce((sum, p, v) => p > 0 ? sum + p * (Math.log(p) - log(q[v]!)) : sum, 0);
    return { value, gradient: q.map((x, v) => (x - target[v]!) / temperature), slope: 0 };
  },
});

export default mappedLogitGroups;
