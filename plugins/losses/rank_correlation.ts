/**
 * Ranking add-on: 1 - rho, where rho is Spearman's correlation of soft ranks of student and teacher over the union of both top-k
 * sets. Added to a divergence, it aligns the order of the likely tokens.
 *
 * Peng et al., "RLKD" (ranking loss for knowledge distillation), arXiv 2409.12545: on logits as they are (temperature has no effect), soft ranks
 * with L2 regularisation `epsilon`. The paper's code instead divides the divergence by 2, and takes the union of the two sets with
 * repeats; the latter is `union: duplicated`. Where logits of the union are epsilon or more apart the gradient is 0: evaluations
 * report the share of tokens with a gradient.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineLoss,
  NO_ENTRY,
  type ReferenceRow,
  type RowLoss,
  topEntries,
  topIds,
} from "../../src/registry/contract.ts";
import { softRank, softRanks } from "./soft_rank.ts";

const options = z.strictObject({
  k: z.int().min(1).max(32).default(5).describe("Tokens taken from each model"),
  epsilon: z.number().gt(0).default(1).describe(
    "Strength of the ranks' regularisation: logits this far apart have hard ranks, without gradient",
  ),
  union: z.enum(["per-token", "duplicated"]).default("per-token").describe(
    "The set of both models' tokens, or as the paper's code has it: a token of both counts twice",
  ),
});

/** Correlations of vectors shorter than this have no meaning. */
const SHORTEST = 1e-6;

function source({ k, epsilon, union }: z.output<typeof options>): string {
  const most = 2 * k;
  return `
    ${topEntries("student", k)}
    ${topEntries("teacher", k)}
    ${softRank(most, epsilon)}
    var<private> $ids: array<u32, ${most}>;
    var<private> $target: array<f32, ${most}>;
    var<private> $slopes: array<f32, ${most}>;
    var<private> $count: u32;
    var<private> $lowest: vec2<f32>;
    fn $collect() {
      $find_student();
      $find_teacher();
      $count = 0u;
      $lowest = vec2<f32>(3.0e38);
      for (var i = 0u; i < ${most}u; i++) {
        $slopes[i] = 0.0;
        let fromStudent = i < ${k}u;
        var id = ${NO_ENTRY};
        if (fromStudent) { id = $ids_student[i]; } else { id = $ids_teacher[i - ${k}u]; }
        if (id == ${NO_ENTRY}) { continue; }
        if (fromStudent) { $lowest.x = student(id); } else { $lowest.y = teacher(id); }
        var seen = false;
        ${union === "duplicated" ? "" : "for (var j = 0u; j < $count; j++) { seen = seen || $ids[j] == id; }"}
        // Padding: one model's favourite may be no token of the other's.
        if (seen || student(id) < -3.0e38 || teacher(id) < -3.0e38) { continue; }
        $ids[$count] = id;
        $count++;
      }
    }
    // Takes the mean off \`$rank\`, divides by the length, and returns the length.
    fn $normalise() -> f32 {
      let mean = f32($count + 1u) / 2.0;
      var squares = 0.0;
      for (var i = 0u; i < $count; i++) {
        $rank[i] -= mean;
        squares += $rank[i] * $rank[i];
      }
      let length = sqrt(squares);
      for (var i = 0u; i < $count; i++) { $rank[i] /= max(length, ${SHORTEST}); }
      return length;
    }
    // 1 - rho; leaves its gradient in \`$slopes\`.
    fn $distance() -> f32 {
      $collect();
      if ($count < 2u) { return 0.0; }
      for (var i = 0u; i < $count; i++) { $x[i] = teacher($ids[i]); }
      $soft_rank($count);
      let teacherLength = $normalise();
      for (var i = 0u; i < $count; i++) {
        $target[i] = $rank[i];
        $x[i] = student($ids[i]);
      }
      $soft_rank($count);
      let length = $normalise();
      if (min(length, teacherLength) < ${SHORTEST}) { return 0.0; }
      var rho = 0.0;
      // 1 - rho from differences: no digits are lost where the orders agree.
      var apart = 0.0;
      for (var i = 0u; i < $count; i++) {
        rho += $rank[i] * $target[i];
        apart += ($rank[i] - $target[i]) * ($rank[i] - $target[i]);
      }
      for (var b = 0u; b < $blocks; b++) {
        let count = $pooled[b];
        if (count == 1u) { continue; }
        var mean = 0.0;
        for (var i = 0u; i < count; i++) {
          let at = $order[$first[b] + i];
          mean += $target[at] - rho * $rank[at];
        }
        mean /= f32(count);
        for (var i = 0u; i < count; i++) {
          let at = $order[$first[b] + i];
          $slopes[at] = (mean - $target[at] + rho * $rank[at]) / (length * ${epsilon});
        }
      }
      return apart / 2.0;
    }`;
}

