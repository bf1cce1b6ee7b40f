/**
 * Universal logit distillation over two vocabularies: sum over k of |u_(k) - v_(k)|, the probabilities of each model in falling order, the
 * shorter row padded with zeros.
 *
 * Boizard et al., "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs", arXiv 2402.12030, with `rows:
 * positional`; with rows of groups that cover the same bytes as in TRL's GOLD trainer, whose modes are "bayesian" (`chain`) and "observed",
 * there with rows one position too late. u and v are the models' rows times the probability of the group's other tokens.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineGroupLoss, type GroupLoss } from "../../src/registry/contract.ts";
import { groupSorts, PER_ENTRY, WORKGROUP } from "./row_sort.ts";
import { softmax } from "./softmax.ts";
import { SORTED_DIFFERENCE, sortedDifference } from "./sorted_difference.ts";

const universalLogitGroups: GroupLoss = defineGroupLoss({
  id: "universal-logit-groups",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "ULD over groups of tokens that cover the same bytes: for a teacher with another tokenizer",
  source: "arXiv 2402.12030; groups as in TRL's GOLD",
  options: z.strictObject({
    rows: z.enum(["chain", "observed", "first", "positional"]).default("chain").describe(
      "What stands for a group: chain: the last token's distribution times the probability of those before it; observed: the first " +
        "token's times that of those after it; first: the first token's; positional: no groups, token by token in order (the paper)",
    ),
  }),
  rows: ({ rows }) => rows,
  memory: { perEntry: PER_ENTRY, workgroup: WORKGROUP },
  wgsl: () => `
    ${groupSorts({ student: "student", teacher: "teacher" })}
    ${SORTED_DIFFERENCE}
    fn $sorted(id: u32) -> f32 { return exp($logU(student(id))); }
    fn $value() -> f32 { return $compare_sorted(); }
    fn $slope() -> f32 { return $mean; }
    fn $gradient(v: u32, z: f32) -> f32 {
      return (exp($logU(z)) * $slope_of(v) - exp($logQ(z)) * $mean) / $temperature();
    }`,
  reference({ student, teacher, studentScale, teacherScale, temperature }) {
    const [q, p] = [softmax(student, temperature), softmax(teacher, temperature)];
    const u = q.map((x) => x * Math.exp(studentScale));
    const v = p.map((x) => x * Math.exp(teacherScale));
    const { value, slopes } = sortedDifference(u, v);
    const slope = u.reduce((sum, x, i) => sum + x * slopes[i]!, 0);
    return {
      value,
      gradient: q.map((x, i) => (u[i]! * slopes[i]! - x * slope) / temperature),
      slope,
    };
  },
});

export default universalLogitGroups;
