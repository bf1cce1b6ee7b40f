/**
 * Activations of MLPs, with and without a gate, each a scalar expression from which the kernels and their gradients are made.
 *
 * @module
 */
import { erf, type Expression, sigmoid } from "../expr/mod.ts";
import { ensure } from "../op.ts";
import type { Tensor } from "../graph.ts";
import { gatedSilu } from "./gated.ts";
import { pointwise } from "./pointwise.ts";

/** The activations of one number. */
export const ACTIVATIONS = {
  /** x sigmoid(x) (Elfwing et al., arXiv 1702.03118) */
  silu: (x: Expression) => x.mul(sigmoid(x)),
  /** x Phi(x), Phi being the normal distribution's function (Hendrycks and Gimpel, arXiv 1606.08415) */
  gelu: (x: Expression) => x.mul(0.5).mul(erf(x.mul(Math.SQRT1_2)).add(1)),
  /**
   * The same paper's approximation, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, known as `gelu_new` and `gelu_pytorch_tanh`. As
   * (1 + tanh(a)) / 2 is sigmoid(2 a), where nothing cancels, it is written with that.
   */
  gelu_tanh: (x: Expression) =>
    x.mul(sigmoid(x.mul(x.square().mul(0.044715).add(1)).mul(2 * Math.sqrt(2 / Math.PI)))),
} as const satisfies Record<string, (x: Expression) => Expression>;

/** The name of one of {@linkcode ACTIVATIONS}. */
export type Activation = keyof typeof ACTIVATIONS;

/**
 * The activation of every element.
 *
 * @param x f32, any shape
 */
export function activate(x: Tensor, activation: Activation): Tensor {
  return pointwise([x], (x) => ACTIVATIONS[activation](x!));
}

/**
 * activation(gate) * up, elementwise (Shazeer, arXiv 2002.05202).
 *
 * @param gate f32, any shape
 * @param up f32, the same shape
 * @throws {ShapeError} if the shapes differ
 */
export function gated(gate: Tensor, up: Tensor, activation: Activation): Tensor {
  if (activation === "silu") return gatedSilu(gate, up);
  ensure(String(gate.shape) === String(up.shape), "gated", [gate, up], "both shapes must be equal");
  return pointwise([gate, up], (g, u) => ACTIVATIONS[activation](g!).mul(u!));
}
