/** Losses that are not part of the product: they reach parts of the compiler that the built-in ones do not. */
import { z } from "zod";
import {
  abs,
  CONTRACT_VERSION,
  defineDivergence,
  defineLoss,
  noOptions,
  select,
} from "../../src/registry/contract.ts";

const common = { version: "1.0.0", contract: CONTRACT_VERSION };

/** Forward KL weighted by the share of the gap that lies where p is large: statistics of statistics, detached. */
export const headWeighted = defineDivergence({
  ...common,
  id: "test/head-weighted",
  options: noOptions,
  value({ p, q, logP, logQ, sum, max }) {
    const isHead = logP.greaterThan(max(logP).sub(1));
    const gap = sum(abs(p.sub(q)));
    const head = sum(select(isHead, abs(p.sub(q)), 0)).div(gap.add(1e-6)).detach();
    return head.mul(sum(p.mul(logP.sub(logQ)))).add(head.neg().add(1).mul(sum(q.mul(logQ.sub(logP)))));
  },
});

/** Nothing is detached here: the gradient goes through a maximum, a look-up and a product of sums. */
export const entangled = defineDivergence({
  ...common,
  id: "test/entangled",
  options: z.strictObject({ strength: z.number().default(0.3) }),
  scheduled: ["strength"],
  value({ p, q, logP, logQ, studentLogit, isLabel, sum, max, atLabel, options: { strength } }) {
    const reverse = sum(q.mul(logQ.sub(logP)));
    const centred = sum(q.mul(logQ.sub(reverse).square()));
    return centred.mul(strength).add(max(studentLogit).mul(atLabel(select(isLabel, p, 1)))).add(
      reverse.mul(sum(p.mul(logQ))),
    );
  },
});

/** sum_v q_v q_(V-1-v): the row turned around is in memory, until the gradient is made; sums of the lanes are in that of the workgroup. */
export const mirrored = defineLoss({
  ...common,
  id: "test/mirrored",
  options: noOptions,
  needsTeacher: false,
  memory: { perEntry: 1, workgroup: 256 },
  wgsl: () => `
    var<private> $total: f32;
    fn $value() -> f32 {
      for (var v = lane; v < row_vocabulary; v += LANES) {
        $store(row_vocabulary - 1u - v, bitcast<u32>(exp($logQ(student(v)))));
      }
      row_barrier();
      var part = 0.0;
      for (var v = lane; v < row_vocabulary; v += LANES) { part += exp($logQ(student(v))) * bitcast<f32>($load(v)); }
      row_shared[lane] = bitcast<u32>(part);
      row_barrier();
      $total = 0.0;
      for (var i = 0u; i < LANES; i++) { $total += bitcast<f32>(row_shared[i]); }
      row_barrier();
      return $total;
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      return 2.0 * exp($logQ(z)) * (bitcast<f32>($load(v)) - $total) / $temperature();
    }`,
  reference({ student, temperature }) {
    const high = Math.max(...student);
    const e = student.map((z) => Math.exp((z - high) / temperature));
    const sum = e.reduce((a, b) => a + b);
    const q = e.map((x) => x / sum);
    const value = q.reduce((total, x, v) => total + x * q.at(-1 - v)!, 0);
    return { value, gradient: q.map((x, v) => 2 * x * (q.at(-1 - v)! - value) / temperature) };
  },
});
