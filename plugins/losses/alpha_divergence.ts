/**
 * Alpha divergence (sum p^a q^(1-a) - 1) / (a (a - 1)): towards forward KL as a goes to 1, towards reverse KL as a goes to 0.
 *
 * Amari's family, as in Minka, "Divergence measures and message passing", MSR-TR-2005-173.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, type Divergence, exp } from "../../src/registry/contract.ts";

const alphaDivergence: Divergence = defineDivergence({
  id: "alpha-divergence",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "One parameter from reverse KL (alpha near 0) to forward KL (alpha near 1)",
  source: "MSR-TR-2005-173",
  options: z.strictObject({
    alpha: z.number().gt(0).lt(1).default(0.5).describe("Power of the teacher's probability"),
  }),
  term({ p, q, logP, logQ, options: { alpha: a } }) {
    // Both distributions sum to 1: with their shares in the summand it is of second order where p is near q.
    const joint = exp(logP.mul(a).add(logQ.mul(1 - a)));
    return joint.sub(p.mul(a)).sub(q.mul(1 - a)).div(a * (a - 1));
  },
});

export default alphaDivergence;
