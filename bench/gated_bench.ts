/**
 * Gated SiLU, forward and backward: `deno run -A bench/gated_bench.ts [--tiled]`.
 *
 * @module
 */
import { gatedSilu, gatedSiluBackwardOp } from "../src/tensor/ops/gated.ts";
import { line, measure, openForBench } from "./measure.ts";

const gpu = await openForBench();
for (
  const [what, rows, width] of [["stories15M", 256, 768], ["stories260K", 1024, 172], [
    "0.5B",
    512,
    4864,
  ]] as const
) {
  const name = `${what} (${rows} x ${width})`;
  line(
    name,
    await measure(
      gpu,
      (g) => gatedSilu(g.weight("gate", [rows, width], "f32"), g.weight("up", [rows, width], "f32")),
    ),
    "GB/s",
  );
  const backward = await measure(gpu, (g) => {
    const inputs = ["gate", "up", "dy"].map((name) => g.weight(name, [rows, width], "f32"));
    return g.add(gatedSiluBackwardOp, inputs, null);
  });
  line(`${name} backward`, backward, "GB/s");
}
gpu.destroy();
