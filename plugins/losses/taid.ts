/**
 * Temporally adaptive interpolated distillation: cross-entropy with a target that moves from the student to the teacher,
 * u = softmax((1 - t) sg(z) + t zT).
 *
 * Shing et al., "TAID", arXiv 2501.16937, in the cross-entropy form of its code. t follows the recipe's schedule, or with
 * `adaptive` the paper's rule: it rises by what the loss did, and at least along a straight line.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  type Controller,
  defineDivergence,
  type Divergence,
  exp,
} from "../../src/registry/contract.ts";

const options = z.strictObject({
  t: z.number().min(0).max(1).default(0.4).describe(
    "Share of the teacher's logits; meant to be scheduled up to 1, or with adaptive where it begins",
  ),
  adaptive: z.boolean().default(false).describe("Raises t by what the loss does, as in the paper"),
  end: z.number().min(0).max(1).default(1).describe("With adaptive: where t ends"),
  alpha: z.number().min(0).max(1).default(5e-4).describe(
    "With adaptive: how far t moves in a step by the loss",
  ),
  beta: z.number().min(0).lt(1).default(0.99).describe(
    "With adaptive: decay of the mean of the loss's changes",
  ),
});

/** Keeps a loss of 0 from being divided by; the value of the paper's code. */
const SMALLEST = 1e-15;

/**
 * The paper's rule, in the order of its code: of the relative change of the loss a running mean m; then
 * t <- min(end, max(t0 + (end - t0) step / steps, t + alpha sigmoid(m) (1 - t))). The first step only sets the loss to compare with.
 */
const controller: Controller<z.output<typeof options>> = {
  sets: ["t"],
  start: ({ t, adaptive }) => adaptive ? { t, momentum: 0, previous: null } : undefined,
  next({ t, momentum, previous }, { value, step, steps }, { t: from, end, alpha, beta }) {
    if (previous === null) return { t: t!, momentum: momentum!, previous: value };
    const m = beta * momentum! + (1 - beta) * (previous! - value) / (previous! + SMALLEST);
    const moved = t! + alpha / (1 + Math.exp(-m)) * (1 - t!);
    return {
      t: Math.min(end, Math.max(from + (end - from) * step / steps, moved)),
      momentum: m,
      previous: value,
    };
  },
  values: ({ t }) => ({ t: t! }),
  heldOut: ({ end }) => ({ t: end }),
};

const taid: Divergence = defineDivergence({
  id: "taid",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "Cross-entropy with a target between student (t = 0) and teacher (t = 1); schedule t, or set adaptive",
  source: "arXiv 2501.16937",
  options,
  scheduled: ["t"],
  controller,
  term({ logP, logQ, logSumExp, options: { t } }) {
    const logits = logQ.detach().mul(t.neg().add(1)).add(logP.mul(t));
    return exp(logits.sub(logSumExp(logits))).mul(logQ).neg();
  },
});

export default taid;
