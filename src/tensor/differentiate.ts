/**
 * Reverse-mode differentiation of a traced graph: appends the backward pass to the same graph.
 *
 * Only paths that lead to a wanted tensor get a gradient, so frozen weights never do. Nodes of a layer marked `recompute` are
 * cloned in front of their backward pass, and the clones feed it: their first copies die right after the forward pass.
 *
 * The backward pass of a layer that may be left out (`Layer.gate`) belongs to that layer. What it says of a tensor from outside passes the
 * gate: a layer that is off says nothing, whatever lies in its memory.
 *
 * @module
 */
import { ShapeError } from "../base/errors.ts";
import type { Graph, Layer, Node, Tensor } from "./graph.ts";
import { show } from "./graph.ts";
import { select, stepScalar } from "./expr/mod.ts";
import { add } from "./ops/combine.ts";
import { pointwise } from "./ops/pointwise.ts";

/**
 * Gradients of a scalar objective.
 *
 * @param seeds Pairs of a tensor and the gradient of the objective with respect to it
 * @param wanted The tensors whose gradients are wanted
 * @returns One gradient for each wanted tensor; undefined where the objective does not depend on it. One that a single layer makes which may
 *   be left out is that layer's (`gradient.producer.layer`): what uses it must be a part of the layer, and not run without it
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

  const sums = new GradientSums(graph);
  for (const [tensor, gradient] of seeds) sums.add(tensor, gradient);

  const recomputed = new Recomputation(graph, forward);
  const stretches = new Map<Layer, object>();
  const stretchOf = ({ layer }: Node) => {
    if (layer && !stretches.has(layer)) stretches.set(layer, {});
    return layer && stretches.get(layer);
  };
  for (let i = forward.length - 1; i >= 0; i--) {
    const node = forward[i]!;
    const needed = node.inputs.map((t) => reaching.has(t));
    if (!needed.includes(true) || node.op.stopsGradients) continue;
    const outputGradients = node.outputs.map((t) => sums.of(t));
    if (outputGradients.every((g) => g === undefined)) continue;
    if (!node.op.gradient) {
      throw new ShapeError(
        `${node.op.name} at ${
          node.path || graph.name
        } has no gradient, but a trainable tensor lies behind it`,
      );
    }
    const backward = () => {
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
        if (gradient && needed[k]) sums.add(node.inputs[k]!, gradient, node.layer);
      });
    };
    graph.stretch(stretchOf(node), () => inLayerOf(graph, node, backward));
  }
  return wanted.map((t) => sums.ofOneLayer(t) ?? sums.of(t));
}

/** The backward pass of a layer that may be left out is left out with it. */
function inLayerOf(graph: Graph, { layer }: Node, body: () => void): void {
  if (layer?.gate) graph.partOf(layer, body);
  else body();
}

/** The gradients found so far. */
class GradientSums {
  readonly #graph: Graph;
  readonly #sums = new Map<Tensor, Tensor>();
  /** What layers that may be left out say of tensors from outside them, not yet past their gates. */
  readonly #entering = new Map<Tensor, Map<Layer, Tensor>>();

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  /** @param layer The layer that says so, if any */
  add(tensor: Tensor, gradient: Tensor, layer?: Layer): void {
    if (String(tensor.shape) !== String(gradient.shape)) {
      throw new ShapeError(`the gradient of ${show(tensor)} has another shape: ${show(gradient)}`);
    }
    if (!layer?.gate || tensor.producer?.layer === layer) return addTo(this.#sums, tensor, gradient);
    let byLayer = this.#entering.get(tensor);
    if (!byLayer) this.#entering.set(tensor, byLayer = new Map());
    addTo(byLayer, layer, gradient);
  }

  /** The whole gradient of a tensor to which nothing is added any more. */
  of(tensor: Tensor): Tensor | undefined {
    const byLayer = this.#entering.get(tensor);
    this.#entering.delete(tensor);
    for (const [layer, gradient] of byLayer ?? []) {
      const gate = stepScalar(layer.gate!.name);
      this.#graph.partOf(undefined, () => {
        // Chosen, not multiplied: what a layer has not made may be NaN.
        this.add(tensor, pointwise([gradient], (g) => select(gate.greaterThan(0.5), g!, 0)));
      });
    }
    return this.#sums.get(tensor);
  }

  /** The gradient of a tensor of which a single layer that may be left out says anything, as that layer makes it. */
  ofOneLayer(tensor: Tensor): Tensor | undefined {
    const byLayer = this.#entering.get(tensor);
    return byLayer?.size === 1 && !this.#sums.has(tensor) ? [...byLayer.values()][0] : undefined;
  }
}

function addTo<K>(sums: Map<K, Tensor>, key: K, gradient: Tensor): void {
  const known = sums.get(key);
  sums.set(key, known ? add(known, gradient) : gradient);
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
