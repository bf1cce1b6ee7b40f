/**
 * What a device gains by choosing its kernels, and how much of that a few trials find: `deno run -A bench/tuner.ts [--tiled] [--only TEXT]`.
 *
 * Every candidate of every choice that costs less on paper than four times the cheapest is timed, in the order that the model of costs gives, each in turn with the best so far; what a budget
 * of N trials would have found follows from the same times.
 *
 * @module
 */
import { gradients } from "../src/tensor/differentiate.ts";
import type { DType, Graph, Tensor } from "../src/tensor/graph.ts";
import { attention } from "../src/tensor/ops/attention.ts";
import { matmul, type Orientation } from "../src/tensor/ops/matmul.ts";
import { plan, Program } from "../src/tensor/plan.ts";
import type { ChosenKernel } from "../src/tensor/variants.ts";
import { tuneKernels } from "../src/tune/tune.ts";
import type { TunedChoice } from "../src/tune/tuned.ts";
import { openForBench } from "./measure.ts";

type Case = [what: string, orientation: Orientation, m: number, n: number, k: number, weight?: DType];

const PRODUCTS: readonly Case[] = [
  ["stories260K q", "NT", 1024, 64, 64],
  ["stories260K gate", "NT", 1024, 172, 64],
  ["stories260K down", "NT", 1024, 64, 172],
  ["stories260K gate backward", "NN", 1024, 64, 172],
  ["stories260K head", "NT", 1024, 512, 64],
  ["stories260K dA of gate, rank 8", "TN", 8, 64, 1024],
  ["stories260K x A^T, rank 8", "NT", 1024, 8, 64],
  ["stories15M q", "NT", 256, 288, 288],
  ["stories15M gate", "NT", 256, 768, 288],
  ["stories15M gate, bf16", "NT", 256, 768, 288, "bf16"],
  ["stories15M down", "NT", 256, 288, 768],
  ["stories15M gate backward", "NN", 256, 288, 768],
  ["stories15M x A^T, rank 8", "NT", 256, 8, 288],
  ["stories15M h B^T, rank 8", "NT", 256, 288, 8],
  ["stories15M dB of gate, rank 8", "TN", 768, 8, 256],
  ["stories15M dA of down, rank 16", "TN", 16, 768, 256],
  ["stories15M dh = dy B, rank 8", "NN", 256, 8, 768],
  ["stories15M head, 64 rows", "NT", 64, 32000, 288],
  ["stories15M head backward, 64 rows", "NN", 64, 288, 32000],
  ["square", "NT", 512, 512, 512],
  ["square, backward", "NN", 512, 512, 512],
  ["square, of a weight", "TN", 512, 512, 512],
  ["deep", "NT", 64, 256, 4864, "bf16"],
  ["one row", "NT", 1, 4864, 896, "bf16"],
];

const gpu = await openForBench();
const only = Deno.args.includes("--only") ? Deno.args[Deno.args.indexOf("--only") + 1]! : "";

/** Attention over one sample, forward and backward: tokens, heads, heads of keys and values, width. */
const ATTENTIONS: readonly [
  what: string,
  tokens: number,
  heads: number,
  keyValueHeads: number,
  headDim: number,
][] = [
  ["stories260K", 256, 8, 4, 8],
  ["stories15M", 256, 6, 6, 48],
  ["stories15M, 1024 tokens", 1024, 6, 6, 48],
  ["0.5B", 512, 14, 2, 64],
];

/** More than there are; those that can hardly win are left out, as they are elsewhere. */
const MOST = 1000;

/** Choices of the cases, under the names of their cases. */
const choices = new Map<string, ChosenKernel>();
function addChoices(what: string, build: (graph: Graph) => Tensor | readonly (Tensor | undefined)[]): void {
  const program = new Program();
  const graph = program.block("bench");
  [build(graph)].flat().forEach((t, i) => t && graph.output(`y${i}`, t as Tensor));
  for (const choice of plan(program, gpu.description).kernels.values()) {
    choices.set(`${what}: ${choice.key}`, choice);
  }
}
for (const [what, orientation, m, n, k, dtype = "f32"] of PRODUCTS) {
  addChoices(what, (g) => {
    const x = g.weight("x", orientation === "TN" ? [k, m] : [m, k], "f32");
    return matmul(orientation, x, g.weight("w", orientation === "NT" ? [n, k] : [k, n], dtype));
  });
}
for (const [what, tokens, heads, keyValueHeads, headDim] of ATTENTIONS) {
  addChoices(what, (g) => {
    const q = g.weight("q", [tokens, heads * headDim], "f32");
    const [k, v] = ["k", "v"].map((name) => g.weight(name, [tokens, keyValueHeads * headDim], "f32"));
    const ranges = { start: g.input("start", [tokens], "i32"), end: g.input("end", [tokens], "i32") };
    const attributes = { heads, keyValueHeads, headDim, scale: headDim ** -0.5 };
    const y = attention(q, k!, v!, ranges, attributes);
    return [y, ...gradients(g, [[y, g.weight("dy", y.shape, "f32")]], [q, k!, v!])];
  });
}

const BUDGETS = [1, 2, 4, 8];
const head = [
  "kernels",
  "first",
  "best",
  "best over first",
  ...BUDGETS.map((n) => `share of the best in ${n}`),
];
console.log(`| | ${head.join(" | ")} |\n|${" --- |".repeat(head.length + 1)}`);
const shares: number[][] = BUDGETS.map(() => []);
const gains: number[] = [];
for (const [what, choice] of choices) {
  if (!what.includes(only) || choice.candidates.length < 2) continue;
  const { choices: [found], left } = await tuneKernels(gpu, [choice], { trials: MOST });
  if (!found) {
    console.log(`| ${what} | ${left[choice.key]} |`);
    continue;
  }
  const best = bestOf(found, Infinity);
  gains.push(1 / best);
  const row = BUDGETS.map((n, i) => {
    const share = best / bestOf(found, n);
    shares[i]!.push(share);
    return percent(share);
  });
  const milliseconds = (found.firstSeconds * 1000).toPrecision(3);
  console.log(
    `| ${what} | ${found.candidates} | ${found.first}, ${milliseconds} ms | ${found.kernel} | ${
      (1 / best).toFixed(2)
    } | ${row.join(" | ")} |`,
  );
  if (Deno.args.includes("--all")) {
    for (const t of found.tried) console.log(`  ${t.kernel}: ${t.refused ?? (1 / t.ratio!).toFixed(2)}`);
  }
}
console.log(
  `| least | | | | ${Math.min(...gains).toFixed(2)} | ${
    shares.map((s) => percent(Math.min(...s))).join(" | ")
  } |`,
);
const mean = (values: readonly number[]) =>
  Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length);
console.log(
  `| mean | | | | ${mean(gains).toFixed(2)} | ${shares.map((s) => percent(mean(s))).join(" | ")} |`,
);
gpu.destroy();

/** The least ratio to the kernel that stands first, among it and the first so many that were tried. */
function bestOf({ tried }: TunedChoice, trials: number): number {
  return Math.min(1, ...tried.slice(0, trials).flatMap(({ ratio }) => ratio ?? []));
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}
