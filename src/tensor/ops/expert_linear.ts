/**
 * Products of rows with weights of which each tile of rows has its own: the experts of a mixture, one after another in one weight. Where
 * such a weight is trained, as an adapter of experts is, its gradient is a product for each expert over the rows that are its own.
 *
 * @module
 */
import { type Graph, nothing, type Tensor, type TrialInputs, type Variants } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op, refuse } from "../op.ts";
import { isWeight } from "../weight_storage.ts";
import { windows } from "../windows.ts";
import { productText } from "./matmul/kernels.ts";
import { EXPERT_TILE, type ExpertShape, expertVariants } from "./matmul/experts.ts";
import { type MatmulVariant, type TiledVariant, tileOf } from "./matmul/shapes.ts";

export { EXPERT_TILE };

/** Tiles of the rows that have an expert in common. */
const TILED: TiledVariant = {
  ...{ family: "tiled", rows: EXPERT_TILE, columns: 32, rowsEach: 4, columnsEach: 4 },
  ...{ depth: 16, panels: 2, lanes: 0, parts: 1 },
};

/** Attributes of {@linkcode expertLinearOp}. */
interface ExpertLinearAttributes {
  /** NT: y = x W^T, forward; NN: dx = dy W, back to the input. */
  readonly orientation: "NT" | "NN";
  readonly experts: number;
  /** About how many rows are used, for the size of tiles. */
  readonly pairs: number;
}

/** Inputs: x [S, in], the weights [experts * out, in], the tiles i32 [S / 32, 2], and, where weights are trained, the ranges i32 [experts, 2]. */
const expertLinearOp: Op<ExpertLinearAttributes> = {
  name: "expertLinear",
  infer(inputs, attributes) {
    const [x, weight, tiles] = inputs as [Tensor, Tensor, Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "expertLinear", inputs, "x must be f32 [S, in]");
    ensure(
      weight.shape.length === 2 && isWeight(weight) && weight.dim(0) % attributes.experts === 0,
      "expertLinear",
      inputs,
      `the second operand must be a weight [${attributes.experts} * out, in]`,
    );
    ensure(
      tiles.dtype === "i32" && String(tiles.shape) === String([x.dim(0) / EXPERT_TILE, 2]),
      "expertLinear",
      inputs,
      `tiles must be i32 [S / ${EXPERT_TILE}, 2]`,
    );
    ensureRanges("expertLinear", inputs, inputs[3], attributes.experts);
    const { n, k } = sizes(inputs, attributes);
    ensure(x.dim(1) === k, "expertLinear", inputs, `inner sizes ${x.dim(1)} and ${k} differ`);
    return [{ shape: [x.dim(0), n], dtype: "f32" }];
  },
  gradient({ inputs, attributes, outputGradients, needed }) {
    const { orientation, experts, pairs } = attributes;
    const [x, weight, tiles, ranges] = inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
    const dy = outputGradients[0]!;
    if (needed[1] && !ranges) refuse("expertLinear", inputs, "weights are trained where ranges are given");
    const turned = { ...attributes, orientation: orientation === "NT" ? "NN" : "NT" } as const;
    const [outer, inner] = orientation === "NT" ? [dy, x] : [x, dy];
    return [
      needed[0] ? dy.graph.add(expertLinearOp, [dy, weight, tiles], turned)[0] : undefined,
      needed[1] ? dy.graph.add(expertGradientOp, [outer, inner, ranges!], { experts, pairs })[0] : undefined,
    ];
  },
  lower,
};

/** Inputs: two arrays of rows [S, out] and [S, in], the ranges i32 [experts, 2]. Output: [experts * out, in]. */
const expertGradientOp: Op<Pick<ExpertLinearAttributes, "experts" | "pairs">> = {
  name: "expertGradient",
  infer(inputs, { experts }) {
    const [outer, inner, ranges] = inputs as [Tensor, Tensor, Tensor];
    ensure(
      [outer, inner].every((t) => t.shape.length === 2 && t.dtype === "f32") && outer.dim(0) === inner.dim(0),
      "expertGradient",
      inputs,
      "both must be f32, with as many rows",
    );
    ensureRanges("expertGradient", inputs, ranges, experts);
    return [{ shape: [experts * outer.dim(1), inner.dim(1)], dtype: "f32" }];
  },
  lower({ inputs, outputs, attributes: { experts, pairs }, device, dispatch }) {
    const [outer, inner, ranges] = inputs as [Tensor, Tensor, Tensor];
    const [m, n] = [outer.dim(1), inner.dim(1)];
    const variant: MatmulVariant = device.family === "subgroup8" && m % 4 === 0 && n % 4 === 0
      ? {
        family: "subgroup8",
        rows: m > 16 ? 32 : m > 8 ? 16 : 8,
        columns: n > 16 ? 4 : 1,
        depth: Infinity,
      }
      : TILED;
    const [tileRows, tileColumns] = tileOf(variant, m);
    const [tilesM, tilesN] = [Math.ceil(m / tileRows), Math.ceil(n / tileColumns)];
    const launched = experts * tilesM * tilesN;
    dispatch({
      kernel: `expertGradient ${tileRows}x${tileColumns}`,
      wgsl: productText(variant, {
        ...{ orientation: "TN", m, n, k: 0, k2: 0, weight: inner, outStride: n, depth: Infinity },
        experts: true,
      }),
      tensors: [outer, inner, nothing(outer.graph), outputs[0]!, ranges],
      size: [
        // How deep a product is stands in the ranges.
        ...[m, n, 0, 0, 0, 0, n, 0, tilesM, launched, 0, 0, 0],
        { f32: 1 },
        { f32: 1 },
        0,
        ...[0, experts, 0, 0, tilesN],
      ],
      groups: grid(launched, device),
      flops: 2 * Math.min(outer.dim(0), pairs) * m * n,
    });
  },
};

