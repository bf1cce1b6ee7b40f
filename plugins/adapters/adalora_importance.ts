/**
 * Which triplets of AdaLoRA matter (Zhang et al., arXiv 2303.10512, section 3.2, as PEFT computes it). A triplet is a row of A, its
 * value in E and a column of B.
 *
 * All of it runs on the GPU, the ranking too: a triplet stays if at least as many are less important as are to go. So no step waits
 * for numbers to be read back.
 *
 * @module
 */
import {
  abs,
  type AdaptedLayer,
  type Expression,
  select,
  type StateDefinition,
  type Tensor,
  type UpdateInputs,
} from "../../src/registry/contract.ts";
import {
  assign,
  fillConstant,
  pointwise,
  reshape,
  rows,
  sumColumns,
  sumRows,
} from "../../src/registry/tensor_ops.ts";

const PARAMETERS = ["A", "B", "E"] as const;

/** Running means of the importance of each element, and 1 for each triplet that the last choice kept. */
export function importanceStates({ rank, inFeatures, outFeatures }: AdaptedLayer): StateDefinition[] {
  const shapes = { A: [rank, inFeatures], B: [outFeatures, rank], E: [rank, 1] };
  return [
    ...PARAMETERS.flatMap((name) => [
      { name: `sensitivity.${name}`, shape: shapes[name] },
      { name: `uncertainty.${name}`, shape: shapes[name] },
    ]),
    { name: "kept", shape: [rank, 1], initial: 1 },
  ];
}

/** Importance of every triplet of the network, one layer after the other. */
export function scoreState(layers: readonly AdaptedLayer[]): StateDefinition {
  return { name: "scores", shape: [layers.length * slots(layers), 1], initial: BEYOND };
}

/** Scores that a layer has room for: each layer begins where a view may, at 256 bytes. */
function slots(layers: readonly AdaptedLayer[]): number {
  return Math.ceil(Math.max(...layers.map((l) => l.rank)) / 64) * 64;
}

/** More than any importance, so what stands for no triplet is never less important than one that does. */
const BEYOND = 3e38;

/**
 * The running means take in the step's gradients where the number `measure` is 1, and the scores follow: sensitivity |w g|, its mean,
 * the mean of how far it is off (equations 8 to 10); an element's importance is the product of both, a triplet's that of its value
 * plus the means of those of its vectors (equation 7).
 */
export function measureImportance(
  { layers, sharedState, clipping, scalar }: UpdateInputs,
  { beta1, beta2 }: { readonly beta1: number; readonly beta2: number },
): void {
  const scores = sharedState("scores");
  const perLayer = slots(layers.map((l) => l.layer));
  const moved = (mean: Expression, beta: number, value: Expression, clipping: Expression) =>
    select(scalar("measure").mul(clipping).greaterThan(0), mean.mul(beta).add(value.mul(1 - beta)), mean);
  // Of the gradient that the optimiser had, as where PyTorch clips it in place.
  const sensitivityOf = (w: Expression, g: Expression, clipping: Expression) => abs(w.mul(g).mul(clipping));
  layers.forEach(({ layer: { rank, inFeatures, outFeatures }, parameter, gradient, state }, i) => {
    const importance = (name: typeof PARAMETERS[number]): Tensor => {
      const now = [parameter(name), gradient(name), clipping];
      const sensitivity = assign(
        state(`sensitivity.${name}`),
        now,
        (mean, w, g, c) => moved(mean!, beta1, sensitivityOf(w!, g!, c!), c!),
      );
      const uncertainty = assign(
        state(`uncertainty.${name}`),
        [...now, sensitivity],
        (mean, w, g, c, usual) => moved(mean!, beta2, abs(sensitivityOf(w!, g!, c!).sub(usual!)), c!),
      );
      return pointwise([sensitivity, uncertainty], (s, u) => s!.mul(u!));
    };
    assign(
      rows(scores, i * perLayer, rank),
      [sumColumns(importance("A")), reshape(sumRows(importance("B")), [rank, 1]), importance("E")],
      (_, a, b, e) => e!.add(a!.div(inFeatures)).add(b!.div(outFeatures)),
    );
  });
}

/**
 * Sets the values of the `prune` least important triplets to zero, and of those that are as important as the last of them; where
 * `prune` is 0 and `hold` is 1, of those that the last choice left out.
 */
export function pruneLeastImportant({ layers, sharedState, scalar }: UpdateInputs): void {
  const scores = sharedState("scores");
  const all = reshape(scores, [scores.dim(0)]);
  const perLayer = slots(layers.map((l) => l.layer));
  const [prune, hold] = [scalar("prune"), scalar("hold")];
  // Gives the comparison of each with all its shape; its numbers are not read.
  const canvas = new Map<number, Tensor>();
  layers.forEach(({ layer: { rank }, parameter, state }, i) => {
    if (!canvas.has(rank)) canvas.set(rank, fillConstant(scores.graph, [rank, all.dim(0)], 0));
    const less = sumColumns(pointwise(
      [canvas.get(rank)!, rows(scores, i * perLayer, rank), all],
      (_, own, other) => select(other!.lessThan(own!), 1, 0),
    ));
    const kept = assign(
      state("kept"),
      [less],
      (old, less) => select(prune.greaterThan(0), select(less!.lessThan(prune), 0, 1), old!),
    );
    assign(
      parameter("E"),
      [kept],
      (e, kept) => select(kept!.lessThan(0.5).and(prune.add(hold).greaterThan(0)), 0, e!),
    );
  });
}
