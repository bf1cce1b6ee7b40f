/**
 * Tensor functions for adapters and feature losses. Gradients come from automatic differentiation.
 *
 * @module
 */
export { add, combine, scale, subtract } from "../tensor/ops/combine.ts";
export { linear, matmul } from "../tensor/ops/matmul.ts";
export { addRow } from "../tensor/ops/add_row.ts";
export { rmsNorm } from "../tensor/ops/rms_norm.ts";
export type { Tensor } from "../tensor/graph.ts";
