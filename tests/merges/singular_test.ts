/** Merges of singular vectors: what they equal, and what makes the two differ. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { Matrix, SingularValueDecomposition } from "ml-matrix";
import { randomNumbers } from "../../src/registry/check/rows.ts";
import { farthest, mergeOne, model } from "./host.ts";

const SHAPE = [12, 9] as const;
const COUNT = SHAPE[0] * SHAPE[1];
const zero = model(SHAPE, new Float32Array(COUNT));

function drawn(seed: number, scale = 1): number[] {
  const next = randomNumbers(seed);
  return Array.from({ length: COUNT }, () => Math.fround(scale * (next() + next() + next() - 1.5)));
}

const merged = (id: string, changes: readonly number[][], options = {}) =>
  mergeOne(id, { base: zero, parents: changes.map((values) => ({ model: model(SHAPE, values) })), options });

Deno.test("tsv-m and r-tsvm of one task are task arithmetic", async () => {
  const change = drawn(1);
  for (const id of ["tsv-m", "r-tsvm"]) {
    const difference = farthest(await merged(id, [change], { lambda: 0.7 }), change.map((x) => 0.7 * x));
    assert(difference < 1e-6, `${id}: ${difference}`);
  }
});

/** The paper's merge with these numbers of singular values and these factors of them, in f64. */
function reference(
  changes: readonly number[][],
  ranks: readonly number[],
  weights: readonly number[],
): number[] {
  const parts = changes.map((change) => {
    const rows = Array.from({ length: SHAPE[0] }, (_, i) => change.slice(i * SHAPE[1], (i + 1) * SHAPE[1]));
    return new SingularValueDecomposition(new Matrix(rows), { autoTranspose: true });
  });
  const stack = (of: (p: typeof parts[number]) => Matrix) =>
    new Matrix(parts.flatMap((p, i) => of(p).transpose().to2DArray().slice(0, ranks[i]))).transpose();
  /** X (X^T X)^(-1/2) by Newton's iteration, not by singular values. */
  const polar = (x: Matrix) => {
    // It converges where all singular values are below sqrt(3); those of T bases side by side are at most sqrt(T).
    let y = x.clone().mul(1 / changes.length);
    for (let k = 0; k < 60; k++) {
      y = y.mmul(Matrix.eye(y.columns).mul(3).sub(y.transpose().mmul(y)).mul(0.5));
    }
    return y;
  };
  const values = parts.flatMap((p, i) => p.diagonal.slice(0, ranks[i]).map((s) => weights[i]! * s));
  const [u, v] = [polar(stack((p) => p.leftSingularVectors)), polar(stack((p) => p.rightSingularVectors))];
  return u.mmul(Matrix.diag(values)).mmul(v.transpose()).to1DArray();
}

Deno.test("tsv-m is the paper's: leading singular vectors, each side replaced by its nearest orthonormal columns", async () => {
  const changes = [drawn(1), drawn(2), drawn(3, 0.5)];
  assert(farthest(await merged("tsv-m", changes), reference(changes, [3, 3, 3], [1, 1, 1])) < 1e-5);
});

Deno.test("r-tsvm weighs by the sum of outliers and gives the sparse fewer ranks", async () => {
  // 99 entries of 1, one of 7.5 and 8 of 10: the mean is 1.73, the deviation 2.42, so those of 10 are outliers, 7.5 is none.
  const signs = drawn(7).map(Math.sign);
  const spiked = signs.map((x, i) => (i % 13 === 0 && i < 104 ? 10 * x : i === 1 ? 7.5 * x : x));
  // 6 of 10 here, which are outliers too.
  const fewer = signs.toReversed().map((x, i) => (i % 17 === 0 && i < 102 ? 10 * x : i === 1 ? 7.5 * x : x));
  const share = (a: number, b: number) => [2 * a / (a + b), 2 * b / (a + b)];
  const weights = share(80, 60);
  assert(
    farthest(await merged("r-tsvm", [spiked, fewer]), reference([spiked, fewer], [4, 4], weights)) < 1e-4,
  );
  // No outliers; 45 of 108 entries are nothing beside the largest, others are small, so of 4 + 4 ranks it gets round(4 * 0.74) = 3, the other 5.
  const sparse = signs.map((x, i) => (i < 45 ? x / 1000 : i < 65 ? x / 20 : x));
  const dense = signs.toReversed();
  assert(
    farthest(await merged("r-tsvm", [sparse, dense]), reference([sparse, dense], [3, 5], [1, 1])) < 1e-5,
  );
});

Deno.test("r-tsvm equals tsv-m where outliers and sparsities are equal, and only there", async () => {
  // The same numbers in other places and with other signs: equal statistics, other matrices.
  const change = drawn(4);
  const turned = change.toReversed().map((x, i) => (i % 3 ? -x : x));
  const equal = [change, turned];
  assert(farthest(await merged("r-tsvm", equal), await merged("tsv-m", equal)) < 1e-6);
  // One with outliers of its own.
  const spiked = change.map((x, i) => (i % 37 === 0 ? 20 * x : x));
  const unequal = [spiked, turned];
  assert(farthest(await merged("r-tsvm", unequal), await merged("tsv-m", unequal)) > 1e-2);
  // One half of which is nothing, and no outliers in either.
  const flat = Array.from({ length: COUNT }, (_, i) => (i % 2 ? -1 : 1) * (1 + (i * 7) % 5 / 10));
  const sparse = flat.map((x, i) => (i % 2 === 0 ? 0 : x)).toReversed();
  assert(farthest(await merged("r-tsvm", [flat, sparse]), await merged("tsv-m", [flat, sparse])) > 1e-3);
});

Deno.test("a parent that changed nothing, or little more than a rank, does not turn the others", async () => {
  const change = drawn(5);
  const nothing = new Array<number>(COUNT).fill(0);
  const alone = await merged("tsv-m", [change, nothing]);
  // Half of the singular values of the one that changed anything.
  const rows = Array.from({ length: SHAPE[0] }, (_, i) => change.slice(i * SHAPE[1], (i + 1) * SHAPE[1]));
  const svd = new SingularValueDecomposition(new Matrix(rows), { autoTranspose: true });
  const kept = svd.diagonal.map((s, k) => (k < 4 ? s : 0));
  const wanted = svd.leftSingularVectors.mmul(Matrix.diag(kept)).mmul(svd.rightSingularVectors.transpose());
  assert(farthest(alone, wanted.to1DArray()) < 1e-5);
  // Equal parents: their vectors are the same, not twice as many.
  assert(farthest(await merged("tsv-m", [change, change]), alone) < 1e-5);
});

Deno.test("what is no matrix, or too small for the number of tasks, gets the mean change", async () => {
  for (const id of ["tsv-m", "r-tsvm"]) {
    for (const shape of [[4], [2, 2, 1], [2, 2]]) {
      const parents = [[1, 2, 3, 4], [3, 2, 1, 0], [2, 2, 2, 5]].map((values) => ({
        model: model(shape, values),
      }));
      assertEquals(await mergeOne(id, { base: model(shape, [0, 0, 0, 0]), parents }), [2, 2, 2, 3]);
    }
  }
});
