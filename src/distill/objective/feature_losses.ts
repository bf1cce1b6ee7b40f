/**
 * Losses over inner values of the models, in a run: what they tap, the parameters they bring along, their place in a block.
 *
 * @module
 */
import { InputError, LimbeckError } from "../../base/errors.ts";
import {
  type FeatureInputs,
  type FeatureLoss,
  type ModelShape,
  type ParameterDefinition,
  PluginError,
  type Taps,
} from "../../registry/contract.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";
import { elementCount, type Graph, show, type Tensor } from "../../tensor/graph.ts";
import { detach } from "../../tensor/ops/detach.ts";
import { didYouMean } from "../../base/did_you_mean.ts";
import { fillNormal, fillUniform } from "../trained/initialisation.ts";
import type { Model } from "../inputs/models.ts";
import type { ParameterSpec } from "../trained/parameters.ts";
import type { Balance, Learner, ObjectiveTerm } from "../recipe/recipe.ts";
import type { GroupSettings, Trainable } from "../trained/trainables.ts";

/** The part of {@linkcode FeatureInputs} that is not of the models. */
export type SampleInputs = Pick<FeatureInputs, "segments" | "sample" | "supervised" | "prompt">;

/** A feature loss of an objective, its options checked. */
export interface ResolvedFeature
  extends Pick<ResolvedLoss, "options" | "name" | "weight" | "temperature" | "tokenMask"> {
  readonly loss: FeatureLoss;
  /** Path in the recipe, for errors. */
  readonly where: string;
  /** Gives it the size of all losses without it. */
  readonly balance?: Balance;
}

/**
 * Refuses what has no meaning for a loss over inner values.
 *
 * @throws {InputError} naming the field
 */
export function checkFeatureTerm(term: ObjectiveTerm, where: string): void {
  const refuse = (field: string, why: string, hint: string) => {
    throw new InputError(`"${term.loss}" is a loss over inner values of the models: ${why}`, {
      where: `recipe ${where}.${field}`,
      hint,
    });
  };
  const noLogits = "it has no logits to divide by a temperature";
  if (term.temperature !== 1) refuse("temperature", noLogits, "Leave temperature out.");
  if (term.schedule?.temperature) refuse("schedule.temperature", noLogits, "Leave it out.");
  if (term.squareTemperature) refuse("squareTemperature", noLogits, "Leave it out.");
  if (term.learner === "teacher") {
    refuse("learner", "only the student can learn by it", "Leave learner out, or choose a loss over logits.");
  }
}

/** The models of a run. */
type Models = Readonly<Record<Learner, Model>>;

/** A feature loss on the models of a run. */
export class ModelFeatureLoss implements Trainable {
  readonly term: ResolvedFeature;
  readonly trained: readonly ParameterSpec[];
  readonly fixed: readonly ParameterSpec[];
  readonly taps: Taps;
  readonly #shapes: Readonly<Record<Learner, ModelShape>>;
  readonly #parameters: readonly ParameterDefinition[];

