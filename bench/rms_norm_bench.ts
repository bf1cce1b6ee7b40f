/**
 * Root mean square norm, forward and backward: `deno run -A bench/rms_norm_bench.ts [--tiled]`.
 *
 * @module
 */
import { normWeightGradient, rmsNorm, rmsNormBackwardOp } from "../src/tensor/ops/rms_norm.ts";
import { line, measure, openForBench } from "./measure.ts";

const gpu = await openForBench();
for (
  const [what, rows, width] of [["stories15M", 256, 288], ["stories260K", 1024, 64], [
    "0.5B",
    512,
    896,
  ]] as const
) {
  const name = `${what} (${rows} x ${width})`;
  const forward = await measure(
    gpu,
    (g) => rmsNorm(g.weight("x", [rows, width], "f32"), g.weight("w", [width], "f32"), 1e-5),
  );
  line(`${name}`, forward, "GB/s");
  const backward = await measure(gpu, (g) => {
    const [x, dy] = [g.weight("x", [rows, width], "f32"), g.weight("dy", [rows, width], "f32")];
    return g.add(rmsNormBackwardOp, [x, g.weight("w", [width], "f32"), dy], { epsilon: 1e-5 });
  });
  line(`${name} backward`, backward, "GB/s");
  const weight = await measure(gpu, (g) => {
    const [x, dy] = [g.weight("x", [rows, width], "f32"), g.weight("dy", [rows, width], "f32")];
    return normWeightGradient(x, dy, g.weight("scale", [rows], "f32"));
  });
  line(`${name} weight gradient`, weight, "GB/s");
}
gpu.destroy();
