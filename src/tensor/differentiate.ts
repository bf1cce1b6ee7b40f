/**
 * Reverse-mode differentiation of a traced graph: appends the backward pass to the same graph.
 *
 * Only paths that lead to a wanted tensor get a gradient, so frozen weights never do. Nodes of a layer marked `recompute` are
 * cloned in front of their backward pass, and the clones feed it: their first copies die right after the forward pass.
 *
 * @module
 */
import { ShapeError } from "../base/errors.ts";
import type { Graph, Layer, Node, Tensor } from "./graph.ts";
import { show } from "./graph.ts";
import { add } from "./ops/combine.ts";

/**
 * Gradients of a scalar objective.
 *
 * @param seeds Pairs of a tensor and the gradient of the objective with respect to it
 * @param wanted The tensors whose gradients are wanted
 * @returns One gradient for each wanted tensor; undefined where the objective does not depend on it
 * @throws {ShapeError} if a path leads through an op without a gradient rule
 */
export function gradients(
  graph: Graph,
  seeds: readonly (readonly [Tensor, Tensor])[],
  wanted: readonly Tensor[],
): (Tensor | undefined)[] {
  const forward = [...graph.nodes];
  const reaching = new Set<Tensor>(wanted);
  for (const node of forward) {
    if (!node.op.stopsGradients && node.inputs.some((t) => reaching.has(t))) {
      node.outputs.forEach((t) => reaching.add(t));
    }
  }

  const gradientOf = new Map<Tensor, Tensor>();
  const accumulate = (tensor: Tensor, gradient: Tensor) => {
    if (String(tensor.shape) !== String(gradient.shape)) {
      throw new ShapeError(`the gradient of ${show(tensor)} has another shape: ${show(gradient)}`);
    }
    const known = gradientOf.get(tensor);
    gradientOf.set(tensor, known ? add(known, gradient) : gradient);
  };
  for (const [tensor, gradient] of seeds) accumulate(tensor, gradient);

  const recomputed = new Recomputation(graph, forward);
  for (let i = forward.length - 1; i >= 0; i--) {
    const node = forward[i]!;
    const outputGradients = node.outputs.map((t) => gradientOf.get(t));
    if (outputGradients.every((g) => g === undefined) || node.op.stopsGradients) continue;
    const needed = node.inputs.map((t) => reaching.has(t));
    if (!needed.includes(true)) continue;
    if (!node.op.gradient) {
      throw new ShapeError(
        `${node.op.name} at ${
          node.path || graph.name
        } has no gradient, but a trainable tensor lies behind it`,
      );
    }
    const seen = recomputed.of(node);
    const inputGradients = graph.within(`${node.path} backward`, () =>
      node.op.gradient!({
        inputs: seen.inputs,
        outputs: seen.outputs,
        attributes: node.attributes,
        outputGradients,
        needed,
      }));
    inputGradients.forEach((gradient, k) => {
      if (gradient && needed[k]) accumulate(node.inputs[k]!, gradient);
    });
  }
  return wanted.map((t) => gradientOf.get(t));
}

/** Clones the nodes of checkpointed layers, each layer once, when its backward pass begins. */
class Recomputation {
  readonly #graph: Graph;
  readonly #byLayer = new Map<Layer, Node[]>();
  readonly #clones = new Map<Tensor, Tensor>();
  readonly #done = new Set<Layer>();

  constructor(graph: Graph, forward: readonly Node[]) {
    this.#graph = graph;
    for (const node of forward) {
      if (!node.layer?.recompute) continue;
      const nodes = this.#byLayer.get(node.layer);
      if (nodes) nodes.push(node);
      else this.#byLayer.set(node.layer, [node]);
    }
  }

  /** The inputs and outputs that a node's gradient rule shall read. */
  of(node: Node): { inputs: readonly Tensor[]; outputs: readonly Tensor[] } {
    const { layer } = node;
    if (!layer?.recompute) return node;
    if (!this.#done.has(layer)) {
      this.#done.add(layer);
      for (const original of this.#byLayer.get(layer)!) {
        if (original.op.mutates) continue;
        const inputs = original.inputs.map((t) => this.#clones.get(t) ?? t);
        const outputs = this.#graph.within(
          `${original.path} recomputed`,
          () => this.#graph.add(original.op, inputs, original.attributes),
        );
        original.outputs.forEach((t, k) => this.#clones.set(t, outputs[k]!));
      }
    }
    const seen = (t: Tensor) => this.#clones.get(t) ?? t;
    return { inputs: node.inputs.map(seen), outputs: node.outputs.map(seen) };
  }
}
