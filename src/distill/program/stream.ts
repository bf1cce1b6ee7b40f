/**
 * The inputs of a packed stream in a block.
 *
 * @module
 */
import type { StreamInputs } from "../../models/context.ts";
import type { Graph } from "../../tensor/graph.ts";

/** The per-token inputs of a packed stream. `prefix` tells streams of different lengths in one program apart. */
export function streamInputs(graph: Graph, tokens: number, cached = false, prefix = ""): StreamInputs {
  const input = (name: string) => graph.input(`${prefix}${name}`, [tokens], "i32");
  return {
    tokens: input("tokens"),
    positions: input("positions"),
    start: input("start"),
    end: input("end"),
    ...(cached ? { slots: input("slots") } : {}),
  };
}
