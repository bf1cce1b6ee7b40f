/**
 * A linear layer over weights in every storage: `deno run -A bench/quantised_bench.ts [--tiled] [--rounds 8]`.
 *
 * Tokens a second and bytes of the weight for one row (decoding) and 256 rows (training), forward and, for 256 rows, back to the input,
 * and the time beside that of f32. All storages are measured in turn, round after round, and the fastest round of each counts: what else
 * the machine does then comes upon all of them.
 *
 * @module
 */
import { matmul, type Orientation } from "../src/tensor/ops/matmul.ts";
import { compile, type Executable } from "../src/tensor/executable.ts";
import { plan, Program } from "../src/tensor/plan.ts";
import { byteLength, type DType } from "../src/tensor/weight_storage.ts";
import { openForBench } from "./measure.ts";

const STORAGES: readonly DType[] = [
  "f32",
  "f16",
  "bf16",
  "q8_0",
  "q4_0",
  "q4_k",
  "q6_k",
  "nf4",
  "nf4-double",
];

/** A layer as a model of half a billion parameters has it: its MLP's gate, [out, in]. */
const SHAPE = [4864, 1024] as const;

const CASES: readonly [what: string, orientation: Orientation, rows: number][] = [
  ["1 row, x W^T", "NT", 1],
  ["256 rows, x W^T", "NT", 256],
  ["256 rows, dy W", "NN", 256],
];

const at = Deno.args.indexOf("--rounds");
const rounds = at < 0 ? 8 : Number(Deno.args[at + 1]);
const gpu = await openForBench();
console.log(`weight [${SHAPE.join(", ")}], fastest of ${rounds} rounds`);
for (const [what, orientation, rows] of CASES) {
  console.log(`\n${what}`);
  const repeats = rows === 1 ? 8 : 1;
  const programs: { executable: Executable; bytes: number }[] = [];
  for (const dtype of STORAGES) programs.push(await layer(dtype, orientation, rows));
  const best = STORAGES.map(() => Infinity);
  for (let round = -1; round < rounds; round++) {
    for (const [i, { executable }] of programs.entries()) {
      for (let k = 0; k < repeats; k++) executable.run("bench");
      const kernels = await executable.profiler!.report();
      executable.profiler!.reset();
      const milliseconds = kernels.reduce((sum, kernel) => sum + kernel.milliseconds, 0) / repeats;
      if (round >= 0) best[i] = Math.min(best[i]!, milliseconds);
    }
  }
  gpu.check();
  STORAGES.forEach((dtype, i) => {
    const { bytes, executable } = programs[i]!;
    console.log(
      `  ${dtype.padEnd(11)} ${best[i]!.toFixed(3).padStart(9)} ms ${
        (1000 * rows / best[i]!).toFixed(0).padStart(9)
      } tokens/s ${(bytes / 2 ** 20).toFixed(2).padStart(7)} MiB   ${
        (best[i]! / best[0]!).toFixed(2)
      } times f32's time`,
    );
    executable.destroy();
  });
}
gpu.destroy();

async function layer(
  dtype: DType,
  orientation: Orientation,
  rows: number,
): Promise<{ executable: Executable; bytes: number }> {
  const program = new Program();
  const graph = program.block("bench");
  const [out, width] = SHAPE;
  const x = graph.weight("x", [rows, orientation === "NT" ? width : out], "f32");
  const w = graph.weight("w", SHAPE, dtype);
  graph.output("y", matmul(orientation, x, w));
  const executable = await compile(gpu, plan(program, gpu.description), { profile: true });
  const values = (count: number) =>
    Float32Array.from({ length: count }, (_, i) => (i * 7919 % 2001) / 1000 - 1);
  executable.write("x", values(x.dim(0) * x.dim(1)));
  const bytes = byteLength(w);
  // Small numbers in every storage: words whose halves and whose whole are about one.
  executable.write("w", dtype === "f32" ? values(out * width) : new Uint32Array(bytes / 4).fill(0x3c013c01));
  return { executable, bytes };
}
