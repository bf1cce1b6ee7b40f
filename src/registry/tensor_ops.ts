/**
 * Tensor operations that adapters and feature losses are written with, under the name `tensor` in the contract.
 *
 * @module
 */
export { assign } from "../tensor/ops/assign.ts";
export { add, combine, scale, subtract } from "../tensor/ops/combine.ts";
export { fillConstant } from "../tensor/ops/fill.ts";
export { linear, matmul } from "../tensor/ops/matmul.ts";
export { addRow } from "../tensor/ops/add_row.ts";
export { rmsNorm } from "../tensor/ops/rms_norm.ts";
export { detach } from "../tensor/ops/detach.ts";
export { pointwise } from "../tensor/ops/pointwise.ts";
export { relationDistance, relationDivergence, type SampleRange } from "../tensor/ops/relations.ts";
export { sumColumns } from "../tensor/ops/pointwise.ts";
export { sumRows } from "../tensor/ops/pointwise.ts";
export { timesWeight } from "../tensor/ops/times_weight.ts";
export { topKSoftmax } from "../tensor/ops/top_k_softmax.ts";
export { reshape, rows } from "../tensor/ops/views.ts";
