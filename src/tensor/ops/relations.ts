/**
 * Comparing how the positions of a sample relate to each other in two models: scaled products of vectors over heads of their own
 * (attention relations, MiniLMv2, arXiv 2012.15828), or similarities. Each position has a row of relations to its keys; the
 * loss is one number a position. No [T, T] matrix ever lies in memory: the backward pass computes the relations again.
 *
 * @module
 */
import forwardSource from "../../../kernels/features/relations.wgsl" with { type: "text" };
import gradientSource from "../../../kernels/features/relations_gradient.wgsl" with { type: "text" };
import products from "../../../kernels/include/relations_products.wgsl" with { type: "text" };
import size from "../../../kernels/include/relations_size.wgsl" with { type: "text" };
import turns from "../../../kernels/include/turns.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op, refuse } from "../op.ts";
import { scale } from "./combine.ts";
import { sumRows } from "./pointwise.ts";

/** How two rows of relations are compared. */
export type RelationKind =
  /** KL(softmax of the target's || softmax of the learner's). */
  | "softmax"
  /** 1 - cosine of the two rows. */
  | "cosine";

/** Attributes of {@linkcode relationsOp}. */
export interface RelationAttributes {
  readonly kind: RelationKind;
  /** Heads that both widths are cut into. */
  readonly heads: number;
  /** Factors of the products. */
  readonly scales: readonly [learner: number, target: number];
  /** Keys of a position are those up to itself. */
  readonly causal: boolean;
}

/** The sample that each position belongs to: rows `start ... end`, equal in all positions of a sample; both i32 [T]. */
export interface SampleRange {
  readonly start: Tensor;
  readonly end: Tensor;
}

/**
 * The op behind {@linkcode relationDivergence} and {@linkcode relationDistance}. Inputs: learner f32 [T, heads * dx], target
 * f32 [T, heads * dy], start, end, and where only some positions are keys flags i32 [T]. Outputs: the value of each head and position,
 * f32 [heads, T], and what the backward pass needs, f32 [heads, T, 2]. Nothing flows into the target.
 */
export const relationsOp: Op<RelationAttributes> = {
  name: "relations",
  infer(inputs, { heads }) {
    const [x, y, ...perRow] = inputs as [Tensor, Tensor, Tensor, Tensor];
    const check = (condition: boolean, why: string) => ensure(condition, "relations", inputs, why);
    check(
      [x, y].every((t) => t.dtype === "f32" && t.shape.length === 2),
      "both sides must be f32 [T, width]",
    );
    check(x.dim(0) === y.dim(0) && x.dim(0) > 0, "both sides need the same positions, at least one");
    check(Number.isInteger(heads) && heads > 0, `${heads} heads make no sense`);
    check(
      [x, y].every((t) => t.dim(1) % heads === 0),
      `${heads} heads do not divide the widths ${x.dim(1)} and ${y.dim(1)}`,
    );
    check(
      perRow.every((t) => t.dtype === "i32" && t.shape.length === 1 && t.dim(0) === x.dim(0)),
      "start, end and keys must be i32 [T]",
    );
    return [
      { shape: [heads, x.dim(0)], dtype: "f32" },
      { shape: [heads, x.dim(0), 2], dtype: "f32" },
    ];
  },
  gradient({ inputs, outputs, attributes, outputGradients: [above, dStats], needed }) {
    if (dStats) refuse("relations", inputs, "nothing may be differentiated through the second output");
    if (needed[1]) refuse("relations", inputs, "the target is constant; detach it");
    return [inputs[0]!.graph.add(relationsGradientOp, [...inputs, outputs[1]!, above!], attributes)[0]];
  },
  lower(context) {
    launch(context, "relations", forwardSource, 1);
  },
};

/** Gradient of {@linkcode relationsOp} with respect to the learner. Inputs: its inputs, its second output, the gradient of the first. */
const relationsGradientOp: Op<RelationAttributes> = {
  name: "relationsGradient",
  infer: ([x]) => [{ shape: x!.shape, dtype: "f32" }],
  lower(context) {
    launch(context, "relations_gradient", gradientSource, 2);
  },
};