  /** @throws {InputError} on a tap that the models do not have, and on what the loss itself refuses */
  constructor(term: ResolvedFeature, models: Models) {
    this.term = term;
    const { loss, options } = term;
    this.#shapes = shapes(models);
    this.taps = this.#ask(() => loss.taps(this.#shapes, options));
    this.#checkTaps(models);
    this.#parameters = this.#ask(() => loss.parameters?.(this.#shapes, options) ?? []);
    const place = (isTrained: boolean) =>
      this.#parameters.filter((p) => (p.trainable !== false) === isTrained).map((p) => ({
        name: this.#nameOf(p),
        shape: p.shape,
        group: `${this.#prefix}${p.group ?? "default"}`,
      }));
    [this.trained, this.fixed] = [place(true), place(false)];
  }

  /** The one value it has, as passes over the head have several. */
  get terms(): readonly ResolvedFeature[] {
    return [this.term];
  }

  /** Name of the state with the sum of a training window. */
  get sums(): string {
    return `losses.train.${this.term.name}`;
  }

  group(): GroupSettings {
    return {};
  }

  initialValues(seed: number): Promise<ReadonlyMap<string, Float32Array>> {
    return Promise.resolve(new Map(this.#parameters.map((p) => [this.#nameOf(p), this.#begin(p, seed)])));
  }

  /**
   * Traces the loss of each position, f32 [T]; nothing flows back into the teacher.
   *
   * @param taps The inner values of a model, by name
   * @param parameter The tensor of a parameter, by its name in the run
   * @throws {PluginError} if its program cannot be traced, or gives something else
   */
  trace(
    graph: Graph,
    taps: (model: Learner) => ReadonlyMap<string, Tensor>,
    parameter: (name: string) => Tensor,
    stream: SampleInputs,
    tokens: number,
  ): Tensor {
    const { loss, options } = this.term;
    const tapped = (model: Learner) => (name: string) => {
      if (this.taps[model].includes(name)) return taps(model).get(name)!;
      throw new PluginError(
        loss.id,
        `its program asks for "${name}" of the ${model}, which taps() does not name`,
      );
    };
    const own = (name: string) => {
      const found = this.#parameters.find((p) => p.name === name);
      if (!found) throw new PluginError(loss.id, `it has no parameter "${name}"`);
      return parameter(this.#nameOf(found));
    };
    const [student, teacher] = [tapped("student"), tapped("teacher")];
    const inputs = {
      ...stream,
      ...{ student, teacher: (name: string) => detach(teacher(name)) },
      ...{ parameter: own, models: this.#shapes, options },
    };
    const rows = this.#ask(() => graph.within(this.term.name, () => loss.program(inputs)));
    if (rows?.dtype === "f32" && String(rows.shape) === String([tokens])) return rows;
    throw new PluginError(
      loss.id,
      `its program must return the loss of each position, f32[${tokens}], not ${
        rows ? show(rows) : "nothing"
      }`,
    );
  }

  #checkTaps(models: Models): void {
    if (this.taps.student.length === 0) {
      throw new PluginError(this.term.loss.id, "it taps nothing of the student, so nothing can be learnt");
    }
    for (const model of ["student", "teacher"] as const) {
      const known = [...models[model].architecture.taps.keys()];
      for (const tap of this.taps[model]) {
        if (known.includes(tap)) continue;
        throw new InputError(
          `"${this.term.loss.id}" wants "${tap}" of the ${model}, which is no inner value of it${
            didYouMean(tap, known)
          }`,
          { where: this.term.where, hint: `There are ${known.join(", ")}.` },
        );
      }
    }
  }

  /** What a plugin throws on purpose is said with its place in the recipe, anything else as its failure. */
  #ask<T>(fn: () => T): T {
    const { loss, where } = this.term;
    try {
      return fn();
    } catch (error) {
      if (error instanceof PluginError || error instanceof InputError) {
        throw new InputError(error.message, {
          where,
          ...(error.hint ? { hint: error.hint } : {}),
          cause: error,
        });
      }
      const why = error instanceof LimbeckError ? error.message : `it throws: ${(error as Error).message}`;
      throw new PluginError(loss.id, `${why} (${where})`, {
        hint: "`limbeck plugin check` looks at a plugin alone.",
        cause: error,
      });
    }
  }

  #begin(parameter: ParameterDefinition, seed: number): Float32Array {
    const { shape, initialisation: init } = parameter;
    const [name, count] = [this.#nameOf(parameter), elementCount(shape)];
    const values = new Float32Array(count);
    if (init.kind === "constant") return values.fill(init.value);
    if (init.kind === "uniform") fillUniform(values, seed, name, init.bound);
    else if (init.kind === "normal") fillNormal(values, seed, name, init.deviation);
    else {
      const given = init.kind === "given" ? init.values() : undefined;
      if (given?.length !== count || !given.every(Number.isFinite)) {
        throw new PluginError(
          this.term.loss.id,
          given
            ? `the initial value of ${name} must be ${count} finite numbers`
            : `the parameter ${name} belongs to no layer, so it cannot begin from a weight`,
        );
      }
      values.set(given);
    }
    return values;
  }

  get #prefix(): string {
    return `loss.${this.term.name}.`;
  }

  #nameOf({ suffix }: ParameterDefinition): string {
    return `${this.#prefix}${suffix}`;
  }
}

/** What losses are told of the models. */
function shapes({ student, teacher }: Models): Record<Learner, ModelShape> {
  const shape = ({ architecture: { config, taps } }: Model): ModelShape => {
    const { layers, hiddenSize, vocabularySize } = config;
    const width = (tap: string) => taps.get(`model.layers.0.${tap}`)!;
    return { layers, hiddenSize, vocabularySize, queryWidth: width("queries"), keyValueWidth: width("keys") };
  };
  const isCut = student.path === teacher.path;
  return {
    student: { ...shape(student), ...(isCut ? { originals: student.keptLayers } : {}) },
    teacher: shape(teacher),
  };
}
