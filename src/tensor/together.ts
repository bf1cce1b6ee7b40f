/**
 * The order in which a block's nodes are run, with small ones side by side that one dispatch can make.
 *
 * An adapter of a low rank multiplies thin matrices, a few workgroups each. Made one after another they leave a device idle, which waits
 * for the last thread of each before it begins the next. Those of one layer that need nothing of each other (`Op.together`) are therefore
 * made together, and the others of the layer keep their order around them.
 *
 * Nothing is computed otherwise than before, so results are the same bit for bit. Memory comes first: what is put off keeps its operands
 * alive, so it is not where the block would need more memory at once than it did.
 *
 * @module
 */
import { byteLength, type Graph, type Node, type Tensor } from "./graph.ts";
import { Lives, type Order } from "./lives.ts";
import { isView, MOST_TOGETHER, rootOf } from "./op.ts";

/** A block: its nodes, in an order in which they can be run. */
export interface Block {
  readonly graph: Graph;
  readonly nodes: readonly Node[];
}

/** A block's nodes in the order in which they are run. */
export interface Schedule {
  readonly graph: Graph;
  /** Those in one list need nothing of each other. */
  readonly order: readonly (readonly Node[])[];
  /**
   * Those that are brought together, or could be: what they make is kept apart from all else. A launch for several binds ranges that hold what
   * all of them read, and what it writes must not lie in between.
   */
  readonly apart: ReadonlySet<Node>;
}

/** What is kept apart and what is not are seldom largest at once: so much more memory that takes at most, of all that the program takes. */
const MOST_MEMORY = 0.01;

/**
 * Brings together what can be, in all blocks of a program, where that takes next to no more memory, which they share. Where keeping things apart
 * would, only what is written into storages, as gradients are: that lies apart in any case.
 */
export function schedule(blocks: readonly Block[]): Schedule[] {
  const lives = blocks.map(({ graph, nodes }) => new Lives(graph, nodes));
  const room = Math.max(0, ...blocks.map(({ nodes }, i) => lives[i]!.most(0, nodes.map((_, i) => [i]))));
  const all = blocks.map((block, i) => scheduleBlock(block, lives[i]!, room, () => true));
  const most = (isApart: boolean) =>
    Math.max(0, ...all.map(({ order, kept }, i) => lives[i]!.most(0, order, (t) => kept.has(t) === isApart)));
  const made = most(true) + most(false) <= (1 + MOST_MEMORY) * room
    ? all
    : blocks.map((block, i) =>
      scheduleBlock(block, lives[i]!, room, (t) => rootOf(t).root.storage !== undefined)
    );
  return made.map(({ order, apart }, block) => {
    const { graph, nodes } = blocks[block]!;
    return { graph, order: order.map((together) => together.map((i) => nodes[i]!)), apart };
  });
}

/**
 * @param room Bytes of intermediates that may be alive at once
 * @param takes Whether nodes that make such tensors are brought together
 */
function scheduleBlock({ nodes }: Block, lives: Lives, room: number, takes: (t: Tensor) => boolean) {
  const kinds = nodes.map((node) =>
    node.stretch && !isView(node) && node.outputs.every(takes)
      ? node.op.together?.(node.inputs, node.attributes)
      : undefined
  );
  const stretches = findStretches(nodes, kinds);
  const needs = stretches.length > 0 ? findNeeds(nodes) : [];
  const order: number[][] = [];
  const upTo = (end: number) => {
    for (let i = order.reduce((sum, together) => sum + together.length, 0); i < end; i++) order.push([i]);
  };
  for (const [first, last] of stretches) {
    upTo(first);
    const fits = (tried: Order) => lives.most(first, tried) <= room;
    order.push(...orderStretch(first, last, nodes, kinds, needs, fits));
  }
  upTo(nodes.length);
  const apart = new Set(order.length < nodes.length ? nodes.filter((_, i) => kinds[i] !== undefined) : []);
  const kept = new Set([...apart].flatMap((node) => node.outputs.filter((t) => rootOf(t).root === t)));
  return { order, apart, kept };
}

