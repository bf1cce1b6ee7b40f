/**
 * What happens to a block between tracing and planning: nodes that nobody needs are dropped, sums of matrix products become one
 * kernel, and so do chains of elementwise operations. Values stay the same up to rounding; nothing here changes shapes or order of effects.
 *
 * @module
 */
import { byteLength, type Graph, type Node, type Tensor } from "./graph.ts";
import { type AccumulateAttributes, accumulateOp } from "./ops/accumulate.ts";
import { type CombineAttributes, combineOp } from "./ops/combine.ts";
import { matmulAccumulateOp, type MatmulAttributes, matmulOp } from "./ops/matmul.ts";
import { WHOLE_DEPTH } from "./ops/matmul/variants.ts";
import { applies, isView, type NodeOf, type Op, rootOf } from "./op.ts";
import { rmsNormBackwardOp } from "./ops/rms_norm.ts";
import { bothRopes, type RopeAttributes, ropeOp } from "./ops/rope.ts";
import { operandName, type PointwiseAttributes, pointwiseOp } from "./ops/pointwise.ts";
import { substitute, variable } from "./expr/mod.ts";

/** The nodes to lower, in program order. Their output tensors are those of the graph, so later nodes need no rewriting. */
export function optimise(graph: Graph): Node[] {
  const sums = mergeNormSums(graph, mergeSums(graph, dropUnused(graph, graph.nodes)));
  return dropUnused(graph, mergePointwise(graph, mergeRopes(sums)));
}

function dropUnused(graph: Graph, nodes: readonly Node[]): Node[] {
  const needed = new Set<Tensor>(graph.outputs.values());
  const kept: Node[] = [];
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i]!;
    if (!node.op.mutates && !node.outputs.some((t) => needed.has(t))) continue;
    node.inputs.forEach((t) => needed.add(t));
    kept.push(node);
  }
  return kept.reverse();
}

/** The tensors whose memory some node of the block writes in place: what reads them must not move. */
export function mutatedRoots(nodes: readonly Node[]): Set<Tensor> {
  const roots = new Set<Tensor>();
  for (const node of nodes) if (node.op.mutates) node.outputs.forEach((t) => roots.add(rootOf(t).root));
  return roots;
}

/** How often each tensor is read, by nodes and as an output of the block. */
export function countUses(graph: Graph, nodes: readonly Node[]): Map<Tensor, number> {
  const uses = new Map<Tensor, number>();
  for (const node of nodes) for (const t of node.inputs) uses.set(t, (uses.get(t) ?? 0) + 1);
  for (const t of graph.outputs.values()) uses.set(t, (uses.get(t) ?? 0) + 1);
  return uses;
}

/** Folds `combine` and `accumulate` into the matrix products that feed them. */
function mergeSums(graph: Graph, nodes: readonly Node[]): Node[] {
  const uses = countUses(graph, nodes);
  const mutated = mutatedRoots(nodes);
  const isStill = (node: Node) => !node.inputs.some((t) => mutated.has(rootOf(t).root));
  const makerOf = new Map<Tensor, Node>();
  const result: (Node | undefined)[] = [];
  const indexOf = new Map<Node, number>();
  const product = (t: Tensor): Product | undefined => {
    const node = makerOf.get(t);
    return node && applies(node, matmulOp) && uses.get(t) === 1 && isStill(node) ? node : undefined;
  };
  const drop = (node: Node) => void (result[indexOf.get(node)!] = undefined);

  for (const node of nodes) {
    let merged = node;
    let at = result.length;
    if (applies(node, combineOp) && node.inputs.length === 2) {
      merged = mergeCombine(node, product, drop) ?? node;
    } else if (applies(node, accumulateOp)) {
      const maker = product(node.inputs[1]!);
      merged = mergeAccumulate(node, product, drop) ?? node;
      // Gradients are added up at the end of a block. There, the product's operands, and so the activations of every layer, would
      // have to live until then: it stays where it was.
      if (merged !== node) {
        const place = indexOf.get(maker!)!;
        if (!usesMemory(result.slice(place), node.inputs[0]!)) at = place;
      }
    }
    indexOf.set(merged, at);
    result[at] = merged;
    merged.outputs.forEach((t) => makerOf.set(t, merged));
  }
  return result.filter((n) => n !== undefined);
}

/** Whether any of the nodes reads or writes the memory of `tensor`, or a part of it. */
function usesMemory(nodes: readonly (Node | undefined)[], tensor: Tensor): boolean {
  const { root, byteOffset } = rootOf(tensor);
  const end = byteOffset + byteLength(tensor);
  return nodes.some((node) =>
    node && !isView(node) && [...node.inputs, ...node.outputs].some((t) => {
      const other = rootOf(t);
      return other.root === root && other.byteOffset < end && byteOffset < other.byteOffset + byteLength(t);
    })
  );
}

