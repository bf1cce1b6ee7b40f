/**
 * Adaptive KL: forward and reverse KL of a row, weighted by how far the models are apart in the head and in the tail of the
 * teacher's distribution.
 *
 * Wu et al., "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models", arXiv 2404.02657, in the
 * form of its code: g_head and g_tail are sums of |p - q|, D = (g_head KL(p || q) + g_tail KL(q || p)) / (g_head + g_tail), weights
 * constant in the gradient, one half each where p = q. The head is the teacher's likeliest tokens with a total probability of at most `mu`, the
 * likeliest always in it. It is found by bisection on the logit, not by sorting: equal logits are in or out together, where a sort
 * would cut through a tie.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineLoss, type RowLoss } from "../../src/registry/contract.ts";

/** Each sweep tries three thresholds, so it is worth two bits. */
const SWEEPS = 12;

/** A sweep over the row, sixteen entries a turn: the loops of a thread have few turns in all on a software GPU. */
function sweep(body: (i: string) => string): string {
  const turns = ["i", "i + LANES", "i + 2u * LANES", "i + 3u * LANES"];
  return `{
        var i = lane;
        for (; i + 3u * LANES < $quads(); i += 4u * LANES) {
          ${turns.map(body).join("\n          ")}
        }
        for (; i < $quads(); i += LANES) { ${body("i")} }
      }`;
}

const COMPONENTS = ["x", "y", "z", "w"];

