/**
 * Rotary position embedding: `deno run -A bench/rope_bench.ts [--tiled]`.
 *
 * @module
 */
import { rope } from "../src/tensor/ops/rope.ts";
import { line, measure, openForBench } from "./measure.ts";

const gpu = await openForBench();
for (
  const [what, rows, heads, headDim] of [["stories15M q", 256, 6, 48], ["stories260K q", 1024, 8, 8], [
    "0.5B q",
    512,
    14,
    64,
  ]] as const
) {
  const result = await measure(gpu, (g) =>
    rope(
      g.weight("x", [rows, heads * headDim], "f32"),
      g.input("positions", [rows], "i32"),
      g.weight("table", [rows, headDim], "f32"),
      heads,
      headDim,
    ), { fill: { positions: Int32Array.from({ length: rows }, (_, i) => i) } });
  line(`${what} (${rows} x ${heads} x ${headDim})`, result, "GB/s");
}
gpu.destroy();