/**
 * Turns of loops that a thread may have on Mesa's software driver, which ends all of them after 65,535: where eight threads would have more, more
 * share the keys.
 */
const FEW_TURNS = 60_000;

const INCLUDES = { relations_size: size, relations_products: products, turns };

function launch(
  { inputs, outputs, attributes, device, dispatch }: LoweringContext<RelationAttributes>,
  name: string,
  source: string,
  passes: number,
): void {
  const { kind, heads, scales, causal } = attributes;
  const [x, y] = inputs as [Tensor, Tensor];
  const rows = x.dim(0);
  const [dx, dy] = [x.dim(1) / heads, y.dim(1) / heads];
  const vector = dx % 4 === 0 && dy % 4 === 0 ? 4 : 1;
  const units = (2 * dx + dy) / vector;
  const tiles = Math.ceil(rows / 4);
  dispatch({
    kernel: `${name} ${kind}`,
    wgsl: expandTemplate(name, source, {
      THREADS: device.family === "subgroup8" && rows / 8 * units < FEW_TURNS ? 8 : 64,
      RELATION: kind,
      CAUSAL: causal,
      MASKED: inputs.length % 2 === 1,
      VECTOR: vector,
    }, INCLUDES),
    tensors: [...inputs, ...outputs],
    size: [
      rows,
      heads,
      dx / vector,
      dy / vector,
      tiles,
      tiles * heads,
      { f32: scales[0] },
      { f32: scales[1] },
    ],
    groups: grid(tiles * heads, device),
    // An estimate: the ranges are not known. One sample is meant.
    flops: passes * 2 * rows * rows * (x.dim(1) + y.dim(1)) / (causal ? 2 : 1),
  });
}

/** The mean over heads of the op's values, f32 [T]. */
function meanOverHeads(
  sides: readonly [Tensor, Tensor],
  { start, end }: SampleRange,
  keys: Tensor | undefined,
  attributes: RelationAttributes,
): Tensor {
  const inputs = [...sides, start, end, ...(keys ? [keys] : [])];
  const values = sides[0].graph.add(relationsOp, inputs, attributes)[0]!;
  return scale(sumRows(values), 1 / attributes.heads);
}

/**
 * KL divergence between softmaxes of scaled products of each position's vector with those of the positions up to it in its sample, the
 * mean over heads. For queries, keys or values it is the attention relation of MiniLMv2 (arXiv 2012.15828), causal
 * here. Products are divided by the square root of a head's width.
 *
 * @param learner f32 [T, width], differentiable
 * @param target f32 [T, another width], constant
 * @param heads Relation heads; must divide both widths
 * @returns f32 [T]
 * @throws {ShapeError} if the shapes do not fit
 */
export function relationDivergence(
  learner: Tensor,
  target: Tensor,
  sample: SampleRange,
  heads: number,
): Tensor {
  const scales = [learner, target].map((t) => (t.dim(1) / heads) ** -0.5) as [number, number];
  return meanOverHeads([learner, target], sample, undefined, {
    kind: "softmax",
    heads,
    scales,
    causal: true,
  });
}

/**
 * 1 - the cosine between a position's two rows of products with positions of its sample, both before and after it: the similarities
 * in the learner and those in the target, where the vectors have length 1. 0 for a position without keys.
 *
 * @param learner f32 [T, width], differentiable
 * @param target f32 [T, another width], constant
 * @param keys Positions that rows hold, those that are not 0, i32 [T]; all when absent
 * @returns f32 [T]
 * @throws {ShapeError} if the shapes do not fit
 */
export function relationDistance(
  learner: Tensor,
  target: Tensor,
  sample: SampleRange,
  keys?: Tensor,
): Tensor {
  return meanOverHeads([learner, target], sample, keys, {
    kind: "cosine",
    heads: 1,
    scales: [1, 1],
    causal: false,
  });
}
