/**
 * Matrix products at the sizes of a training step: `deno run -A bench/matmul_bench.ts [--tiled]`.
 *
 * `--variants` times every kernel that the device can make a product with and not only the one it would take, each with its place in the order
 * of the cost model and bytes moved a second: `deno run -A bench/matmul_bench.ts --variants [NT 2048x4864x896+8 bf16 ...]`, with the sizes
 * of the cases below where none are given. A second depth after `+` is that of a second product.
 *
 * @module
 */
import type { DeviceDescription } from "../src/gpu/description.ts";
import type { Gpu } from "../src/gpu/device.ts";
import type { DType } from "../src/tensor/graph.ts";
import { matmul, matmulOp, type Orientation } from "../src/tensor/ops/matmul.ts";
import type { MatmulShape } from "../src/tensor/ops/matmul/shapes.ts";
import { matmulVariants } from "../src/tensor/ops/matmul/variants.ts";
import { STORAGES } from "../src/tensor/weight_storage.ts";
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

/** Shapes on the command line: `NT 2048x4864x896+8 bf16`, the storage of weights last or left out. */
function shapesGiven(args: readonly string[]): MatmulShape[] {
  const shapes: MatmulShape[] = [];
  const text = args.filter((a) => !a.startsWith("--")).join(" ");
  for (const [, orientation, m, n, k, k2, weight] of text.matchAll(SHAPE)) {
    shapes.push({
      orientation: orientation as Orientation,
      ...{ m: Number(m), n: Number(n), k: Number(k), k2: Number(k2 ?? 0) },
      weight: weight && weight in STORAGES ? weight as DType : "f32",
    });
  }
  return shapes;
}

const SHAPE = /\b(NT|NN|TN) (\d+)x(\d+)x(\d+)(?:\+(\d+))?(?: (?!NT|NN|TN)([\w-]+))?/g;

/** One product of that shape, or two. */
function timed(gpu: Gpu, { orientation, m, n, k, k2, weight }: MatmulShape, device: DeviceDescription) {
  return measure(gpu, (g) => {
    const tensors = (depth: number, name: string, dtype: DType) => [
      g.weight(`x${name}`, orientation === "TN" ? [depth, m] : [m, depth], "f32"),
      g.weight(`w${name}`, orientation === "NT" ? [n, depth] : [depth, n], dtype),
    ];
    const inputs = [...tensors(k, "", weight), ...k2 > 0 ? tensors(k2, "2", "f32") : []];
    return g.add(matmulOp, inputs, { orientation, factors: k2 > 0 ? [1, 1] : [1], addend: false })[0]!;
  }, { device, repeats: m * n * k > 1e9 ? 3 : 15 });
}

/** Times every candidate of a shape. */
async function allVariants(gpu: Gpu, shape: MatmulShape): Promise<void> {
  const { orientation, m, n, k, k2, weight } = shape;
  console.log(`\n${orientation} ${m} x ${n} x ${k}${k2 > 0 ? ` + ${k2}` : ""}, ${weight}`);
  const device = gpu.description;
  const { candidates, cost, name, shapeClass, traffic } = matmulVariants;
  const variants = candidates(shape, device);
  const byCost = variants.toSorted((a, b) => cost(shape, a, device) - cost(shape, b, device));
  let first: number | undefined;
  for (const variant of variants) {
    const kernels = { [`${matmulVariants.kind} ${shapeClass(shape)}`]: name(variant) };
    const result = await timed(gpu, shape, { ...device, kernels });
    first ??= result.best;
    console.log(
      `  ${name(variant).padEnd(52)} ${result.best.toFixed(3).padStart(9)} ms` +
        ` ${(result.flops / result.best / 1e6).toFixed(1).padStart(9)} GFLOP/s` +
        ` ${(traffic(shape, variant) / result.best / 1e6).toFixed(1).padStart(8)} GB/s` +
        ` ${(first / result.best).toFixed(2).padStart(6)} x the first` +
        `  ${`${byCost.indexOf(variant) + 1}.`.padStart(4)} by cost`,
    );
  }
}

const gpu = await openForBench();
if (Deno.args.includes("--variants")) {
  const given = shapesGiven(Deno.args);
  const shapes = given.length > 0
    ? given
    : CASES.map(([, orientation, m, n, k, weight = "f32"]) => ({ orientation, m, n, k, k2: 0, weight }));
  for (const shape of shapes) await allVariants(gpu, shape);
} else {
  for (const [what, orientation, m, n, k, dtype = "f32"] of CASES) {
    const result = await measure(gpu, (g) => {
      const x = g.weight("x", orientation === "TN" ? [k, m] : [m, k], "f32");
      const w = g.weight("w", orientation === "NT" ? [n, k] : [k, n], dtype);
      return matmul(orientation, x, w);
    }, { repeats: m * n * k > 1e9 ? 3 : 15 });
    line(`${what} (${m} x ${n} x ${k})`, result, "GFLOP/s");
  }
}
gpu.destroy();
