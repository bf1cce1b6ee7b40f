/**
 * A mixture of experts beside one expert that all tokens use, of the same work for each, beside all experts for every token, and with LoRA
 * on its experts: `deno run -A bench/experts_bench.ts [--tiled]`.
 *
 * @module
 */
import { gradients } from "../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../src/tensor/graph.ts";
import { gated } from "../src/tensor/ops/activation.ts";
import { joinColumns, splitColumns } from "../src/tensor/ops/columns.ts";
import { add } from "../src/tensor/ops/combine.ts";
import { expertWeights, mixture } from "../src/tensor/ops/experts.ts";
import { linear } from "../src/tensor/ops/matmul.ts";
import { line, measure, openForBench } from "./measure.ts";

const gpu = await openForBench();
const hidden = 512;
const inner = 192;
const RANK = 8;
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
  /** Gradients reach the factors of every expert too. */
  const adapted = (g: Graph) => {
    const x = g.weight("x", [tokens, hidden], "f32");
    const factors = (name: string, out: number, width: number) =>
      [[experts * RANK, width], [experts * out, RANK]].map((shape, i) =>
        g.state(`${name}.${"AB"[i]}`, shape, "f32")
      ) as [Tensor, Tensor];
    const [gateUp, down] = [factors("gate_up", 2 * inner, hidden), factors("down", hidden, inner)];
    const weights = expertWeights(linear(x, g.weight("router", [experts, hidden], "f32")), chosen, {
      normalise: true,
    });
    const packed = (name: string, out: number, width: number) =>
      g.weight(name, [experts * out, width], "bf16");
    const y = mixture(x, weights, chosen, (rows, linear) => {
      const update = (rows: Tensor, [a, b]: readonly [Tensor, Tensor]) => linear(linear(rows, a), b);
      const base = [packed("gate", inner, hidden), packed("up", inner, hidden)].map((w) => linear(rows, w));
      const both = add(joinColumns(base), update(rows, gateUp));
      const [gate, up] = splitColumns(both, [inner, inner]) as [Tensor, Tensor];
      const middle = gated(gate, up, "silu");
      return add(linear(middle, packed("down", hidden, inner)), update(middle, down));
    });
    return gradients(g, [[y, g.weight("dy", y.shape, "f32")]], [x, ...gateUp, ...down]) as Tensor[];
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
    if (backward) {
      const result = await measure(gpu, adapted, { repeats: 5 });
      line(`${tokens} tokens, LoRA of rank ${RANK} on ${chosen} of ${experts} experts, backward too`, {
        ...result,
        flops: flops * times + 3 * 2 * tokens * chosen * RANK * (2 * hidden + 3 * inner),
      }, "GFLOP/s");
    }
    if (!backward && tokens > 1) await rate(`all ${experts}`, mixed(experts), flops / chosen * experts);
  }
}
gpu.destroy();
