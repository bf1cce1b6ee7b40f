/**
 * Everything that a run trains, in one flat layout: adapters, and whatever else brings parameters of its own.
 *
 * @module
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { ShapeError } from "../../base/errors.ts";
import { ParameterLayout, type ParameterSpec } from "./parameters.ts";

/** How the optimiser treats a group of parameters. */
export interface GroupSettings {
  /** Factor of the learning rate; 1 when absent. */
  readonly learningRateRatio?: number;
  /** Whether weight decay applies; it does when absent. */
  readonly weightDecay?: boolean;
}

/** A tensor that is carried from step to step beside the parameters: a running mean, a mask. */
export interface StateSpec extends ParameterSpec {
  /** What its elements begin with. */
  readonly initial: number;
}

/** Tensors of the update block, by the run's names. */
export interface UpdateTensors {
  /** A parameter, trained or fixed. */
  parameter(name: string): Tensor;
  /** The step's gradient of a trained parameter, before clipping. */
  gradient(name: string): Tensor;
  state(name: string): Tensor;
  /** f32 [1], see `clippingFactor`. */
  readonly clipping: Tensor;
}

/** What happens once an optimiser step beside the optimiser. */
export interface StepWork {
  /** Names are unique in the run. */
  readonly states: readonly StateSpec[];
  /** A penalty on the parameters, f32 [1], part of the objective; undefined where there is none. */
  penalty(parameter: (name: string) => Tensor): Tensor | undefined;
  /** Assigns states and parameters after the optimiser. */
  afterUpdate(tensors: UpdateTensors): void;
  /** Step scalars of a step, counted from 1, by the run's names. */
  scalars(step: number): Readonly<Record<string, number>>;
}

/** Something with parameters that are trained. */
export interface Trainable {
  /** Trained parameters. Their names and groups are unique in the run. */
  readonly trained: readonly ParameterSpec[];
  /** Fixed parameters: in no checkpoint, made again from the seed and the models' weights. */
  readonly fixed: readonly ParameterSpec[];
  /** What all of them begin with, by name: a pure function of the seed and the models. */
  initialValues(seed: number): Promise<ReadonlyMap<string, Float32Array>>;
  /** The settings of one of its groups. */
  group(name: string): GroupSettings;
  /** What it does once a step beside being trained. */
  readonly work?: StepWork;
}

/** All of a run's trainables together. */
export class Trainables {
  readonly parts: readonly Trainable[];
  /** The trained parameters: the layout of the flat buffers and of checkpoints. */
  readonly layout: ParameterLayout;
  /** The fixed ones, in a buffer of their own. */
  readonly fixed: ParameterLayout;
  /** What is carried from step to step beside the parameters, in a buffer of its own and in checkpoints. */
  readonly states: ParameterLayout;
  /**
   * The trained parameters of which a copy follows them, in a buffer of its own and in checkpoints: the first of the layout, each in its
   * place there. Empty as a rule.
   */
  readonly copy: ParameterLayout;

  /**
   * @param copied The first of the parts, where a copy of their parameters follows them
   * @throws {ShapeError} if two parameters have one name
   */
  constructor(parts: readonly Trainable[], copied: readonly Trainable[] = []) {
    this.parts = parts;
    this.copy = new ParameterLayout(copied.flatMap((p) => p.trained));
    this.layout = new ParameterLayout(parts.flatMap((p) => p.trained));
    this.fixed = new ParameterLayout(parts.flatMap((p) => p.fixed));
    this.states = new ParameterLayout(this.#stateSpecs());
    const moved = this.copy.parameters.find(({ name, offset }) => this.layout.get(name).offset !== offset);
    if (moved) throw new ShapeError(`"${moved.name}" is copied, and not among the first parameters`);
  }

  #stateSpecs(): StateSpec[] {
    return this.parts.flatMap((p) => p.work?.states ?? []);
  }

  /** The states before the first step. */
  initialStates(): Float32Array {
    const values = new Float32Array(this.states.total);
    for (const { name, initial } of this.#stateSpecs()) {
      const { offset, count } = this.states.get(name);
      values.fill(initial, offset, offset + count);
    }
    return values;
  }

  /** What training begins with, in the flat layouts. */
  async initialValues(seed: number): Promise<{ trained: Float32Array; fixed: Float32Array }> {
    const values = {
      trained: new Float32Array(this.layout.total),
      fixed: new Float32Array(this.fixed.total),
    };
    for (const part of this.parts) {
      const named = await part.initialValues(seed);
      const some = (specs: readonly ParameterSpec[]) =>
        new Map(specs.map(({ name }) => [name, named.get(name)!]));
      this.layout.scatter(values.trained, some(part.trained));
      this.fixed.scatter(values.fixed, some(part.fixed));
    }
    return values;
  }

  /** The tensor of a parameter in a block, trained or fixed. */
  view(graph: Graph, name: string): Tensor {
    return this.fixed.has(name)
      ? this.fixed.view(graph, "fixed", name)
      : this.layout.view(graph, "parameters", name);
  }

  /** The tensor of a parameter in a block: the copy's, or a fixed one. */
  copied(graph: Graph, name: string): Tensor {
    return this.fixed.has(name) ? this.fixed.view(graph, "fixed", name) : this.copy.view(graph, "copy", name);
  }

  /** How the optimiser treats a group of the layout. */
  group(name: string): GroupSettings {
    return this.parts.find((p) => p.trained.some((spec) => spec.group === name))!.group(name);
  }
}