/** Distance and gradient over the ids of the union, in f64; undefined for rows without an order. */
function inF64(
  { student, teacher, options: { k, epsilon, union } }: ReferenceRow<z.output<typeof options>>,
): { value: number; ids: number[]; slopes: number[] } | undefined {
  const both = [...topIds(student, k), ...topIds(teacher, k)].filter((v) =>
    student[v]! > -3e38 && teacher[v]! > -3e38
  );
  const ids = union === "duplicated" ? both : [...new Set(both)];
  const normalised = (ranks: number[]) => {
    const mean = ranks.reduce((sum, r) => sum + r, 0) / ranks.length;
    const length = Math.hypot(...ranks.map((r) => r - mean));
    return { unit: ranks.map((r) => (r - mean) / length), length };
  };
  const soft = softRanks(ids.map((v) => student[v]!), epsilon);
  const own = normalised(soft.ranks);
  const target = normalised(softRanks(ids.map((v) => teacher[v]!), epsilon).ranks);
  if (ids.length < 2 || Math.min(own.length, target.length) < SHORTEST) return undefined;
  const rho = own.unit.reduce((sum, u, i) => sum + u * target.unit[i]!, 0);
  const slopes = soft.pullBack(own.unit.map((u, i) => (rho * u - target.unit[i]!) / own.length));
  return { value: 1 - rho, ids, slopes };
}

/** Below this a gradient is rounding: orders that agree in exact arithmetic leave about as much. */
const ROUNDING = 1e-5;

/** 1 where the ranks have a gradient, 0 in the dead zone or where the order is right: its mean is the share of such tokens. */
const gradientShare: RowLoss = defineLoss({
  id: "rank-gradient-share",
  version: "1.0.1",
  contract: CONTRACT_VERSION,
  description: "Share of tokens whose order has a gradient",
  options,
  needsTeacher: true,
  surrogateGradient: "it is measured only",
  wgsl: ({ options }) => `
    ${source(options)}
    fn $value() -> f32 {
      _ = $distance();
      var steepest = 0.0;
      for (var i = 0u; i < $count; i++) { steepest = max(steepest, abs($slopes[i])); }
      return select(0.0, 1.0, steepest > ${ROUNDING});
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 { return 0.0; }`,
  reference: (row) => ({
    value: Number(inF64(row)?.slopes.some((slope) => Math.abs(slope) > ROUNDING) ?? false),
    gradient: new Float64Array(row.student.length),
  }),
});

const rankCorrelation: RowLoss = defineLoss({
  id: "rank-correlation",
  version: "1.0.1",
  contract: CONTRACT_VERSION,
  description: "RLKD's add-on: the order of the likely tokens, as a soft Spearman correlation",
  source: "arXiv 2409.12545; soft ranks arXiv 2002.08871",
  options,
  needsTeacher: true,
  monitors: [gradientShare],
  wgsl: ({ options }) => `
    ${source(options)}
    fn $value() -> f32 { return $distance(); }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      if (z < $lowest.x && t < $lowest.y) { return 0.0; }
      var slope = 0.0;
      for (var i = 0u; i < $count; i++) { if ($ids[i] == v) { slope += $slopes[i]; } }
      return slope;
    }`,
  reference(row) {
    const gradient = new Float64Array(row.student.length);
    const found = inF64(row);
    found?.slopes.forEach((slope, i) => gradient[found.ids[i]!]! += slope);
    return { value: found?.value ?? 0, gradient };
  },
});

export default rankCorrelation;
