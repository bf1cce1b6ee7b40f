/**
 * Kernels of losses over rows of logits: `deno run -A bench/losses_bench.ts [--tiled] [--vocabulary 32000]`.
 *
 * Forward KL as it is compiled from its expression beside one written by hand, and every built-in loss beside cross-entropy on the
 * same rows. Kernels take turns, so that a disturbance meets all of them; ratios are of the fastest runs.
 *
 * @module
 */
import { builtins } from "../plugins/mod.ts";
import type { Divergence, RowLoss } from "../src/registry/contract.ts";
import { type ResolvedLoss } from "../src/losses/traced.ts";
import { compileRowLoss } from "../src/losses/compile.ts";
import { compile } from "../src/tensor/executable.ts";
import type { Graph, Tensor } from "../src/tensor/graph.ts";
import { grid, type Op, type SizeWord } from "../src/tensor/op.ts";
import { plan, Program } from "../src/tensor/plan.ts";
import type { Gpu } from "../src/gpu/device.ts";
import { parseArgs } from "@std/cli/parse-args";
import { line, measure, type Measurement, openForBench } from "./measure.ts";

const ROWS = 64;
const VOCABULARY = Number(parseArgs(Deno.args, { string: ["vocabulary"] }).vocabulary ?? 32_000);

/** A kernel over rows that is told its text. */
interface RowKernelText {
  readonly wgsl: string;
  readonly needsTeacher: boolean;
  readonly memoryWords: number;
  size(graph: Graph): SizeWord[];
}

/** Labels, target logits, learner logits, values: the last two are written. */
const rowKernelOp: Op<RowKernelText & { readonly words: readonly SizeWord[] }> = {
  name: "rowKernel",
  mutates: true,
  alias: (output) => ({ input: 2 + output, byteOffset: 0 }),
  infer: ([, , logits, values]) => [logits!, values!],
  lower({ inputs, attributes: { wgsl, needsTeacher, memoryWords, words }, device, scratch, dispatch }) {
    const [labels, target, logits, values] = inputs as [Tensor, Tensor, Tensor, Tensor];
    const memory = memoryWords > 0 ? [scratch([ROWS, memoryWords], "u32")] : [];
    dispatch({
      kernel: "rowKernel",
      wgsl,
      tensors: [labels, ...(needsTeacher ? [target] : []), logits, values, ...memory],
      size: words,
      groups: grid(ROWS, device),
    });
  },
};

function compiled(gpu: Gpu, loss: Divergence | RowLoss): RowKernelText {
  const options = loss.options.parse({}) as Record<string, unknown>;
  const term: ResolvedLoss = { loss, options, name: loss.id, weight: 1, temperature: 1 };
  const kernel = compileRowLoss([term], { vocabulary: VOCABULARY }, gpu.description);
  return {
    wgsl: kernel.wgsl,
    needsTeacher: kernel.needsTeacher,
    memoryWords: kernel.memoryWords,
    size: (graph) => kernel.size(ROWS, (name) => graph.scalar(name)),
  };
}

async function written(gpu: Gpu): Promise<RowKernelText> {
  const path = new URL(`./hand_written/forward_kl_${gpu.description.family}.wgsl`, import.meta.url);
  return {
    wgsl: await Deno.readTextFile(path),
    needsTeacher: true,
    memoryWords: 0,
    size: () => [ROWS, VOCABULARY],
  };
}

function trace(graph: Graph, kernel: RowKernelText): readonly Tensor[] {
  const logits = (name: string) => graph.state(name, [ROWS, VOCABULARY], "f32");
  const inputs = [
    graph.input("labels", [ROWS], "i32"),
    logits("target"),
    logits("learner"),
    graph.state("values", [ROWS], "f32"),
  ];
  return graph.add(rowKernelOp, inputs, { ...kernel, words: kernel.size(graph) });
}

/** What a kernel writes: gradient and values of rows that differ. */
async function results(gpu: Gpu, kernel: RowKernelText): Promise<[Float32Array, Float32Array]> {
  const program = new Program();
  trace(program.block("once"), kernel);
  const executable = await compile(gpu, plan(program, gpu.description));
  for (const name of program.scalars.names()) executable.setScalar(name, 1);
  const row = (factor: number) =>
    Float32Array.from({ length: ROWS * VOCABULARY }, (_, i) => 6 * Math.sin(factor * i));
  executable.write("target", row(0.37));
  executable.write("learner", row(0.73));
  executable.run("once");
  const read = await executable.read(["learner", "values"]);
  executable.destroy();
  return [read.get("learner")!.data as Float32Array, read.get("values")!.data as Float32Array];
}

/** The fastest run of each kernel; all of them once in each round. */
async function fastest(
  gpu: Gpu,
  kernels: ReadonlyMap<string, RowKernelText>,
  rounds: number,
): Promise<Map<string, Measurement>> {
  const best = new Map<string, Measurement>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, kernel] of kernels) {
      const found = await measure(gpu, (graph) => trace(graph, kernel)[0]!, { repeats: 6 });
      const known = best.get(name);
      if (!known || found.best < known.best) best.set(name, { ...found, first: known?.first ?? found.first });
    }
  }
  return best;
}

const gpu = await openForBench();
const losses = builtins.filter((p): p is Divergence | RowLoss =>
  p.kind === "divergence" || p.kind === "row-loss"
);
console.log(`${ROWS} rows of ${VOCABULARY} logits`);

const forwardKl = losses.find(({ id }) => id === "forward-kl")!;
const pairs = new Map([["compiled", compiled(gpu, forwardKl)], ["hand-written", await written(gpu)]]);
const [own, other] = [
  await results(gpu, pairs.get("compiled")!),
  await results(gpu, pairs.get("hand-written")!),
];
const apart = Math.max(
  ...own.map((numbers, k) => numbers.reduce((most, x, i) => Math.max(most, Math.abs(x - other[k]![i]!)), 0)),
);
if (!(apart < 1e-4)) throw new Error(`the two kernels differ by ${apart}: there is nothing to compare`);
const pair = await fastest(gpu, pairs, 8);
for (const [name, measured] of pair) line(`forward-kl, ${name}`, measured, "GB/s");
const ratio = pair.get("compiled")!.best / pair.get("hand-written")!.best;
console.log(`forward-kl: compiled / hand-written = ${ratio.toFixed(3)}`);

const all = await fastest(gpu, new Map(losses.map((loss) => [loss.id, compiled(gpu, loss)])), 2);
const yardstick = all.get("cross-entropy")!.best;
for (const [name, measured] of all) {
  line(`${name}  ${(measured.best / yardstick).toFixed(2)} x cross-entropy`, measured, "GB/s");
}
gpu.destroy();
