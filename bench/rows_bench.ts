/**
 * Rows by index, embeddings and the cache: `deno run -A bench/rows_bench.ts [--tiled]`. Of a table only the rows looked up are
 * read, so rates count the output alone.
 *
 * @module
 */
import { scatterRows } from "../src/tensor/ops/cache.ts";
import { embedding } from "../src/tensor/ops/embedding.ts";
import { line, measure, openForBench } from "./measure.ts";

const gpu = await openForBench();
for (
  const [what, rows, width, vocabulary] of [["stories15M", 256, 288, 32000], ["stories260K", 1024, 64, 512], [
    "0.5B",
    512,
    896,
    151936,
  ]] as const
) {
  const indices = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocabulary);
  const lookup = await measure(gpu, (g) =>
    embedding(
      g.weight("table", [vocabulary, width], vocabulary > 100_000 ? "bf16" : "f32"),
      g.input("tokens", [rows], "i32"),
    ), { fill: { tokens: indices } });
  line(`${what} embedding (${rows} x ${width})`, { ...lookup, bytes: rows * width * 4 }, "GB/s");
  const scatter = await measure(gpu, (g) =>
    scatterRows(
      g.state("cache", [rows, width], "f32"),
      g.weight("rows", [rows, width], "f32"),
      g.input("slots", [rows], "i32"),
    ), { fill: { slots: Int32Array.from({ length: rows }, (_, i) => rows - 1 - i) } });
  line(`${what} scatterRows (${rows} x ${width})`, { ...scatter, bytes: rows * width * 4 }, "GB/s");
}
gpu.destroy();
