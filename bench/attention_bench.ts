/**
 * Attention over packed samples, forward and backward, and decoding: `deno run -A bench/attention_bench.ts [--tiled] [--variants]`.
 *
 * With `--variants` every kernel that there is for each case, beside what a model of the device makes of it: the fastest first.
 *
 * @module
 */
import { gradients } from "../src/tensor/differentiate.ts";
import type { Gpu } from "../src/gpu/device.ts";
import type { Graph, Tensor } from "../src/tensor/graph.ts";
import { attention } from "../src/tensor/ops/attention.ts";
import { plan, Program } from "../src/tensor/plan.ts";
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

/** Times the variants of each choice of a plan, by the trials that a tuner would run. */
async function printVariants(gpu: Gpu, build: (graph: Graph) => Tensor | readonly Tensor[]): Promise<void> {
  const program = new Program();
  const graph = program.block("some");
  [build(graph)].flat().forEach((t, i) => graph.output(`y${i}`, t as Tensor));
  for (const { key, chosen, candidates, trial } of plan(program, gpu.description).kernels.values()) {
    const first = candidates.find((c) => c.name === chosen)!;
    const timed = [];
    for (const { name, cost } of candidates) {
      const fill = trial(new Program().block("for its inputs"));
      const traced = (g: Graph) => {
        trial(g);
        return [...g.outputs.values()];
      };
      const device = { ...gpu.description, kernels: { [key]: name } };
      const { best, flops } = await measure(gpu, traced, { repeats: 7, device, fill });
      timed.push({ name, cost, best, flops });
    }
    const usual = timed.find((t) => t.name === chosen)!;
    for (const { name, cost, best, flops } of timed.sort((a, b) => a.best - b.best)) {
      const mark = name === chosen ? "*" : " ";
      console.log(
        `  ${mark} ${`${key}: ${name}`.padEnd(64)} ${best.toFixed(3).padStart(9)} ms ${
          (flops / best / 1e6).toFixed(1).padStart(8)
        } GFLOP/s  ${(best / usual.best).toFixed(2)} of the first's time, ${
          (cost / first.cost).toFixed(2)
        } by the model`,
      );
    }
  }
}

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
  if (Deno.args.includes("--variants")) {
    console.log(what);
    await printVariants(gpu, build(!c.cached));
    continue;
  }
  // Two products of queries and keys forward, seven backward: the weights are computed again for either kernel.
  const rate = async (name: string, products: number, backward: boolean) => {
    const result = await measure(gpu, build(backward), { fill, repeats: 15 });
    line(name, { ...result, flops: products * 2 * pairs * c.headDim }, "GFLOP/s");
  };
  await rate(what, 2, false);
  if (!c.cached) await rate("  with its backward pass", 9, true);
}
gpu.destroy();
