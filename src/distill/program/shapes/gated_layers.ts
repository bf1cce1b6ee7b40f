/**
 * What a model must be like for its layers to be left out.
 *
 * @module
 */
import { ShapeError } from "../../../base/errors.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";

/**
 * Requires that each layer with a gate hands on nothing but its output, which its gate replaces: whatever else another part of the model
 * reads of it would be missing where the layer does not run.
 */
export function checkSeparable(graph: Graph): void {
  const leaving = new Map<string, Set<Tensor>>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) {
      const from = input.producer?.layer;
      if (!from?.gate || from.name === node.layer?.name) continue;
      leaving.set(from.name, (leaving.get(from.name) ?? new Set()).add(input));
    }
  }
  for (const [layer, tensors] of leaving) {
    if (tensors.size > 1) {
      throw new ShapeError(`${layer} cannot be left out: others read ${tensors.size} of its values`);
    }
  }
}
