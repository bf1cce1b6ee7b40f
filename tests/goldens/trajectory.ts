/** What reference runs are compared by. */
import type { StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { packBatch, type PackedBatch } from "../../src/text/packing.ts";

/** A step of a reference run. */
export interface GoldenStep {
  lr: number;
  loss: number;
  ce: number;
  kl: number;
  grad_norm: number;
  tokens: number;
}

/** A golden batch of B sequences as one packed stream, filled up to whole chunks of the head; labels there are not shifted. */
export function goldenBatch(ids: Int32Array, labels: Int32Array, length: number): PackedBatch {
  const source = { file: "golden", line: 1 };
  const samples = Array.from({ length: ids.length / length }, (_, b) => ({
    ids: ids.slice(b * length, (b + 1) * length),
    supervised: Uint8Array.from(labels.subarray(b * length, (b + 1) * length), (l) => Number(l !== -100)),
    source,
  }));
  return packBatch(samples, Math.ceil(ids.length / 64) * 64);
}

/** The length of a difference, that of what was expected, and the largest difference. */
export function relative(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): { l2: number; norm: number; max: number } {
  let [difference, norm, max] = [0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const d = actual[i]! - expected[i]!;
    difference += d * d;
    norm += expected[i]! ** 2;
    max = Math.max(max, Number.isNaN(d) ? Infinity : Math.abs(d));
  }
  return { l2: Math.sqrt(difference), norm: Math.sqrt(norm), max };
}

/** Fails unless a number is near the one expected. */
export function near(actual: number, expected: number, tolerance: number, what: string): void {
  if (!(Math.abs(actual - expected) <= tolerance)) {
    throw new Error(`${what} is ${actual}, expected ${expected} +- ${tolerance}`);
  }
}

/** Fails unless a step was that of the reference run. */
export function compareStep(step: StepMetrics, expected: GoldenStep, where: string): void {
  near(step.learningRate, expected.lr, 1e-9, `${where} learning rate`);
  near(step.supervisedTokens, expected.tokens, 0, `${where} supervised tokens`);
  near(step.loss, expected.loss, 2e-5, `${where} loss`);
  near(step.losses["cross-entropy"]!, expected.ce, 2e-5, `${where} cross-entropy`);
  near(step.losses["forward-kl"]!, expected.kl, 2e-5, `${where} forward KL`);
  near(step.gradientNorm, expected.grad_norm, 1e-4 * expected.grad_norm, `${where} gradient norm`);
}
