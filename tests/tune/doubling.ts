/**
 * An op of which it is known which kernel is fastest, which is wrong and which does not compile.
 *
 * @module
 */
import type { Graph, Tensor, Variants } from "../../src/tensor/graph.ts";
import { grid, type Op } from "../../src/tensor/op.ts";

const WGSL = `struct Size { count: u32, turns: u32, factor: f32, nothing: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= size.count) { return; }
  var sum = 0.0;
  for (var turn = 0u; turn < size.turns; turn++) { sum = size.factor * x[i] - size.nothing * sum; }
  y[i] = sum; // NAME
}`;

interface Doubling {
  readonly name: string;
  /** Seconds on paper. */
  readonly cost: number;
  /** How often it does the same again. */
  readonly turns: number;
  /** What it multiplies with. */
  readonly factor?: number;
  readonly wgsl?: string;
}

export const SLOW: Doubling = { name: "slow", cost: 5, turns: 512 };
export const QUICK: Doubling = { name: "quick", cost: 3, turns: 1 };
export const SLOWER: Doubling = { name: "slower", cost: 2, turns: 4096 };
export const WRONG: Doubling = { name: "wrong", cost: 1.5, turns: 1, factor: 3 };
export const BROKEN: Doubling = {
  ...{ name: "broken", cost: 1, turns: 1 },
  wgsl: WGSL.replace("var sum = 0.0", "var sum = nothing"),
};

/** Of kernels that double, those that there are. */
export function doubling(kernels: readonly Doubling[]): Variants<{ count: number }, Doubling> {
  const variants: Variants<{ count: number }, Doubling> = {
    kind: "doubling",
    shapeClass: ({ count }) => String(count),
    candidates: () => kernels,
    name: ({ name }) => name,
    cost: (_, { cost }) => cost,
    traffic: ({ count }) => 8 * count,
    trial: (graph, { count }) => graph.output("y", doubled(graph, count, variants)),
  };
  return variants;
}

/** Twice an input. */
export function doubled(graph: Graph, count: number, variants: ReturnType<typeof doubling>): Tensor {
  const op: Op<null> = {
    name: "doubling",
    infer: ([x]) => [{ shape: x!.shape, dtype: "f32" }],
    lower(context) {
      const { name, turns, factor = 2, wgsl = WGSL } = context.choose(variants, { count });
      context.dispatch({
        ...{ kernel: name, wgsl: wgsl.replace("NAME", name) },
        tensors: [context.inputs[0]!, context.outputs[0]!],
        size: [count, turns, { f32: factor }, { f32: 0 }],
        groups: grid(Math.ceil(count / 64), context.device),
        flops: 2 * turns * count,
      });
    },
  };
  return graph.add(op, [graph.input("x", [count], "f32")], null)[0]!;
}
