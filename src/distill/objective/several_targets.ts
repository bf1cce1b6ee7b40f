/**
 * Several teachers as one target: their distributions mixed or multiplied, or one of them for each row.
 *
 * @module
 */
import { constant, type Expression, logAddExp, select, stepScalar } from "../../tensor/expr/mod.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { rowLogSumExp } from "../../tensor/ops/row_log_sum_exp.ts";
import { rows } from "../../tensor/ops/views.ts";
import type { DenseTarget } from "./chunked_loss.ts";

/** Name of the step scalar with the i-th teacher's share, of all that sum to 1. */
function shareName(i: number): string {
  return `teacher.${i}.share`;
}

/** Name of the step scalar with its logarithm. */
function logShareName(i: number): string {
  return `teacher.${i}.logShare`;
}

/** In the place of the logarithm of a share of 0. Finite, because WGSL lets compilers assume that all numbers are. */
const NO_SHARE = -1e30;

/** The step scalars of shares, each weight divided by their sum. */
export function shareScalars(weights: readonly number[]): [name: string, value: number][] {
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.flatMap((weight, i): [string, number][] => [
    [shareName(i), weight / sum],
    [logShareName(i), weight > 0 ? Math.log(weight / sum) : NO_SHARE],
  ]);
}

/**
 * The weighted mean of distributions, p = sum_i w_i softmax(z_i / tau), as logits at that temperature: tau log p. At any other temperature
 * these logits stand for nothing, so all losses that look at them must have this one.
 *
 * @param temperature Name of the step scalar that holds tau; 1 when absent
 */
export function mixedTarget(members: readonly DenseTarget[], temperature?: string): DenseTarget {
  return {
    logits(first, count) {
      const tau = temperature === undefined ? constant(1) : stepScalar(temperature);
      const logProbability = (i: number, z: Expression, sum: Expression) =>
        z.div(tau).sub(sum).add(stepScalar(logShareName(i)));
      // One after another, so that no more than two teachers' rows are there at once.
      let mixed: Tensor | undefined;
      for (const [i, member] of members.entries()) {
        const z = member.logits(first, count);
        const sum = rowLogSumExp(z, temperature);
        mixed = mixed
          ? pointwise([mixed, z, sum], (m, z, sum) => logAddExp(m!, logProbability(i, z!, sum!)))
          : pointwise([z, sum], (z, sum) => logProbability(i, z!, sum!));
      }
      return temperature === undefined ? mixed! : pointwise([mixed!], (m) => m!.mul(tau));
    },
  };
}

/** The product of distributions, p proportional to prod_i p_i^w_i, at any temperature: sum_i w_i z_i. */
export function multipliedTarget(members: readonly DenseTarget[]): DenseTarget {
  return {
    logits: (first, count) =>
      pointwise(
        members.map((member) => member.logits(first, count)),
        (...all) => all.map((z, i) => z.mul(stepScalar(shareName(i)))).reduce((a, b) => a.add(b)),
      ),
  };
}

/** f32 [T, 1]: the number of the teacher of each position, or of none where it is below 0. */
export const CHOICE = "teacher.choice";

/**
 * Of each row the logits of its own teacher; the others' may hold anything there. Where a row has none, those of the first.
 *
 * @param numbers Of the teachers, rising, where some have no logits and rows of them are not looked at; 0, 1 and so on when absent
 */
export function chosenTarget(
  graph: Graph,
  tokens: number,
  members: readonly DenseTarget[],
  numbers: readonly number[] = members.map((_, i) => i),
): DenseTarget {
  if (members.length === 1) return members[0]!;
  return {
    logits(first, count) {
      const choice = rows(graph.input(CHOICE, [tokens, 1], "f32"), first, count);
      const logits = members.map((member) => member.logits(first, count));
      return pointwise([choice, ...logits], (choice, ...all) =>
        // Chosen, not multiplied: what another teacher has of the row may be NaN.
        all.slice(1).reduce((found, z, i) => select(choice!.equalTo(numbers[i + 1]!), z, found), all[0]!));
    },
  };
}
