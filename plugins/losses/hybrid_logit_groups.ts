/**
 * The hybrid of two ways to compare rows of two vocabularies: tokens that are the same in both directly, by a Jensen-Shannon divergence of
 * vectors that are not normalised, the others in falling order:
 *
 *   D = wm J(v[matched], u[matched]) + wu S(u[others], v[others]),
 *   J = beta sum v ln(v / m) + (1 - beta) sum u ln(u / m), m = beta v + (1 - beta) u;
 *   beta 0: sum v ln(v / u); beta 1: sum u ln(u / v).
 *
 * As in TRL's GOLD trainer (its hybrid loss), which clamps probabilities at 1e-8. dJ/d ln u is (1 - beta) u ln(u / m) in between, -v at
 * beta 0, u (ln(u / v) + 1) at beta 1.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineGroupLoss, type GroupLoss, LOG_FLOOR } from "../../src/registry/contract.ts";
import { groupSorts, PER_ENTRY, WORKGROUP } from "./row_sort.ts";
import { softmax } from "./softmax.ts";
import { groupSweep, SORTED_DIFFERENCE, sortedDifference } from "./sorted_difference.ts";

const share = z.number().min(0).optional();

const hybridLogitGroups: GroupLoss = defineGroupLoss({
  id: "hybrid-logit-groups",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "Equal tokens of two vocabularies compared directly, the others in falling order (GOLD's hybrid)",
  source: "TRL's GOLD trainer",
  options: z.strictObject({
    rows: z.enum(["chain", "observed", "first"]).default("chain").describe(
      "What stands for a group, as in universal-logit-groups",
    ),
    beta: z.number().min(0).max(1).default(0.5).describe(
      "Of equal tokens: 0 is forward KL, 1 reverse KL, between them a Jensen-Shannon divergence",
    ),
    matched: share.describe(
      "Factor of the equal tokens' part; with `others` absent too, their share of the teacher's vocabulary",
    ),
    others: share.describe("Factor of the other tokens' part; the rest of that share when absent"),
  }).refine(({ matched, others }) => (matched === undefined) === (others === undefined), {
    error: "matched and others are given both or neither",
  }),
  rows: ({ rows }) => rows,
  needsMatch: true,
  memory: { perEntry: PER_ENTRY, workgroup: WORKGROUP },
  wgsl: ({ options: { beta, matched, others } }) => `
    fn $matched_weight() -> f32 { return ${matched ?? "f32(row_matched) / f32(row_teacher_vocabulary)"}; }
    fn $others_weight() -> f32 { return ${others ?? "1.0 - f32(row_matched) / f32(row_teacher_vocabulary)"}; }
    // Tokens that are compared directly stand last among the others, with probability 0.
    fn $other_student(v: u32) -> f32 { return select(student(v), -3.0e38, teacher_of(v) >= 0); }
    fn $other_teacher(w: u32) -> f32 { return select(teacher(w), -3.0e38, student_of(w) >= 0); }
    ${groupSorts({ student: "$other_student", teacher: "$other_teacher" })}
    ${SORTED_DIFFERENCE}
    var<private> $total: f32;
    fn $sorted(id: u32) -> f32 {
      return select(exp($logU(student(id))), 0.0, teacher_of(id) >= 0);
    }
    ${jensen(beta)}
    fn $matched_term(v: u32) -> vec2<f32> {
      if (v >= row_vocabulary) { return vec2<f32>(); }
      let w = teacher_of(v);
      if (w < 0) { return vec2<f32>(); }
      return $jensen($logU(student(v)), $logV(teacher(u32(w))));
    }
    fn $value() -> f32 {
      let rest = $others_weight() * $compare_sorted();
      var sum = vec2<f32>();
      var part = vec2<f32>();
      ${
    groupSweep("row_vocabulary", (v) => `part += $matched_term(${v});`, "sum += part; part = vec2<f32>();")
  }
      let matched = $matched_weight() * row_sum2(sum);
      $total = matched.y + $others_weight() * $mean;
      return matched.x + rest;
    }
    fn $slope() -> f32 { return $total; }
    fn $gradient(v: u32, z: f32) -> f32 {
      let w = teacher_of(v);
      var own = 0.0;
      if (w >= 0) {
        own = $matched_weight() * $jensen($logU(z), $logV(teacher(u32(w)))).y;
      } else {
        own = $others_weight() * exp($logU(z)) * $slope_of(v);
      }
      return (own - exp($logQ(z)) * $total) / $temperature();
    }`,
  reference({ student, teacher, studentScale, teacherScale, teacherOf, temperature, options }) {
    const { beta } = options;
    const [q, p] = [softmax(student, temperature), softmax(teacher, temperature)];
    const u = q.map((x) => x * Math.exp(studentScale));
    const v = p.map((x) => x * Math.exp(teacherScale));
    const pairs = Array.from(teacherOf!, (w, i) => ({ own: i, other: w })).filter(({ other }) => other >= 0);
    const wm = options.matched ?? pairs.length / teacher.length;
    const wu = options.others ?? 1 - pairs.length / teacher.length;
    const [restU, restV] = [u.slice(), v.slice()];
    const ofLogU = new Float64Array(u.length);
    let value = 0;
    for (const { own, other } of pairs) {
      restU[own] = 0;
      restV[other] = 0;
      // Floors as in the kernel, for what is padded with -inf.
      const log = (x: number) => Math.max(Math.log(x), LOG_FLOOR);
      const logs = [log(q[own]!) + studentScale, log(p[other]!) + teacherScale] as const;
      const term = matchedTerm(...logs, beta);
      value += wm * term.value;
      ofLogU[own] = wm * term.slope;
    }
    const sorted = sortedDifference(restU, restV);
    value += wu * sorted.value;
    sorted.slopes.forEach((s, i) => teacherOf![i]! < 0 && (ofLogU[i] = wu * u[i]! * s));
    const slope = ofLogU.reduce((a, b) => a + b, 0);
    return { value, gradient: q.map((x, i) => (ofLogU[i]! - x * slope) / temperature), slope };
  },
});

/** A term of J in f64, and its derivative by log u. */
function matchedTerm(logU: number, logV: number, beta: number): { value: number; slope: number } {
  const [u, v] = [Math.exp(logU), Math.exp(logV)];
  if (beta === 0) return { value: v * (logV - logU), slope: -v };
  if (beta === 1) return { value: u * (logU - logV), slope: u * (logU - logV + 1) };
  const high = Math.max(logU, logV);
  const logM = high + Math.log(beta * Math.exp(logV - high) + (1 - beta) * Math.exp(logU - high));
  const own = (1 - beta) * u * (logU - logM);
  return { value: beta * v * (logV - logM) + own, slope: own };
}

/** `$jensen(logU, logV)`: a term of J, and its derivative by log u. */
function jensen(beta: number): string {
  const body = beta === 0
    ? "return vec2<f32>(exp(v) * (v - u), -exp(v));"
    : beta === 1
    ? "return vec2<f32>(exp(u) * (u - v), exp(u) * (u - v + 1.0));"
    : `let a = v + ${Math.log(beta)};
      let b = u + ${Math.log1p(-beta)};
      let m = max(a, b) + log(1.0 + exp(-abs(a - b)));
      let own = ${1 - beta} * exp(u) * (u - m);
      return vec2<f32>(${beta} * exp(v) * (v - m) + own, own);`;
  return `fn $jensen(u: f32, v: f32) -> vec2<f32> {
      ${body}
    }`;
}

export default hybridLogitGroups;
