/**
 * The large products of merges on the host, in f64, and on the device, in f32: what each takes, and what f32 loses. `tsv-m`, `r-tsvm`,
 * residuals and extracted adapters consist of such products and of singular value decompositions, which go through the Gram matrix.
 *
 *   deno run -A bench/merge_linalg.ts                       288 x 768, 1024 x 1024, 2048 x 2048
 *   deno run -A bench/merge_linalg.ts --sizes 512x512       others
 *   deno run -A bench/merge_linalg.ts --repeats 5           more of each; the fastest counts
 *
 * Times of the device include carrying matrices there and back, not compiling. Matrices are noise whose columns fade by 1000, so their
 * singular values do: differences of models have such tails. Errors are relative to the largest entry of the product in f64.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { UsageError } from "../src/base/errors.ts";
import { uniformNumbers } from "../src/base/random.ts";
import { table } from "../src/cli/terminal/table.ts";
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import { timesTransposed, transposed } from "../src/linalg/product.ts";
import { largestEigen } from "../src/linalg/symmetric_eigen.ts";
import { thinSvd } from "../src/linalg/thin_svd.ts";
import { compile, type Executable } from "../src/tensor/executable.ts";
import { matmul } from "../src/tensor/ops/matmul.ts";
import { plan, Program } from "../src/tensor/plan.ts";

/** Rank of an adapter. */
const RANK = 32;

/** Noise in [-1, 1) whose columns fade to a thousandth. */
function fading(rows: number, columns: number): Float32Array {
  const matrix = uniformNumbers(0, rows * columns, [1, 2, 3], [4, 5]);
  for (let i = 0; i < matrix.length; i++) {
    matrix[i] = (2 * matrix[i]! - 1) * 1000 ** (-(i % columns) / columns);
  }
  return matrix;
}

/** a times the transpose of b on the device, for one shape. */
async function deviceProduct(gpu: Gpu, [m, k, n]: readonly [number, number, number]) {
  const program = new Program();
  const graph = program.block("product");
  const [a, b] = [graph.weight("a", [m, k], "f32"), graph.weight("b", [n, k], "f32")];
  graph.output("c", matmul("NT", a, b));
  const executable: Executable = await compile(gpu, plan(program, gpu.description));
  return {
    async run(a: Float32Array, b: Float32Array): Promise<Float32Array> {
      executable.write("a", a);
      executable.write("b", b);
      executable.run("product");
      return (await executable.read(["c"], "product")).get("c")!.data as Float32Array;
    },
    end: () => executable.destroy(),
  };
}

/** The fastest of some turns in milliseconds, and what the last one gave. */
async function fastest<T>(repeats: number, body: () => T | Promise<T>): Promise<{ ms: number; value: T }> {
  let best = Infinity;
  let value!: T;
  for (let i = 0; i < repeats; i++) {
    const begun = performance.now();
    value = await body();
    best = Math.min(best, performance.now() - begun);
  }
  return { ms: best, value };
}

/** The largest difference, relative to the largest entry. */
function errorOf(found: ArrayLike<number>, exact: Float64Array): number {
  let [difference, largest] = [0, 0];
  for (let i = 0; i < exact.length; i++) {
    difference = Math.max(difference, Math.abs(found[i]! - exact[i]!));
    largest = Math.max(largest, Math.abs(exact[i]!));
  }
  return difference / largest;
}

/** Squares of a that its projection on the rows of v leaves out. */
function leftOut(a: Float64Array, v: Float64Array, m: number, k: number): number {
  const rank = v.length / k;
  const projected = timesTransposed(a, v, [m, k, rank]);
  const squares = (x: Float64Array) => x.reduce((sum, entry) => sum + entry * entry, 0);
  return squares(a) - squares(projected);
}

interface Row {
  readonly what: string;
  readonly host: number;
  readonly device?: number;
  readonly note: string;
}

/** What is measured at one size; rows are the shorter side. */
async function measure(gpu: Gpu, m: number, k: number, repeats: number): Promise<Row[]> {
  const matrix = fading(m, k);
  const exact = Float64Array.from(matrix);
  const size = `${m} x ${k}`;
  const product = await deviceProduct(gpu, [m, k, m]);
  const device = await fastest(repeats + 1, () => product.run(matrix, matrix));
  const host = await fastest(repeats, () => timesTransposed(exact, exact, [m, k, m]));
  const gram = await fastest(repeats, () => timesTransposed(exact, exact, [m, k, m], true));
  const eigen = await fastest(repeats, () => largestEigen(gram.value.slice(), m, () => RANK));
  const whole = await fastest(repeats, () => thinSvd(matrix, m, k, RANK));
  product.end();

  const exactValues = eigen.value.values;
  const found = largestEigen(Float64Array.from(device.value), m, () => RANK);
  // Where f32 has hidden them, what should be a square is less than 0.
  const wrong = (i: number) => Math.abs(Math.sqrt(Math.max(0, found.values[i]! / exactValues[i]!)) - 1);
  const kept = [...exactValues.keys()].findIndex((i) => wrong(i) > 0.01);
  const inLong = transposed(exact, m, k);
  const loss = (vectors: Float64Array) => leftOut(inLong, vectors, k, m);
  const more = loss(found.vectors) / loss(eigen.value.vectors) - 1;
  return [
    {
      what: `${size} times its transpose`,
      host: host.ms,
      device: device.ms,
      note: `error ${errorOf(device.value, host.value).toExponential(1)}`,
    },
    {
      what: "  the same, half of it",
      host: gram.ms,
      device: device.ms,
      note: kept < 0
        ? "all singular values right to 1 %"
        : `singular values right to 1 % down to ${
          Math.sqrt(exactValues[kept]! / exactValues[0]!).toExponential(1)
        } of the largest`,
    },
    {
      what: `  singular values, ${RANK} vectors`,
      host: whole.ms,
      device: whole.ms - gram.ms + device.ms,
      note: `rank ${RANK} leaves out ${more.toExponential(1)} more of the squares; the product is ${
        (100 * gram.ms / (gram.ms + eigen.ms)).toFixed(0)
      } % of it`,
    },
    ...(m > 1024 ? [] : [{
      what: "  singular values, all vectors",
      host: (await fastest(1, () => thinSvd(matrix, m, k, m))).ms,
      note: "",
    }]),
  ];
}

if (import.meta.main) {
  const { sizes = "288x768,1024x1024,2048x2048", repeats = "3" } = parseArgs(Deno.args, {
    string: ["sizes", "repeats"],
  }) as Record<string, string | undefined>;
  const gpu = await openGpu();
  const adapter = `${gpu.description.name}, ${gpu.description.family} kernels`;
  const lines: string[][] = [];
  for (const size of sizes.split(",")) {
    const [m, k] = size.split("x").map(Number);
    if (!(m! > RANK && k! >= m!)) {
      throw new UsageError(`--sizes: ${size} is not ROWSxCOLUMNS, ${RANK} < ROWS <= COLUMNS`);
    }
    for (const { what, host, device, note } of await measure(gpu, m!, k!, Number(repeats))) {
      lines.push([
        what,
        `${host.toFixed(0)} ms`,
        ...(device === undefined ? ["", ""] : [`${device.toFixed(0)} ms`, `${(host / device).toFixed(1)} x`]),
        note,
      ]);
    }
  }
  gpu.destroy();
  console.log(adapter);
  for (const line of table(["product", "host", "device", "faster", "of the device's f32"], lines)) {
    console.log(line);
  }
}
