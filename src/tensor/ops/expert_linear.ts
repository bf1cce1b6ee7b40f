/**
 * Products of rows with weights of which each tile of rows has its own: the experts of a mixture, one after another in one weight.
 *
 * @module
 */
import tileSource from "../../../kernels/include/expert_tile.wgsl" with { type: "text" };
import weightsSource from "../../../kernels/include/expert_weights.wgsl" with { type: "text" };
import subgroup8 from "../../../kernels/matmul_subgroup8.wgsl" with { type: "text" };
import tiled from "../../../kernels/matmul_tiled.wgsl" with { type: "text" };
import { expandTemplate, type TemplateIncludes } from "../../gpu/template.ts";
import { nothing, type Tensor } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op, refuse } from "../op.ts";
import { isWeight, weightIncludes } from "../weight_storage.ts";
import { windows } from "../windows.ts";

/** Rows that have one expert in common; stands in the kernels too. */
export const EXPERT_TILE = 32;

/** Attributes of {@linkcode expertLinearOp}. */
interface ExpertLinearAttributes {
  /** NT: y = x W^T, forward; NN: dx = dy W, back to the input. */
  readonly orientation: "NT" | "NN";
  readonly experts: number;
  /** About how many rows are used, for the size of tiles. */
  readonly pairs: number;
}

/** Inputs: x [S, in], the weights [experts * out, in], the tiles i32 [S / 32, 2]. The weights are frozen. */
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
    const { n, k } = sizes(inputs, attributes);
    ensure(x.dim(1) === k, "expertLinear", inputs, `inner sizes ${x.dim(1)} and ${k} differ`);
    return [{ shape: [x.dim(0), n], dtype: "f32" }];
  },
  gradient({ inputs, attributes, outputGradients, needed }) {
    if (needed[1]) refuse("expertLinear", inputs, "experts cannot be trained");
    const orientation = attributes.orientation === "NT" ? "NN" : "NT";
    const [, weight, tiles] = inputs as [Tensor, Tensor, Tensor];
    const dy = outputGradients[0]!;
    return [dy.graph.add(expertLinearOp, [dy, weight, tiles], { ...attributes, orientation })[0]];
  },
  lower,
};

/** Sizes of one expert's product. */
function sizes([, weight]: readonly Tensor[], { orientation, experts }: ExpertLinearAttributes) {
  const [out, width] = [weight!.dim(0) / experts, weight!.dim(1)];
  return orientation === "NT" ? { n: out, k: width } : { n: width, k: out };
}

/** Software devices sum so deep a product at a time, for speed and precision; see the one in `matmul.ts`. */
const SHORT_DEPTH = 1024;

function lower(context: LoweringContext<ExpertLinearAttributes>): void {
  const { inputs, outputs, attributes, device, dispatch } = context;
  const { orientation, experts, pairs } = attributes;
  const [x, weight, tiles] = inputs as [Tensor, Tensor, Tensor];
  const { n, k } = sizes(inputs, attributes);
  const rows = x.dim(0);
  const fast = device.family === "subgroup8" && k % 4 === 0 && n % 4 === 0;
  const each = pairs / experts;
  const [tileRows, columns] = !fast ? [32, 4] : [each > 8 ? 16 : 8, n > 16 ? 4 : 1];
  const tileColumns = fast ? 8 * columns : 32;
  const depth = fast && k > 2 * SHORT_DEPTH ? SHORT_DEPTH : k;
  const constants = { ORIENTATION: orientation, TERMS: 1, WEIGHT: weight.dtype, EXPERTS: true };
  const wgsl = fast
    ? expandTemplate(
      "matmul_subgroup8",
      subgroup8,
      { ...constants, ROWS: tileRows, COLUMNS: columns },
      includes(weight),
    )
    : expandTemplate("matmul_tiled", tiled, { ...constants, VALUES: 1 }, includes(weight));
  const [tilesM, tilesN] = [Math.ceil(rows / tileRows), Math.ceil(n / tileColumns)];
  const launched = tilesM * tilesN;
  for (const { first, count, binding } of windows(weight, device, { unitElements: n * k })) {
    for (let from = 0; from < k; from += depth) {
      dispatch({
        kernel: `expertLinear ${orientation} ${weight.dtype}${fast ? ` ${tileRows}x${tileColumns}` : ""}`,
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

/** The kernels' weight is one of many. */
function includes(weight: Tensor): TemplateIncludes {
  const { weights, ...others } = weightIncludes(weight);
  return {
    ...others,
    stored_weights: weights!.replaceAll("fn weight(", "fn stored_weight("),
    weights: weightsSource,
    expert_tile: tileSource,
  };
}

/**
 * y[s, :] = W_e x[s, :], with e the expert of s's tile. Rows that no token has, and tiles of no expert, are left as they are.
 *
 * @param x f32 [S, in]
 * @param weight [experts * out, in] in any storage of weights; frozen
 * @param tiles i32 [S / 32, 2]: the expert of each 32 rows, and how many of them, from the first on, are used
 * @returns f32 [S, out]
 * @throws {ShapeError} if shapes or types are others
 */
export function expertLinear(
  x: Tensor,
  weight: Tensor,
  tiles: Tensor,
  sizes: { readonly experts: number; readonly pairs: number },
): Tensor {
  return x.graph.add(expertLinearOp, [x, weight, tiles], { orientation: "NT", ...sizes })[0]!;
}
