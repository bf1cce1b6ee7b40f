/**
 * Scalar expressions as f64 JavaScript functions: the oracle that kernels made from the same tree are tested against.
 *
 * The function is a list of closures over one array of intermediate values; no code is generated from text, so it also works
 * where a content security policy forbids that.
 *
 * @module
 */
import { type Expression, ExpressionError, type ExpressionNode } from "./expression.ts";
import { OPERATIONS } from "./operations.ts";

/** Computes the expressions from the values of `names`, in order. Flags are 0 or 1. The result is reused by the next call. */
export type CompiledExpressions = (inputs: ArrayLike<number>) => Float64Array;

/**
 * Compiles expressions that share their common parts.
 *
 * @param names Names of variables, step scalars and flags, in the order in which their values will be given
 * @throws {ExpressionError} if an expression contains a leaf of another name
 */
export function compile(expressions: readonly Expression[], names: readonly string[]): CompiledExpressions {
  const position = new Map(names.map((name, i) => [name, i]));
  const slots = new Map<ExpressionNode, number>();
  const constants: [number, number][] = [];
  const steps: ((m: Float64Array) => void)[] = [];
  let count = names.length;
  const visit = (node: ExpressionNode): number => {
    const known = slots.get(node);
    if (known !== undefined) return known;
    let slot: number;
    if (node.kind === "constant") {
      slot = count++;
      constants.push([slot, node.value]);
    } else if (node.operands.length === 0) {
      const found = position.get(node.name);
      if (found === undefined) {
        throw new ExpressionError(
          `nothing gives a value to "${node.name}"; known are ${names.join(", ") || "none"}`,
        );
      }
      slot = found;
    } else {
      const [a, b, c] = node.operands.map(visit);
      const { evaluate } = OPERATIONS[node.kind as keyof typeof OPERATIONS];
      const out = slot = count++;
      if (c !== undefined) steps.push((m) => m[out] = evaluate(m[a!]!, m[b!]!, m[c]!));
      else if (b !== undefined) steps.push((m) => m[out] = evaluate(m[a!]!, m[b]!));
      else steps.push((m) => m[out] = evaluate(m[a!]!));
    }
    slots.set(node, slot);
    return slot;
  };
  const results = expressions.map(visit);
  const memory = new Float64Array(count);
  for (const [slot, value] of constants) memory[slot] = value;
  const output = new Float64Array(results.length);
  return (inputs) => {
    for (let i = 0; i < names.length; i++) memory[i] = inputs[i]!;
    for (const step of steps) step(memory);
    for (let i = 0; i < results.length; i++) output[i] = memory[results[i]!]!;
    return output;
  };
}
