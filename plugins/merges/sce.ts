/**
 * SCE: where parents vary most is selected, coefficients follow the size of what is left, and minority signs are erased.
 *
 * Wan et al., "FuseChat", arXiv 2408.07990, its method "select, calculate, erase": of D_i = W_i - W_0 the int(selectTopk n) entries of
 * largest variance over the parents are kept, n being those whose variance is not 0; w_i = mean(D_i^2) / sum_j mean(D_j^2) of what is
 * kept; the sign of each entry is that of sum_i D_i, + where it is 0; W = W_0 + sum over agreeing w_i D_i / sum over agreeing w_i.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { keepLargest } from "./magnitudes.ts";
import { addElected } from "./sign_election.ts";
import { dot } from "./vectors.ts";

/** Below it mergekit takes all parents for equal. */
const LEAST_SQUARES = 1e-6;

const sce: Merge = defineMerge({
  id: "sce",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Selects where parents vary most, weighs them by size, and erases minority signs",
  source: "arXiv 2408.07990",
  options: z.strictObject({
    selectTopk: z.number().min(0).max(1).default(1).describe(
      "Share of the entries that is kept, of largest variance",
    ),
    faithful: z.boolean().default(false)
      .describe("mergekit's slip: equal weights where the mean squares add up to less than 1e-6"),
  }),
  parentOptions: z.strictObject({}),
  base: "required",
  parents: { least: 2 },
  unit: "tensor",
  like: { mergekit: { options: { faithful: true } } },
  identities: { symmetric: true },
  merge({ base, parents, options: { selectTopk, faithful } }) {
    const changes = differences(base!, parents);
    if (selectTopk < 1) select(changes, selectTopk);
    const squares = changes.map((change) => dot(change, change) / change.length);
    const sum = squares.reduce((total, square) => total + square, 0);
    const isEqual = faithful ? sum < LEAST_SQUARES : !(sum > 0);
    const weights = squares.map((square) => (isEqual ? 1 / changes.length : square / sum));
    return addElected(base!, changes, { weights, votes: changes.map(() => 1), normalize: true, lambda: 1 });
  },
});

/** Sets changes to 0 but where their variance over the parents is among the largest. */
function select(changes: readonly Float32Array[], share: number): void {
  const count = changes.length;
  const variances = new Float32Array(changes[0]!.length);
  let varying = 0;
  for (let i = 0; i < variances.length; i++) {
    let [sum, squares] = [0, 0];
    for (let k = 0; k < count; k++) sum += changes[k]![i]!;
    const mean = sum / count;
    for (let k = 0; k < count; k++) squares += (changes[k]![i]! - mean) ** 2;
    variances[i] = squares / count;
    if (variances[i] !== 0) varying++;
  }
  keepLargest(variances, Math.floor(share * varying));
  for (const change of changes) {
    for (let i = 0; i < change.length; i++) if (variances[i] === 0) change[i] = 0;
  }
}

export default sce;
