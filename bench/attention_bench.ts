/**
 * Attention over packed samples, forward and backward, and decoding: `deno run -A bench/attention_bench.ts [--tiled]`.
 *
 * @module
 */
import { gradients } from "../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../src/tensor/graph.ts";
import { attention } from "../src/tensor/ops/attention.ts";
import { line, measure, openForBench } from "./measure.ts";

interface Case {
  readonly name: string;
  /** Queries of each sample, packed back to back. */
  readonly samples: readonly number[];
  /** Keys in a cache for each query of a decoding step; without, the queries are the keys. */
  readonly cached?: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly softCap?: number;
}

const CASES: readonly Case[] = [
  { name: "stories15M", samples: [256], heads: 6, keyValueHeads: 6, headDim: 48 },
  { name: "stories260K", samples: [256, 256, 256, 256], heads: 8, keyValueHeads: 4, headDim: 8 },
  { name: "0.5B", samples: [512], heads: 14, keyValueHeads: 2, headDim: 64 },
  { name: "0.5B, capped", samples: [512], heads: 14, keyValueHeads: 2, headDim: 64, softCap: 50 },
  { name: "stories15M decoding", samples: [1], cached: 256, heads: 6, keyValueHeads: 6, headDim: 48 },
  {
    name: "stories15M decoding",
    samples: [1, 1, 1, 1],
    cached: 256,
    heads: 6,
    keyValueHeads: 6,
    headDim: 48,
  },
  { name: "0.5B decoding", samples: [1], cached: 1024, heads: 14, keyValueHeads: 2, headDim: 64 },
];

const gpu = await openForBench();
for (const c of CASES) {
  const starts: number[] = [];
  const ends: number[] = [];
  c.samples.forEach((length, s) => {
    const first = c.cached ? s * c.cached : starts.length;
    for (let i = 0; i < length; i++) {
      starts.push(first);
      ends.push(first + (c.cached ?? i + 1));
    }
  });
  const queries = starts.length;
  const keys = c.cached ? c.samples.length * c.cached : queries;
  const pairs = ends.reduce((sum, end, i) => sum + end - starts[i]!, 0) * c.heads;
  const fill = { start: Int32Array.from(starts), end: Int32Array.from(ends) };
  const build = (backward: boolean) => (g: Graph) => {
    const q = g.weight("q", [queries, c.heads * c.headDim], "f32");
    const [k, v] = ["k", "v"].map((n) => g.weight(n, [keys, c.keyValueHeads * c.headDim], "f32"));
    const ranges = { start: g.input("start", [queries], "i32"), end: g.input("end", [queries], "i32") };
    const y = attention(q, k!, v!, ranges, { ...c, scale: c.headDim ** -0.5 });
    return backward ? gradients(g, [[y, g.weight("dy", y.shape, "f32")]], [q, k!, v!]) as Tensor[] : y;
  };
  const what = `${c.name} (${queries} over ${keys}, ${c.heads}/${c.keyValueHeads} x ${c.headDim})`;
  // Two products of queries and keys forward, seven backward: the weights are computed again for either kernel.
  const rate = async (name: string, products: number, backward: boolean) => {
    const result = await measure(gpu, build(backward), { fill, repeats: 15 });
    line(name, { ...result, flops: products * 2 * pairs * c.headDim }, "GFLOP/s");
  };
  await rate(what, 2, false);
  if (!c.cached) await rate("  with its backward pass", 9, true);
}
gpu.destroy();