type Product = NodeOf<MatmulAttributes>;
type Finder = (t: Tensor) => Product | undefined;

function mergeCombine(
  node: NodeOf<CombineAttributes>,
  product: Finder,
  drop: (n: Node) => void,
): Node | undefined {
  const { factors } = node.attributes;
  const [a, b] = node.inputs as [Tensor, Tensor];
  if (a === b) return undefined;
  const [pa, pb] = [product(a), product(b)];

  if (pa && pb) {
    const both = twoProducts(node, pa, factors[0]!, pb, factors[1]!) ??
      twoProducts(node, pb, factors[1]!, pa, factors[0]!);
    if (both) {
      drop(pa);
      drop(pb);
      return both;
    }
  }
  // One product and something to start from. Of two candidates the later one takes the other in.
  for (
    const [maker, other, own, its] of [[pb, a, factors[1], factors[0]], [
      pa,
      b,
      factors[0],
      factors[1],
    ]] as const
  ) {
    if (!maker || its !== 1) continue;
    const { attributes } = maker;
    if (attributes.addend) continue;
    drop(maker);
    return replace(node, matmulOp, [...maker.inputs, other], {
      ...attributes,
      factors: attributes.factors.map((f) => f * own!),
      addend: true,
    });
  }
  return undefined;
}

/** `first` and `second` as one kernel with two products, if their shapes and types allow; `second` must be all f32. */
function twoProducts(
  node: Node,
  first: Product,
  f1: number,
  second: Product,
  f2: number,
): Node | undefined {
  const [a1, a2] = [first.attributes, second.attributes];
  if (a1.orientation !== a2.orientation || a1.factors.length !== 1 || a2.factors.length !== 1) {
    return undefined;
  }
  if (a2.addend || second.inputs[1]!.dtype !== "f32") return undefined;
  // The second product is the short one: it is not split and not chosen a tile for.
  const depth = (n: Node, o: string) => (o === "TN" ? n.inputs[0]!.dim(0) : n.inputs[0]!.dim(1));
  if (depth(second, a2.orientation) > Math.min(WHOLE_DEPTH, depth(first, a1.orientation))) return undefined;
  if (a2.compute) return undefined;
  const shared = {
    orientation: a1.orientation,
    factors: [a1.factors[0]! * f1, a2.factors[0]! * f2],
    ...(a1.compute ? { compute: a1.compute } : {}),
  };
  if (a1.addend) {
    if (f1 !== 1) return undefined;
    const [x, w, addend] = first.inputs as [Tensor, Tensor, Tensor];
    return replace(node, matmulOp, [x, w, ...second.inputs, addend], {
      ...shared,
      addend: true,
    });
  }
  return replace(node, matmulOp, [...first.inputs, ...second.inputs], {
    ...shared,
    addend: false,
  });
}

function mergeAccumulate(
  node: NodeOf<AccumulateAttributes>,
  product: Finder,
  drop: (n: Node) => void,
): Node | undefined {
  const [state, value] = node.inputs as [Tensor, Tensor];
  const maker = product(value);
  if (!maker) return undefined;
  if (maker.attributes.addend) return undefined;
  drop(maker);
  const merged = replace(node, matmulAccumulateOp, [...maker.inputs, state], {
    ...maker.attributes,
    accumulate: node.attributes.keep,
  });
  return { ...merged, path: maker.path, stretch: maker.stretch };
}

function replace<A>(node: Node, op: Op<A>, inputs: readonly Tensor[], attributes: A): NodeOf<A> {
  return { ...node, op, inputs, attributes };
}

/** Lets the backward pass of a norm add the gradient that passes it by, where nothing else uses what it makes. */
function mergeNormSums(graph: Graph, nodes: readonly Node[]): Node[] {
  const uses = countUses(graph, nodes);
  const mutated = mutatedRoots(nodes);
  const makerOf = new Map<Tensor, Node>();
  const dropped = new Set<Node>();
  const result = nodes.map((node) => {
    node.outputs.forEach((t) => makerOf.set(t, node));
    if (!applies(node, combineOp) || node.inputs.length !== 2) return node;
    if (node.attributes.factors.some((f) => f !== 1)) return node;
    for (const [i, t] of node.inputs.entries()) {
      const maker = makerOf.get(t);
      const addend = node.inputs[1 - i]!;
      if (!maker || !applies(maker, rmsNormBackwardOp) || maker.inputs.length > 3) continue;
      const [dx, scale] = maker.outputs as [Tensor, Tensor];
      // The scale of each row is made where it was used.
      if (t !== dx || uses.get(dx) !== 1 || uses.has(scale)) continue;
      // One range of memory may not be bound twice where another is written.
      if ([dx, ...maker.inputs].some((t) => rootOf(t).root === rootOf(addend).root)) continue;
      if (maker.layer !== node.layer || maker.inputs.some((t) => mutated.has(rootOf(t).root))) continue;
      dropped.add(maker);
      return { ...maker, inputs: [...maker.inputs, addend], outputs: [node.outputs[0]!, scale] };
    }
    return node;
  });
  return result.filter((n) => !dropped.has(n));
}

