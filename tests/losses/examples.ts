/** Losses that are not part of the product: they reach parts of the compiler that the built-in ones do not. */
import { z } from "zod";
import { abs, CONTRACT_VERSION, defineDivergence, noOptions, select } from "../../src/registry/contract.ts";

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
