/**
 * A mixture of experts beside one expert that all tokens use, of the same work for each, and beside all experts for every token:
 * `deno run -A bench/experts_bench.ts [--tiled]`.
 *
 * @module
 */
import { gradients } from "../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../src/tensor/graph.ts";
import { gated } from "../src/tensor/ops/activation.ts";
import { expertWeights, mixture } from "../src/tensor/ops/experts.ts";
import { linear } from "../src/tensor/ops/matmul.ts";
import { line, measure, openForBench } from "./measure.ts";

const gpu = await openForBench();
const hidden = 512;
const inner = 192;
for (const [tokens, experts, chosen] of [[256, 64, 8], [256, 128, 8], [1, 64, 8]] as const) {
  const program = (build: (g: Graph, x: Tensor) => Tensor, backward: boolean) => (g: Graph) => {
    const x = g.weight("x", [tokens, hidden], "f32");
    const y = build(g, x);
    return backward ? gradients(g, [[y, g.weight("dy", y.shape, "f32")]], [x]) as Tensor[] : y;
  };
  const mixed = (chosen: number) => (g: Graph, x: Tensor) => {
    const weights = expertWeights(linear(x, g.weight("router", [experts, hidden], "f32")), chosen, {
      normalise: true,
    });
    const packed = (name: string, out: number, width: number) =>
      g.weight(name, [experts * out, width], "bf16");
    return mixture(x, weights, chosen, (rows, linear) => {
      const gate = linear(rows, packed("gate", inner, hidden));
      return linear(
        gated(gate, linear(rows, packed("up", inner, hidden)), "silu"),
        packed("down", hidden, inner),
      );
    });
  };
  const single = (g: Graph, x: Tensor) => {
    const weight = (name: string, out: number, width: number) => g.weight(name, [out, width], "bf16");
    const gate = linear(x, weight("gate", chosen * inner, hidden));
    const up = linear(x, weight("up", chosen * inner, hidden));
    return linear(gated(gate, up, "silu"), weight("down", hidden, chosen * inner));
  };
  const flops = 2 * 3 * tokens * chosen * hidden * inner;
  for (const [backward, times] of [[false, 1], [true, 2]] as const) {
    const rate = async (name: string, build: (g: Graph, x: Tensor) => Tensor, work: number) => {
      const what = `${tokens} tokens, ${name}${backward ? ", backward too" : ""}`;
      const result = await measure(gpu, program(build, backward), { repeats: 5 });
      line(what, { ...result, flops: work * times }, "GFLOP/s");
    };
    await rate(`${chosen} of ${experts} experts`, mixed(chosen), flops);
    await rate("one of that size", single, flops);
    if (!backward && tokens > 1) await rate(`all ${experts}`, mixed(experts), flops / chosen * experts);
  }
}
gpu.destroy();