const adaptiveKl: RowLoss = defineLoss({
  id: "adaptive-kl",
  version: "1.0.1",
  contract: CONTRACT_VERSION,
  description: "AKL: forward KL where the likely tokens are off, reverse KL where the unlikely ones are",
  source: "arXiv 2404.02657; head by bisection",
  options: z.strictObject({
    mu: z.number().gt(0).lt(1).default(0.5).describe("Most probability in the head"),
  }),
  needsTeacher: true,
  surrogateGradient: "the weights of the two KLs are constants in it",
  wgsl: ({ options: { mu } }) => `
    var<private> $forward_weight: f32;
    var<private> $reverse: f32;
    fn $quads() -> u32 { return (row_vocabulary + 3u) / 4u; }
    // Probability of four entries above each of three thresholds.
    fn $mass_above(t: vec4<f32>, highest: f32, depths: vec3<f32>) -> vec3<f32> {
      var mass = vec3<f32>();
      ${
    COMPONENTS.map((c) =>
      `mass += select(vec3<f32>(), vec3<f32>(exp($logP(t.${c}))), vec3<f32>(highest - t.${c}) <= depths);`
    ).join("\n      ")
  }
      return mass;
    }
    // |p - q| where it is in the head and where not, and the terms of both divergences.
    fn $compare(t: f32, z: f32, inHead: bool) -> vec4<f32> {
      let lp = $logP(t);
      let lq = $logQ(z);
      let p = exp(lp);
      let q = exp(lq);
      let gap = abs(p - q);
      // q - p and p - q have the sum 0, and take most rounding with them.
      return vec4<f32>(select(vec2<f32>(0.0, gap), vec2<f32>(gap, 0.0), inHead),
        p * (lp - lq) + (q - p), q * (lq - lp) + (p - q));
    }
    fn $compare4(t: vec4<f32>, z: vec4<f32>, highest: f32, depth: f32) -> vec4<f32> {
      let inHead = vec4<f32>(highest) - t <= vec4<f32>(depth);
      return ${COMPONENTS.map((c) => `$compare(t.${c}, z.${c}, inHead.${c})`).join(" +\n        ")};
    }
    // How far below the largest logit the head goes. Tokens beyond the first limit have less than 1 - mu together.
    fn $head_depth(highest: f32) -> f32 {
      var inside = 0.0;
      var outside = $temperature() * (log(f32(row_vocabulary)) + ${Math.log(1 / (1 - mu)) + 1});
      for (var sweep = 0u; sweep < ${SWEEPS}u; sweep++) {
        let width = (outside - inside) / 4.0;
        var mass = vec3<f32>();
        let depths = inside + width * vec3<f32>(1.0, 2.0, 3.0);
        ${sweep((i) => `mass += $mass_above(teacher4(${i}), highest, depths);`)}
        let total = vec3<f32>(row_sum(mass.x), row_sum(mass.y), row_sum(mass.z));
        let steps = select(vec3<f32>(), vec3<f32>(1.0), total <= vec3<f32>(${mu}));
        let good = steps.x + steps.y + steps.z;
        inside += good * width;
        outside = inside + width;
      }
      return inside;
    }
    fn $value() -> f32 {
      var top = vec4<f32>(-3.0e38);
      ${sweep((i) => `top = max(top, teacher4(${i}));`)}
      let highest = row_max(max(max(top.x, top.y), max(top.z, top.w)));
      let depth = $head_depth(highest);
      var sums = vec4<f32>();
      ${sweep((i) => `sums += $compare4(teacher4(${i}), student4(${i}), highest, depth);`)}
      let head = row_sum(sums.x);
      let tail = row_sum(sums.y);
      let forward = row_sum(sums.z);
      $reverse = row_sum(sums.w);
      $forward_weight = select(0.5, head / max(head + tail, 1.0e-37), head + tail > 0.0);
      return $forward_weight * forward + (1.0 - $forward_weight) * $reverse;
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      let lp = $logP(t);
      let lq = $logQ(z);
      let q = exp(lq);
      let forward = q - exp(lp);
      let reverse = q * (lq - lp - $reverse);
      return ($forward_weight * forward + (1.0 - $forward_weight) * reverse) / $temperature();
    }`,
  reference({ student, teacher, temperature, options: { mu } }) {
    const logSoftmax = (logits: Float64Array) => {
      const highest = logits.reduce((a, b) => Math.max(a, b));
      const sum = logits.reduce((total, x) => total + Math.exp((x - highest) / temperature), 0);
      return logits.map((x) => Math.max((x - highest) / temperature - Math.log(sum), -10_000));
    };
    const [lp, lq] = [logSoftmax(teacher), logSoftmax(student)];
    const [p, q] = [lp.map(Math.exp), lq.map(Math.exp)];
    // Groups of equal logits, likeliest first, as long as they fit; logits closer than the bisection resolves count as equal.
    const resolution = temperature * (Math.log(p.length / (1 - mu)) + 1) / 4 ** SWEEPS;
    const order = [...p.keys()].sort((a, b) => teacher[b]! - teacher[a]!);
    const head = new Set<number>();
    let mass = 0;
    for (let i = 0; i < order.length;) {
      const first = teacher[order[i]!]!;
      let end = i;
      while (end < order.length && first - teacher[order[end]!]! <= resolution) end++;
      const group = order.slice(i, end);
      mass += group.reduce((sum, v) => sum + p[v]!, 0);
      if (i > 0 && mass > mu) break;
      for (const v of group) head.add(v);
      i = end;
    }
    let [headGap, tailGap, forward, reverse] = [0, 0, 0, 0];
    p.forEach((_, v) => {
      const gap = Math.abs(p[v]! - q[v]!);
      if (head.has(v)) headGap += gap;
      else tailGap += gap;
      forward += p[v]! * (lp[v]! - lq[v]!);
      reverse += q[v]! * (lq[v]! - lp[v]!);
    });
    const weight = headGap + tailGap > 0 ? headGap / (headGap + tailGap) : 0.5;
    const gradient = p.map((_, v) =>
      (weight * (q[v]! - p[v]!) + (1 - weight) * q[v]! * (lq[v]! - lp[v]! - reverse)) / temperature
    );
    return { value: weight * forward + (1 - weight) * reverse, gradient };
  },
});

export default adaptiveKl;
