/**
 * Losses over pairs of texts, as ordinary graph on top of the rows of a loss: sums over each text, a function of the two sums, and its
 * derivative back at each row.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { PAIR, pairGradients } from "../../losses/pairs.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";
import { type Expression, select, substitute } from "../../tensor/expr/mod.ts";
import type { Executable } from "../../tensor/executable.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { pointwise, sumRows } from "../../tensor/ops/pointwise.ts";
import { rangeMean } from "../../tensor/ops/range_mean.ts";
import { reshape } from "../../tensor/ops/views.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { PackedBatch } from "../../text/packing.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { cachesOf } from "../recipe/teachers.ts";
import type { ResolvedTerm } from "./terms.ts";

/** What is made of the pairs of a micro-batch; each f32 [T]. */
export interface PairLoss {
  /** The loss of each pair, at its head; 0 elsewhere. */
  readonly values: Tensor;
  /** Likewise, 1 where the chosen text has the larger sum. */
  readonly accuracy: Tensor;
  /** The derivative of the pair's loss with respect to the row's value. */
  readonly gradient: Tensor;
}

/** Whether a term is a loss over pairs. */
export function isPairTerm(term: ResolvedTerm): term is ResolvedLoss {
  return term.loss.kind === "divergence" && term.loss.pairs !== undefined;
}

/** Integer inputs of a block that say where pairs lie; see `PackedPairs`. */
const RANGES = ["chosenStart", "chosenEnd", "rejectedStart", "rejectedEnd"] as const;

const nameOf = (part: string) => `pair.${part}`;

/**
 * Traces the loss of the pairs of a stream.
 *
 * @param rows Values of the row loss, f32 [T]; 0 where nothing is learnt
 */
export function tracePairs(graph: Graph, rows: Tensor, { loss, options }: ResolvedLoss): PairLoss {
  const tokens = rows.dim(0);
  const ranges = Object.fromEntries(
    RANGES.map((name) => [name, graph.input(nameOf(name), [tokens], "i32")]),
  ) as Record<typeof RANGES[number], Tensor>;
  const column = (name: string) => graph.input(nameOf(name), [tokens], "f32");
  const [role, head] = [column("role"), column("head")];
  const x = reshape(rows, [tokens, 1]);
  const sum = (start: Tensor, end: Tensor, length: Tensor) =>
    pointwise([reshape(rangeMean(x, start, end), [tokens]), length], (mean, n) => mean!.mul(n!));
  const chosen = sum(ranges.chosenStart, ranges.chosenEnd, column("chosenLength"));
  const rejected = sum(ranges.rejectedStart, ranges.rejectedEnd, column("rejectedLength"));
  const total = (t: Tensor) => sumRows(reshape(t, [tokens, 1]));
  const pairs = total(head);
  const mean = (t: Tensor) => {
    const atHeads = pointwise([t, head], (v, h) => v!.mul(h!));
    return pointwise([total(atHeads), pairs], (s, n) => s!.div(select(n!.greaterThan(0), n!, 1)));
  };
  const operands = [chosen, rejected, mean(chosen), mean(rejected)];
  const made = pairGradients(loss as Parameters<typeof pairGradients>[0], options);
  const over = (expression: Expression, [c, r, cm, rm]: readonly Expression[]) =>
    substitute(expression, {
      numbers: new Map([
        [PAIR.chosen, c!],
        [PAIR.rejected, r!],
        [PAIR.chosenMean, cm!],
        [PAIR.rejectedMean, rm!],
      ]),
    });
  return {
    values: pointwise(
      [...operands, head],
      (...all) => select(all[4]!.greaterThan(0), over(made.value, all), 0),
    ),
    accuracy: pointwise(
      [chosen, rejected, head],
      (c, r, h) => select(h!.greaterThan(0).and(c!.greaterThan(r!)), 1, 0),
    ),
    gradient: pointwise([...operands, role], (...all) => {
      const role = all[4]!;
      const ofRejected = select(role.lessThan(0), over(made.rejected, all), 0);
      return select(role.greaterThan(0), over(made.chosen, all), ofRejected);
    }),
  };
}

/** Writes where the pairs of a batch lie, if the program asks. */
export function writePairs(executable: Executable, { pairs, tokens: { length } }: PackedBatch): void {
  if (!executable.plan.storages.has(nameOf("role"))) return;
  const none = new Int32Array(length);
  for (const name of RANGES) executable.write(nameOf(name), pairs?.[name] ?? none);
  const column = (name: string, value: (t: number) => number) =>
    executable.write(nameOf(name), Float32Array.from({ length }, (_, t) => pairs ? value(t) : 0));
  column("role", (t) => pairs!.role[t]!);
  column("head", (t) => pairs!.head[t]!);
  column("chosenLength", (t) => pairs!.chosenEnd[t]! - pairs!.chosenStart[t]!);
  column("rejectedLength", (t) => pairs!.rejectedEnd[t]! - pairs!.rejectedStart[t]!);
}

/**
 * Refuses a loss over pairs where the data has none, and pairs where the student writes texts of its own, or where what there is of the
 * teacher belongs to samples: the rejected text of a pair is none.
 *
 * @throws {InputError} naming the loss, or the first pair
 */
export function checkPairs(
  { terms, recipe: { train, teacher } }: {
    readonly terms: readonly ResolvedTerm[];
    readonly recipe: Pick<Recipe, "train" | "teacher">;
  },
  { train: samples, heldOut }: {
    readonly train: readonly EncodedSample[];
    readonly heldOut: readonly EncodedSample[];
  },
): void {
  const pair = [...samples, ...heldOut].find(({ rejected }) => rejected);
  const bySample = cachesOf(teacher).length > 0
    ? "cache"
    : ["best", "tag"].includes(teacher.combine ?? "")
    ? "combine"
    : "";
  if (pair && bySample) {
    throw new InputError(
      `a pair of texts needs one teacher that is there: with teacher.${bySample} each sample has rows or a teacher of its own`,
      {
        where: `${pair.source.file}:${pair.source.line}`,
        hint: `Leave out teacher.${bySample}, or give rows of prompt and completion.`,
      },
    );
  }
  if (pair && train.onPolicy) {
    throw new InputError("a pair of texts cannot leave for an answer of the student", {
      where: `${pair.source.file}:${pair.source.line}`,
      hint: "Leave out train.onPolicy, or give rows of prompt and completion.",
    });
  }
  const at = terms.findIndex(isPairTerm);
  if (at < 0) return;
  for (const [where, some] of [["the training data", samples], ["the held-out data", heldOut]] as const) {
    if (some.some(({ rejected }) => rejected)) continue;
    throw new InputError(`"${terms[at]!.loss.id}" compares pairs of texts, and ${where} has none`, {
      where: `recipe objective.${at}.loss`,
      hint: 'Give rows of {"prompt": "...", "chosen": "...", "rejected": "..."}.',
    });
  }
}
