/**
 * Gradient norm and AdamW over flat buffers: `deno run -A bench/adamw_bench.ts [--tiled]`.
 *
 * @module
 */
import { adamw, ADAMW_SCALARS, biasCorrections } from "../src/tensor/ops/adamw.ts";
import { gradientNorm } from "../src/tensor/ops/norms.ts";
import { line, measure, openForBench } from "./measure.ts";

const SETTINGS = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, clip: 1 };
const gpu = await openForBench();
for (
  const [what, count] of [["stories260K rank 8", 50_000], ["stories15M rank 16", 800_000], [
    "0.5B rank 16",
    8_800_000,
  ]] as const
) {
  line(
    `gradientNorm, ${what} (${count})`,
    await measure(gpu, (g) => gradientNorm(g.state("gradients", [count], "f32"))),
    "GB/s",
  );
  const update = await measure(gpu, (g) => {
    const [p, gradients, m, v] = ["p", "gradients", "m", "v"].map((name) => g.state(name, [count], "f32"));
    const norm = g.state("norm", [2], "f32");
    return adamw(p!, gradients!, m!, v!, norm, { ...SETTINGS, first: 0, count, weightDecay: 0.01 });
  }, { scalars: { [ADAMW_SCALARS.learningRate]: 1e-3, ...biasCorrections(SETTINGS, 10) } });
  line(`adamw, ${what} (${count})`, update, "GB/s");
}
gpu.destroy();
