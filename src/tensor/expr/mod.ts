/**
 * Scalar expressions: build, differentiate, print as WGSL, compile to f64 JavaScript.
 *
 * @module
 */
export * from "./expression.ts";
export { derivative, leaves, substitute, type Substitutions } from "./derivative.ts";
export { compile, type CompiledExpressions } from "./evaluate.ts";
export {
  helperFunctions,
  type LeafCode,
  literal,
  type PrintedExpressions,
  type PrintOptions,
  printWgsl,
} from "./wgsl.ts";
export { type Addend, addends, sumOf } from "./collect.ts";
