/**
 * The kernels that make a matrix product, and which of them can make one of a given shape.
 *
 * @module
 */
import type { Variants } from "../../graph.ts";
import { sizeClass } from "../../variants.ts";
import { hardwareCost, hardwareProducts, matrixName, tiledName } from "./hardware.ts";
import { type MatmulShape, type MatmulVariant, traffic } from "./shapes.ts";

/**
 * Along K, software devices lose half their speed where the panels of x and w leave the second-level cache: for [256, 32000] x
 * [32000, 288] one dispatch took 306 ms, 32 dispatches 123 ms (bench/matmul_bench.ts has this shape). They lose precision too: each
 * product is rounded to the size of the sum so far, so a deep product is made of parts that are summed on their own.
 */
export const SHORT_DEPTH = 1024;

/** The greatest depth that is not cut into parts where nothing was measured, and that a second product may have. */
export const WHOLE_DEPTH = 2 * SHORT_DEPTH;

/** See {@linkcode Variants}; what is missing of it is a trial. */
export const matmulVariants: Omit<Variants<MatmulShape, MatmulVariant>, "trial"> = {
  kind: "matmul",
  shapeClass({ orientation, m, n, k, k2, weight, compute }) {
    const [rows, columns, depth] = [m, n, k].map(sizeClass);
    return `${orientation} ${rows}x${columns}x${depth}${k2 > 0 ? `+${sizeClass(k2)}` : ""} ${weight}${
      compute ? ` in ${compute}` : ""
    }`;
  },
  candidates(shape, device) {
    const software = device.family === "subgroup8" && !shape.compute && isAligned(shape)
      ? subgroup8(shape)
      : [];
    return [...software, ...hardwareProducts(shape, device)];
  },
  name(v) {
    if (v.family === "subgroup8") {
      return `subgroup8 ${v.rows}x${8 * v.columns}${v.depth === Infinity ? "" : ` by ${v.depth}`}`;
    }
    if (v.family === "few-rows") return `few rows ${v.lanes}x${v.columns}`;
    return v.family === "subgroup-matrix" ? matrixName(v) : tiledName(v);
  },
  cost(shape, v, device) {
    const { m, n, k, k2 } = shape;
    if (device.family === "tiled") return hardwareCost(shape, v);
    // On processors: workgroup memory, barriers and one value at a time make such kernels several times slower.
    if (v.family !== "subgroup8") return hardwareCost(shape, v) + m * n * (k + k2) * 1e-9;
    const tiles = Math.ceil(m / v.rows) * Math.ceil(n / (8 * v.columns));
    // Each turn loads four values a lane and row of lanes, and spreads every value of x.
    const turn = (v.rows / 8 + v.columns) * 40e-9 + v.rows * v.columns * 5e-9;
    return tiles * ((k + k2) / 4 * turn + 300e-9) + Math.ceil(k / v.depth) * 18e-6;
  },
  traffic,
};

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
