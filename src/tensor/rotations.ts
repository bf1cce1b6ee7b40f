/**
 * Rotary position embedding in what a projection stores: queries and keys are turned by the kernel that makes them, where that has both
 * columns of each pair in one thread. That saves the launch that turns them, and their way through memory; every value is computed by the same
 * operations as before.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import type { Graph, Node, Tensor } from "./graph.ts";
import { applies, type NodeOf, rootOf } from "./op.ts";
import { addRowOp } from "./ops/add_row.ts";
import { type MatmulAttributes, matmulOp } from "./ops/matmul.ts";
import { canRotate } from "./ops/matmul/rotation.ts";
import { type RopeAttributes, ropeOf, ropeOp, turnedBy } from "./ops/rope.ts";
import { rotatedMatmulOp, rotationOf } from "./ops/rotated_matmul.ts";
import { countUses, mutatedRoots } from "./optimise.ts";

/** What makes queries or keys before they are turned. */
interface Projection {
  readonly product: NodeOf<MatmulAttributes>;
  /** What adds a bias to it. */
  readonly added?: Node;
}

/**
 * Lets products turn what they store, on a device whose kernels can. A `rope()` of queries and keys of which one must stay apart keeps that one.
 *
 * @param nodes Of a block, after all else was merged
 */
export function rotateInStores(graph: Graph, nodes: readonly Node[], device: DeviceDescription): Node[] {
  const uses = countUses(graph, nodes);
  const mutated = mutatedRoots(nodes);
  const makerOf = new Map<Tensor, Node>();
  const dropped = new Set<Node>();
  const result = nodes.flatMap((node): Node[] => {
    node.outputs.forEach((t) => makerOf.set(t, node));
    if (!applies(node, ropeOp) || node.attributes.inverse) return [node];
    // The product moves to where its output is turned.
    const onlyFor = (t: Tensor) => {
      const maker = makerOf.get(t);
      const still = maker?.inputs.every((input) => !mutated.has(rootOf(input).root));
      return still && uses.get(t) === 1 && maker?.layer === node.layer ? maker : undefined;
    };
    const all = turnedBy(node);
    const made = all.map(({ x, rope, out }) => {
      const projection = projectionOf(x, onlyFor);
      const rotated = projection && rotate(node, projection, rope, out, device);
      if (rotated) [projection.product, projection.added].forEach((n) => n && dropped.add(n));
      return rotated;
    });
    const left = all.filter((_, i) => !made[i]);
    return [...made.filter((n) => n !== undefined), ...left.length > 0 ? [ropeOf(node, left)] : []];
  });
  return result.filter((n) => !dropped.has(n));
}

function projectionOf(x: Tensor, onlyFor: (t: Tensor) => Node | undefined): Projection | undefined {
  const maker = onlyFor(x);
  const added = maker && applies(maker, addRowOp) ? maker : undefined;
  const product = added ? onlyFor(added.inputs[0]!) : maker;
  return product && applies(product, matmulOp) ? { product, ...(added ? { added } : {}) } : undefined;
}

/** A projection that turns what it stores, or undefined where its kernel cannot. */
function rotate(
  node: NodeOf<RopeAttributes>,
  { product, added }: Projection,
  rope: RopeAttributes,
  out: Tensor,
  device: DeviceDescription,
): Node | undefined {
  const attributes = { product: product.attributes, rope, bias: added !== undefined };
  const inputs = [...product.inputs, node.inputs[1]!, node.inputs[2]!, ...(added ? [added.inputs[1]!] : [])];
  const { rotation } = rotationOf(inputs, attributes);
  if (!canRotate(product.inputs, product.attributes, rotation, device)) return undefined;
  return { ...product, op: rotatedMatmulOp, inputs, attributes, outputs: [out], stretch: node.stretch };
}
