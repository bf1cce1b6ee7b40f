/**
 * The numbers of an optimiser step: what of a program is copied aside for them, and what is made of that.
 *
 * @module
 */
import type { ControlledOptions } from "../../objective/controllers.ts";
import { type CountedLosses, tokenMeans } from "./measure.ts";
import type { MetricSource } from "./metrics_ring.ts";
import type { StudentShape } from "../../inputs/shape_space.ts";
import { ONE_FOR_ALL } from "../shapes/one_for_all.ts";
import type { PlannedTraining, TrainingSetup } from "../plan_training.ts";
import { TAUGHT } from "../sample_choice.ts";
import { teachersBySample } from "../../recipe/teachers.ts";

/** Numbers of one optimiser step. */
export interface StepMetrics {
  /** Steps done, from 1. */
  readonly step: number;
  readonly loss: number;
  /**
   * Each over the tokens that it counts; a loss that counts none of them is not there. `penalty` is that of adapters which have one, and no
   * part of `loss`.
   */
  readonly losses: Readonly<Record<string, number>>;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly supervisedTokens: number;
  readonly tokens: number;
  /** A gradient was NaN or infinite: the optimiser wrote nothing. */
  readonly nonFinite: boolean;
  /** What controllers had set for it, such as `taid.t`. */
  readonly controlled: Readonly<Record<string, number>>;
  /** Where several shapes of the student are trained at once: those of the step, the whole model first. */
  readonly shapes?: readonly ShapeMetrics[];
  /** Where each sample has a teacher of its own: what those of each came to, in the recipe's order. */
  readonly teachers?: readonly TaughtMetrics[];
}

/** What a step taught of one teacher's samples. */
export interface TaughtMetrics {
  readonly name: string;
  /** Supervised tokens. */
  readonly tokens: number;
  /** Mean of the weighted losses over them; NaN where there are none. */
  readonly loss: number;
}

/** What a step did to a shape of the student. */
export interface ShapeMetrics extends StudentShape {
  /** Before the factor. */
  readonly loss: number;
  /** What its gradient was multiplied by. */
  readonly factor: number;
}

/** What the host knows of a step when it queues it. */
export interface StepTag {
  readonly step: number;
  readonly learningRate: number;
  readonly supervisedTokens: number;
  readonly tokens: number;
  /** Tokens in each mask. */
  readonly counts: readonly number[];
  readonly controlled: ControlledOptions;
  /** None where the student has one. */
  readonly shapes: readonly StudentShape[];
  /** Supervised tokens by the teacher of their sample; none where samples have no teacher of their own. */
  readonly taught: readonly number[];
}

/** What is copied aside of each step: the sums of its losses, then the gradient's norm and the penalty, where there is one. */
export function stepSources(setup: TrainingSetup, { plan }: PlannedTraining): MetricSource[] {
  const { oneForAll } = setup;
  const shapes = Array.from({ length: (oneForAll?.shapes ?? 1) - 1 }, (_, i) => [
    { name: ONE_FOR_ALL.loss(i + 1), words: 1 },
    { name: ONE_FOR_ALL.factor(i + 1), words: 1 },
  ]);
  const taught = teachersBySample(setup.recipe.teacher);
  const hasPenalty = plan.blocks.get("update")!.outputs.has("penalty");
  return [
    ...summed(setup).map(({ sums, terms }) => ({ name: sums, words: terms.length })),
    { name: "norm", block: "update", words: 2 },
    ...(hasPenalty ? [{ name: "penalty", block: "update", words: 1 }] : []),
    ...shapes.flat(),
    ...(taught > 0 ? [{ name: TAUGHT, words: taught }] : []),
  ];
}

/** The mean of each loss and of what controllers measure, over their tokens, by name; from the values of {@linkcode stepSources}. */
export function stepMeans(
  setup: TrainingSetup,
  { counts }: StepTag,
  values: readonly Float32Array[],
): Record<string, number> {
  const means = summed(setup).map(({ terms }, i) => tokenMeans(terms, values[i]!, counts));
  return Object.assign({}, ...means);
}

/** The numbers of a step, from its means and the values of {@linkcode stepSources}. */
export function stepMetrics(
  setup: TrainingSetup,
  { counts, controlled, shapes, taught, ...tag }: StepTag,
  means: Readonly<Record<string, number>>,
  values: readonly Float32Array[],
): StepMetrics {
  const others = values.slice(summed(setup).length);
  const ofTeachers = taught.length > 0 ? others.pop()! : undefined;
  // Of each shape but the first two numbers stand at the end.
  const ofShapes = others.splice(Math.max(0, others.length - 2 * Math.max(0, shapes.length - 1)));
  const [norm, penalty] = others as [Float32Array, Float32Array?];
  const terms = setup.objective.at(tag.step - 1, controlled).filter(({ name }) => name in means);
  const losses = Object.fromEntries(terms.map(({ name }) => [name, means[name]!]));
  const own = terms.reduce((sum, { name, weight }) => sum + weight * losses[name]!, 0);
  const trained = shapes.map((shape, i): ShapeMetrics => {
    if (i === 0) return { ...shape, loss: own, factor: 1 };
    const [sum, factor] = ofShapes.slice(2 * i - 2, 2 * i).map((value) => value[0]!) as [number, number];
    return { ...shape, loss: sum / Math.max(1, counts[0]!), factor };
  });
  const loss = trained.length === 0 ? own : trained.reduce((sum, s) => sum + s.factor * s.loss, 0);
  if (penalty) losses.penalty = penalty[0]!;
  return {
    ...{ ...tag, loss, losses },
    gradientNorm: norm[0]!,
    nonFinite: norm[1] !== 0,
    controlled: flat(controlled),
    ...(trained.length > 0 ? { shapes: trained } : {}),
    ...(ofTeachers ? { teachers: taughtMetrics(setup, taught, ofTeachers) } : {}),
  };
}

function taughtMetrics(
  { recipe }: TrainingSetup,
  tokens: readonly number[],
  sums: Float32Array,
): TaughtMetrics[] {
  return recipe.teacher.teachers!.map(({ name }, i) => ({
    ...{ name: name!, tokens: tokens[i]! },
    loss: tokens[i]! > 0 ? sums[i]! / tokens[i]! : NaN,
  }));
}

/** Whatever sums losses up in a training step. */
function summed(
  { objective, features }: TrainingSetup,
): readonly { readonly sums: string; readonly terms: CountedLosses["terms"] }[] {
  return [...objective.passes, ...features, ...objective.groups];
}

/** Options under one name each: `LOSS.OPTION`. */
function flat(controlled: ControlledOptions): Record<string, number> {
  return Object.fromEntries(
    Object.entries(controlled).flatMap(([loss, options]) =>
      Object.entries(options).map(([option, value]) => [`${loss}.${option}`, value])
    ),
  );
}
