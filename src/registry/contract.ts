/**
 * The plugin contract: everything a plugin may use, from one place.
 *
 * A plugin is a plain object made by a `define...` function. It imports this module and zod, nothing else of Limbeck.
 *
 * @module
 */
import type { Plugin } from "./kinds/mod.ts";

export {
  CONTRACT_VERSION,
  noOptions,
  type OptionsSchema,
  PluginError,
  type PluginHeader,
} from "../base/plugin.ts";
export * from "../losses/contract.ts";
export * from "../losses/group_contract.ts";
export * from "./feature_contract.ts";
export * from "./adapter_contract.ts";
export * from "./merge_contract.ts";
export * from "./family_contract.ts";
export { type Config, defineConfig } from "./config.ts";
export {
  abs,
  add,
  type Condition,
  constant,
  detach,
  div,
  exp,
  expm1,
  type Expression,
  log,
  log1p,
  logAddExp,
  max,
  min,
  mul,
  neg,
  type Operand,
  select,
  sigmoid,
  sign,
  sqrt,
  sub,
  tanh,
} from "../tensor/expr/mod.ts";
export * as tensor from "./tensor_ops.ts";
export * as decoder from "./decoder_parts.ts";
export type {
  AttentionDescription,
  DecoderDescription,
  DescribedConfig,
  LayerDescription,
  LayerNorms,
  LinearDescription,
  MlpDescription,
  NormDescription,
  Projections,
} from "../models/decoder/description.ts";
export type { DecoderConfig } from "../models/config.ts";
export type { ModelContext } from "../models/context.ts";
export type { FamilyNames, LayerProjections, Narrowing, Widths } from "../models/family.ts";
export type { Fields } from "../models/fields.ts";
export { NO_ENTRY, topEntries, topIds } from "../losses/top_entries.ts";
export type { DType, Tensor, TensorSpec } from "../tensor/graph.ts";

export type { Plugin } from "./kinds/mod.ts";

/** Kinds of plugins. */
export type PluginKind = Plugin["kind"];
