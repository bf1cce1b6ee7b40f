/**
 * Matrix products at the sizes of a training step: `deno run -A bench/matmul_bench.ts [--tiled]`.
 *
 * @module
 */
import type { DType } from "../src/tensor/graph.ts";
import { matmul, type Orientation } from "../src/tensor/ops/matmul.ts";
import { line, measure, openForBench } from "./measure.ts";

type Case = [what: string, orientation: Orientation, m: number, n: number, k: number, weight?: DType];

const CASES: Case[] = [
  ["stories15M q: x W^T", "NT", 256, 288, 288],
  ["stories15M gate: x W^T", "NT", 256, 768, 288],
  ["stories15M gate, bf16", "NT", 256, 768, 288, "bf16"],
  ["stories15M down: x W^T", "NT", 256, 288, 768],
  ["stories15M gate backward: dy W", "NN", 256, 288, 768],
  ["stories15M x A^T, rank 8", "NT", 256, 8, 288],
  ["stories15M h B^T, rank 8", "NT", 256, 288, 8],
  ["stories15M dA = dh^T x, rank 8", "TN", 8, 288, 256],
  ["stories15M dB = dy^T h, rank 8", "TN", 288, 8, 256],
  ["stories15M dB of gate, rank 8", "TN", 768, 8, 256],
  ["stories15M dA of down, rank 16", "TN", 16, 768, 256],
  ["stories15M dh = dy B, rank 8", "NN", 256, 8, 768],
  ["stories15M head, 64 rows", "NT", 64, 32000, 288],
  ["stories15M head backward, 64 rows", "NN", 64, 288, 32000],
  ["stories260K q", "NT", 1024, 64, 64],
  ["stories260K gate", "NT", 1024, 172, 64],
  ["stories260K down", "NT", 1024, 64, 172],
  ["stories260K dA of gate, rank 8", "TN", 8, 64, 1024],
  ["0.5B gate, bf16", "NT", 512, 4864, 896, "bf16"],
  ["0.5B down, bf16", "NT", 512, 896, 4864, "bf16"],
  ["0.5B gate backward, bf16", "NN", 512, 896, 4864, "bf16"],
  ["0.5B decoding, 1 row, bf16", "NT", 1, 4864, 896, "bf16"],
];

const gpu = await openForBench();
for (const [what, orientation, m, n, k, dtype = "f32"] of CASES) {
  const result = await measure(gpu, (g) => {
    const x = g.weight("x", orientation === "TN" ? [k, m] : [m, k], "f32");
    const w = g.weight("w", orientation === "NT" ? [n, k] : [k, n], dtype);
    return matmul(orientation, x, w);
  }, { repeats: m * n * k > 1e9 ? 3 : 15 });
  line(`${what} (${m} x ${n} x ${k})`, result, "GFLOP/s");
}
gpu.destroy();
