/**
 * The kernels that make a matrix product, and which of them can make one of a given shape.
 *
 * @module
 */
import type { DType, Variants } from "../graph.ts";
import { sizeClass } from "../variants.ts";
import { STORAGES } from "../weight_storage.ts";

/**
 * Which operand is read across its rows.
 * NT: x[M, K] w[N, K]; NN: x[M, K] w[K, N]; TN: x[K, M] w[K, N]. The output is [M, N].
 */
export type Orientation = "NT" | "NN" | "TN";

/** What the choice of a kernel for a product depends on. */
export interface MatmulShape {
  readonly orientation: Orientation;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Depth of the second product, or 0. */
  readonly k2: number;
  /** Storage of w. */
  readonly weight: DType;
}

/** A kernel for products. */
export type MatmulVariant =
  /** Any size, from tiles in workgroup memory. */
  | { readonly family: "tiled" }
  /** One subgroup of 8 lanes a workgroup, which makes `rows` x 8 `columns` values; K in parts of `depth`. */
  | {
    readonly family: "subgroup8";
    readonly rows: 8 | 16 | 32;
    readonly columns: 1 | 4;
    readonly depth: number;
  };

/**
 * Along K, software devices lose half their speed where the panels of x and w leave the second-level cache: for [256, 32000] x
 * [32000, 288] one dispatch took 306 ms, 32 dispatches 123 ms (bench/matmul_bench.ts has this shape). They lose precision too: each
 * product is rounded to the size of the sum so far, so a deep product is made of parts that are summed on their own.
 */
const SHORT_DEPTH = 1024;

/** The greatest depth that is not cut into parts where nothing was measured, and that a second product may have. */
export const WHOLE_DEPTH = 2 * SHORT_DEPTH;

/** See {@linkcode Variants}; what is missing of it is a trial. */
export const matmulVariants: Omit<Variants<MatmulShape, MatmulVariant>, "trial"> = {
  kind: "matmul",
  shapeClass({ orientation, m, n, k, k2, weight }) {
    const [rows, columns, depth] = [m, n, k].map(sizeClass);
    return `${orientation} ${rows}x${columns}x${depth}${k2 > 0 ? `+${sizeClass(k2)}` : ""} ${weight}`;
  },
  candidates: (shape, device) => [
    ...(device.family === "subgroup8" && isAligned(shape) ? subgroup8(shape) : []),
    { family: "tiled" },
  ],
  name: (v) =>
    v.family === "tiled"
      ? "tiled 32x32"
      : `subgroup8 ${v.rows}x${8 * v.columns}${v.depth === Infinity ? "" : ` by ${v.depth}`}`,
  cost({ m, n, k, k2 }, v) {
    if (v.family === "tiled") return Math.ceil(m / 32) * Math.ceil(n / 32) * (k + k2) * 1e-6;
    const tiles = Math.ceil(m / v.rows) * Math.ceil(n / (8 * v.columns));
    // Each turn loads four values a lane and row of lanes, and spreads every value of x.
    const turn = (v.rows / 8 + v.columns) * 40e-9 + v.rows * v.columns * 5e-9;
    return tiles * ((k + k2) / 4 * turn + 300e-9) + Math.ceil(k / v.depth) * 18e-6;
  },
  traffic({ m, n, k, k2, weight }, v) {
    const [rows, columns] = v.family === "tiled" ? [32, 32] : [v.rows, 8 * v.columns];
    const [tilesM, tilesN] = [Math.ceil(m / rows), Math.ceil(n / columns)];
    const x = tilesN * m * 4 * (k + k2);
    const w = tilesM * n * (k * bytesOfValue(weight) + 4 * k2);
    // Parts of a deep product are added to what is there.
    const parts = v.family === "tiled" ? 1 : Math.max(1, Math.ceil(k / v.depth));
    return x + w + m * n * 4 * (2 * parts - 1);
  },
};

function bytesOfValue(dtype: DType): number {
  const { blockBytes, blockValues } = STORAGES[dtype];
  return blockBytes / blockValues;
}

/** Whether the kernels of subgroups can read the operands in whole vectors. */
function isAligned({ orientation, m, n, k, k2 }: MatmulShape): boolean {
  return k % 4 === 0 && k2 % 4 === 0 && (n % 4 === 0 || (orientation === "NT" && n < 32)) &&
    (orientation !== "TN" || m % 4 === 0);
}

function subgroup8({ m, n, k }: MatmulShape): MatmulVariant[] {
  const variant = (rows: 8 | 16 | 32, columns: 1 | 4, depth: number) => ({
    ...{ family: "subgroup8" as const, rows, columns },
    depth: depth >= k ? Infinity : depth,
  });
  const first = variant(
    m > 16 ? 32 : m > 8 ? 16 : 8,
    n > 16 && n % 4 === 0 ? 4 : 1,
    k > WHOLE_DEPTH ? SHORT_DEPTH : k,
  );
  // No sum is longer than what is precise enough where nothing was measured.
  const depths = [SHORT_DEPTH / 2, SHORT_DEPTH, WHOLE_DEPTH].filter((depth) => depth < k);
  if (k <= WHOLE_DEPTH) depths.push(k);
  const others = ([32, 16, 8] as const).flatMap((rows) =>
    (n % 4 === 0 ? [4, 1] as const : [1] as const).flatMap((columns) =>
      depths.map((depth) => variant(rows, columns, depth))
    )
  );
  const same = (a: typeof first) => (b: typeof first) =>
    a.rows === b.rows && a.columns === b.columns && a.depth === b.depth;
  return [first, ...others.filter((v) => !same(first)(v))];
}