/** First and last of the nodes that may be brought together, of each stretch that has several; those that overlap as one. */
function findStretches(
  nodes: readonly Node[],
  kinds: readonly (string | undefined)[],
): (readonly [number, number])[] {
  const ends = new Map<object, [number, number]>();
  kinds.forEach((kind, i) => {
    if (kind === undefined) return;
    const known = ends.get(nodes[i]!.stretch!);
    if (known) known[1] = i;
    else ends.set(nodes[i]!.stretch!, [i, i]);
  });
  const result: [number, number][] = [];
  for (const [first, last] of [...ends.values()].sort((a, b) => a[0] - b[0])) {
    const before = result.at(-1);
    if (before && first <= before[1]) before[1] = Math.max(before[1], last);
    else result.push([first, last]);
  }
  return result.filter(([first, last]) => last > first);
}

/** Of each node, those before it that must have run: what makes its inputs, and whatever else touches memory that one of both writes. */
function findNeeds(nodes: readonly Node[]): number[][] {
  const written = new Set<Tensor>();
  for (const node of nodes) {
    if (node.op.mutates) node.outputs.forEach((t) => written.add(rootOf(t).root));
  }
  const madeBy = new Map<Tensor, number>();
  const touched = new Map<Tensor, { node: number; begin: number; end: number; writes: boolean }[]>();
  return nodes.map((node, i) => {
    const needs = new Set<number>();
    for (const t of node.inputs) {
      const maker = madeBy.get(t);
      if (maker !== undefined) needs.add(maker);
    }
    node.outputs.forEach((t) => madeBy.set(t, i));
    if (isView(node)) return [...needs];
    for (const [tensors, writes] of [[node.inputs, false], [node.outputs, true]] as const) {
      for (const t of tensors) {
        const { root, byteOffset: begin } = rootOf(t);
        if (!written.has(root)) continue;
        const end = begin + byteLength(t);
        const others = touched.get(root) ?? [];
        for (const other of others) {
          if (other.node === i || !(writes || other.writes)) continue;
          if (other.begin < end && begin < other.end) needs.add(other.node);
        }
        others.push({ node: i, begin, end, writes });
        touched.set(root, others);
      }
    }
    return [...needs].sort((a, b) => a - b);
  });
}

/** One stretch, brought together as far as order and memory allow. */
function orderStretch(
  first: number,
  last: number,
  nodes: readonly Node[],
  kinds: readonly (string | undefined)[],
  needs: readonly (readonly number[])[],
  fits: (order: Order) => boolean,
): number[][] {
  const groupOf = new Map<number, number[]>();
  let best = order(first, last, groupOf, needs)!;
  const latest = new Map<string, number[]>();
  const layers = new Map<unknown, number>();
  for (let i = first; i <= last; i++) {
    if (kinds[i] === undefined) continue;
    const { layer, stretch } = nodes[i]!;
    // A layer that is left out takes along what is made together with a part of it.
    const key = `${kinds[i]} ${[layer, stretch].map((of) => numberOf(layers, of))}`;
    const group = latest.get(key);
    if (group && group.length < MOST_TOGETHER) {
      group.push(i);
      groupOf.set(i, group);
      const tried = order(first, last, groupOf, needs);
      if (tried && fits(tried)) {
        best = tried;
        continue;
      }
      group.pop();
    }
    const own = [i];
    groupOf.set(i, own);
    latest.set(key, own);
  }
  return best;
}

function numberOf(numbers: Map<unknown, number>, of: unknown): number {
  if (!numbers.has(of)) numbers.set(of, numbers.size);
  return numbers.get(of)!;
}

/**
 * The nodes of a stretch, as they were but for those that are made together: they run when the first of them would have, and right before them
 * whatever they still need.
 *
 * @returns undefined where something that they need itself needs one of them
 */
function order(
  first: number,
  last: number,
  groupOf: ReadonlyMap<number, readonly number[]>,
  needs: readonly (readonly number[])[],
): number[][] | undefined {
  const result: number[][] = [];
  const state = new Map<number, "begun" | "done">();
  const run = (i: number): boolean => {
    if (i < first || state.get(i) === "done") return true;
    if (state.get(i) === "begun") return false;
    const together = groupOf.get(i) ?? [i];
    together.forEach((j) => state.set(j, "begun"));
    if (!together.every((j) => needs[j]!.every(run))) return false;
    together.forEach((j) => state.set(j, "done"));
    result.push([...together]);
    return true;
  };
  for (let i = first; i <= last; i++) if (!run(i)) return undefined;
  return result;
}
