/**
 * How long the intermediates of a block live, and how many bytes of them at once, in one order of its nodes or another.
 *
 * @module
 */
import { byteLength, type Graph, type Node, type Tensor } from "./graph.ts";
import { align } from "./memory.ts";
import { rootOf } from "./op.ts";

interface Life {
  readonly first: number;
  last: number;
}

/** Nodes by index; those of one list run at once. */
export type Order = readonly (readonly number[])[];

/** See the module. */
export class Lives {
  /** In the order of the nodes as given; what is an output of the block lives until after the last. */
  readonly #lives = new Map<Tensor, Life>();
  readonly #touched: readonly (readonly Tensor[])[];

  constructor(graph: Graph, nodes: readonly Node[]) {
    this.#touched = nodes.map(({ inputs, outputs }) => intermediates([...outputs, ...inputs]));
    this.#touched.forEach((tensors, at) => tensors.forEach((t) => touch(this.#lives, t, at)));
    intermediates(graph.outputs.values()).forEach((t) => touch(this.#lives, t, nodes.length));
  }

  /**
   * The most bytes alive at once while some nodes run, of the tensors that are counted.
   *
   * @param first The first of these nodes
   * @param order Those from the first on, without a gap, in any order
   */
  most(first: number, order: Order, counts: (t: Tensor) => boolean = () => true): number {
    const last = first + order.reduce((sum, together) => sum + together.length, 0) - 1;
    const within = new Map<Tensor, Life>();
    order.forEach((together, step) =>
      together.forEach((node) => this.#touched[node]!.forEach((t) => touch(within, t, step)))
    );
    const change = new Array<number>(order.length + 1).fill(0);
    for (const [t, life] of this.#lives) {
      if (life.first > last || life.last < first || !counts(t)) continue;
      const bytes = align(byteLength(t));
      change[life.first < first ? 0 : within.get(t)!.first]! += bytes;
      change[1 + (life.last > last ? order.length - 1 : within.get(t)!.last)]! -= bytes;
    }
    let alive = 0;
    return Math.max(...change.map((bytes) => alive += bytes));
  }
}

/** What owns the memory of tensors, where that is no storage. */
function intermediates(tensors: Iterable<Tensor>): Tensor[] {
  return [...tensors].map((t) => rootOf(t).root).filter((root) => !root.storage);
}

function touch(lives: Map<Tensor, Life>, t: Tensor, at: number): void {
  const life = lives.get(t);
  if (life) life.last = at;
  else lives.set(t, { first: at, last: at });
}
