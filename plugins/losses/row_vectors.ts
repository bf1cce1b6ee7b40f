/**
 * Products and lengths of the rows of matrices.
 *
 * @module
 */
import { max, sqrt, type Tensor, tensor } from "../../src/registry/contract.ts";

/** Keeps a row of zeros from being divided by its length. */
const SMALLEST_SQUARE = 1e-12;

/** sum_n a[t, n] b[t, n]: f32 [T, 1]. */
function rowProducts(a: Tensor, b: Tensor): Tensor {
  return tensor.sumColumns(tensor.pointwise([a, b], (x, y) => x!.mul(y!)));
}

/** The cosine of the rows of two matrices, f32 [T, 1]; 0 for a row of zeros. */
export function rowCosines(a: Tensor, b: Tensor): Tensor {
  return tensor.pointwise(
    [rowProducts(a, b), rowProducts(a, a), rowProducts(b, b)],
    (ab, aa, bb) => ab!.div(sqrt(max(aa!, SMALLEST_SQUARE)).mul(sqrt(max(bb!, SMALLEST_SQUARE)))),
  );
}

/** Rows divided by their lengths, so that products of two are cosines; zeros stay zeros. */
export function unitRows(x: Tensor): Tensor {
  return tensor.pointwise([x, rowProducts(x, x)], (v, square) => v!.div(sqrt(max(square!, SMALLEST_SQUARE))));
}
