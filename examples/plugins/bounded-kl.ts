// A loss at level 1: one expression. KL of the teacher to a mixture of both models, which stays finite where the student
// gives an entry next to nothing.
//
//   limbeck plugin check examples/plugins/bounded-kl.ts

import { CONTRACT_VERSION, defineDivergence, logAddExp } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineDivergence({
  id: "example/bounded-kl",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "KL(teacher || mixture of teacher and student)",
  source: "skew divergence: Lee, ACL 1999, equation 1",
  options: z.strictObject({
    share: z.number().gt(0).lt(1).default(0.1).describe("Share of the teacher in the mixture"),
  }),
  term({ p, logP, logQ, options: { share } }) {
    const logMixture = logAddExp(logP.add(Math.log(share)), logQ.add(Math.log(1 - share)));
    return p.mul(logP.sub(logMixture));
  },
});