/**
 * Lets one kernel turn queries and keys. In the backward pass both are there when the first is turned; in the forward pass the first waits
 * for the second, where nobody asks for it before.
 */
function mergeRopes(nodes: readonly Node[]): Node[] {
  const mutated = mutatedRoots(nodes);
  const madeAt = new Map<Tensor, number>();
  const result: (Node | undefined)[] = [...nodes];
  let waiting: { node: NodeOf<RopeAttributes>; at: number; used: boolean } | undefined;
  nodes.forEach((node, at) => {
    node.outputs.forEach((t) => madeAt.set(t, at));
    if (waiting && node.inputs.includes(waiting.node.outputs[0]!)) waiting.used = true;
    if (!applies(node, ropeOp)) return;
    const still = !node.inputs.some((t) => mutated.has(rootOf(t).root));
    const both = waiting && still && waiting.node.layer === node.layer && bothRopes(waiting.node, node);
    const early = waiting && (madeAt.get(node.inputs[0]!) ?? -1) < waiting.at;
    if (!waiting || !both || (!early && waiting.used)) {
      waiting = still ? { node, at, used: false } : undefined;
      return;
    }
    result[early ? waiting.at : at] = both;
    result[early ? at : waiting.at] = undefined;
    waiting = undefined;
  });
  return result.filter((n) => n !== undefined);
}

/** Operands that one elementwise kernel may bind beside its output. */
const MOST_OPERANDS = 7;

/** Folds elementwise nodes, and `combine`s, into the one elementwise node that uses them. */
function mergePointwise(graph: Graph, nodes: readonly Node[]): Node[] {
  const uses = countUses(graph, nodes);
  const mutated = mutatedRoots(nodes);
  const makerOf = new Map<Tensor, Node>();
  const dropped = new Set<Node>();
  const result = nodes.map((node) => {
    let merged = node;
    while (applies(merged, pointwiseOp)) {
      const next = absorbOne(merged, makerOf, uses, dropped, mutated);
      if (!next) break;
      merged = next;
    }
    merged.outputs.forEach((t) => makerOf.set(t, merged));
    return merged;
  });
  return result.filter((n) => !dropped.has(n));
}

/** `node` with one of its operands' makers folded in, or undefined where there is none that can be. */
function absorbOne(
  node: NodeOf<PointwiseAttributes>,
  makerOf: ReadonlyMap<Tensor, Node>,
  uses: ReadonlyMap<Tensor, number>,
  dropped: Set<Node>,
  mutated: ReadonlySet<Tensor>,
): Node | undefined {
  const { expression, scalars } = node.attributes;
  for (const operand of new Set(node.inputs)) {
    const maker = makerOf.get(operand);
    const inner = maker && elementwise(maker);
    const times = node.inputs.filter((t) => t === operand).length;
    if (!inner || maker.inputs.some((t) => mutated.has(rootOf(t).root))) continue;
    if (uses.get(operand) !== times || String(operand.shape) !== String(node.outputs[0]!.shape)) {
      continue;
    }
    const inputs = [...new Set([...node.inputs.filter((t) => t !== operand), ...maker.inputs])];
    if (inputs.length > MOST_OPERANDS) continue;
    const rename = (from: readonly Tensor[]) =>
      new Map(from.map((t, i) => [operandName(i), variable(operandName(inputs.indexOf(t)))]));
    const replaced = substitute(inner.expression, { numbers: rename(maker.inputs) });
    const outer = rename(node.inputs);
    node.inputs.forEach((t, i) => t === operand && outer.set(operandName(i), replaced));
    dropped.add(maker);
    return replace(node, pointwiseOp, inputs, {
      expression: substitute(expression, { numbers: outer }),
      scalars: [...new Map([...scalars, ...inner.scalars].map((s) => [s.name, s])).values()],
    });
  }
  return undefined;
}

/** A node as an elementwise expression over its inputs. */
function elementwise(node: Node): PointwiseAttributes | undefined {
  if (applies(node, pointwiseOp)) return node.attributes;
  if (!applies(node, combineOp)) return undefined;
  const terms = node.attributes.factors.map((f, i) => variable(operandName(i)).mul(f));
  return { expression: terms.reduce((a, b) => a.add(b)), scalars: [] };
}