function ensureRanges(
  op: string,
  inputs: readonly Tensor[],
  ranges: Tensor | undefined,
  experts: number,
): void {
  ensure(
    !ranges || ranges.dtype === "i32" && String(ranges.shape) === String([experts, 2]),
    op,
    inputs,
    `ranges must be i32 [${experts}, 2]`,
  );
}

/** Sizes of one expert's product. */
function sizes([, weight]: readonly Tensor[], { orientation, experts }: ExpertLinearAttributes) {
  const [out, width] = [weight!.dim(0) / experts, weight!.dim(1)];
  return orientation === "NT" ? { n: out, k: width } : { n: width, k: out };
}

/** The kernels of {@linkcode expertLinearOp}. */
const VARIANTS: Variants<ExpertShape, MatmulVariant> = { ...expertVariants, trial };

/** Products of rows that are spread evenly over all experts. */
function trial(graph: Graph, { orientation, experts, pairs, n, k, weight }: ExpertShape): TrialInputs {
  const each = Math.ceil(pairs / experts);
  const tilesEach = Math.ceil(each / EXPERT_TILE);
  const count = experts * tilesEach;
  const shape = orientation === "NT" ? [experts * n, k] : [experts * k, n];
  const inputs = [
    graph.input("x", [count * EXPERT_TILE, k], "f32"),
    graph.weight("w", shape, weight),
    graph.input("tiles", [count, 2], "i32"),
  ];
  graph.output("out", graph.add(expertLinearOp, inputs, { orientation, experts, pairs })[0]!);
  const tiles = Int32Array.from({ length: 2 * count }, (_, i) => {
    const tile = i >> 1;
    if (i % 2 === 0) return Math.floor(tile / tilesEach);
    return Math.min(EXPERT_TILE, each - tile % tilesEach * EXPERT_TILE);
  });
  return { tiles };
}

function lower(context: LoweringContext<ExpertLinearAttributes>): void {
  const { inputs, outputs, attributes, device, dispatch } = context;
  const { orientation, experts, pairs } = attributes;
  const [x, weight, tiles] = inputs as [Tensor, Tensor, Tensor];
  const { n, k } = sizes(inputs, attributes);
  const rows = x.dim(0);
  const variant = context.choose(VARIANTS, { orientation, experts, pairs, n, k, weight: weight.dtype });
  const depth = variant.family === "subgroup8" ? Math.min(variant.depth, k) : k;
  const [tileRows, tileColumns] = tileOf(variant, rows);
  const wgsl = productText(variant, {
    ...{ orientation, m: rows, n, k, k2: 0, weight, outStride: n, depth },
    experts: true,
  });
  const [tilesM, tilesN] = [Math.ceil(rows / tileRows), Math.ceil(n / tileColumns)];
  const launched = tilesM * tilesN;
  for (const { first, count, binding } of windows(weight, device, { unitElements: n * k })) {
    for (let from = 0; from < k; from += depth) {
      dispatch({
        kernel: `expertLinear ${orientation} ${weight.dtype} ${tileRows}x${tileColumns}`,
        wgsl,
        tensors: [x, binding, nothing(x.graph), outputs[0]!, tiles],
        size: [
          ...[rows, n, Math.min(depth, k - from), 0, k, from, n, 0, tilesM, launched, 0, from > 0 ? 2 : 0, 0],
          { f32: 1 },
          { f32: 1 },
          0,
          // The columns of x that this launch begins at are columns of w where it is read across, else rows.
          ...[first, count, n * k, orientation === "NN" ? from * n : 0, tilesN],
        ],
        groups: grid(launched, device),
        flops: 2 * Math.min(rows, pairs) * n * k,
      });
    }
  }
}

/**
 * y[s, :] = W_e x[s, :], with e the expert of s's tile. Rows that no token has, and tiles of no expert, are left as they are.
 *
 * @param x f32 [S, in]
 * @param weight [experts * out, in] in any storage of weights; f32 where it is trained
 * @param tiles i32 [S / 32, 2]: the expert of each 32 rows, and how many of them, from the first on, are used
 * @param ranges i32 [experts, 2]: the first row of each expert, a multiple of 32, and how many there are. Needed where the weight is trained
 * @returns f32 [S, out]
 * @throws {ShapeError} if shapes or types are others
 */
export function expertLinear(
  x: Tensor,
  weight: Tensor,
  tiles: Tensor,
  { ranges, ...sizes }: { readonly experts: number; readonly pairs: number; readonly ranges?: Tensor },
): Tensor {
  const inputs = [x, weight, tiles, ...(ranges ? [ranges] : [])];
  return x.graph.add(expertLinearOp, inputs, { orientation: "NT", ...sizes })[0]!;
}
