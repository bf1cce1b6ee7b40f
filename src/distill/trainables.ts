/**
 * Everything that a run trains, in one flat layout: adapters, and whatever else brings parameters of its own.
 *
 * @module
 */
import type { Graph, Tensor } from "../tensor/graph.ts";
import { ParameterLayout, type ParameterSpec } from "./parameters.ts";

/** How the optimiser treats a group of parameters. */
export interface GroupSettings {
  /** Factor of the learning rate; 1 when absent. */
  readonly learningRateRatio?: number;
  /** Whether weight decay applies; it does when absent. */
  readonly weightDecay?: boolean;
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
}

/** All of a run's trainables together. */
export class Trainables {
  readonly parts: readonly Trainable[];
  /** The trained parameters: the layout of the flat buffers and of checkpoints. */
  readonly layout: ParameterLayout;
  /** The fixed ones, in a buffer of their own. */
  readonly frozen: ParameterLayout;

  /** @throws {ShapeError} if two parameters have one name */
  constructor(parts: readonly Trainable[]) {
    this.parts = parts;
    this.layout = new ParameterLayout(parts.flatMap((p) => p.trained));
    this.frozen = new ParameterLayout(parts.flatMap((p) => p.fixed));
  }

  /** What training begins with, in the flat layouts. */
  async initialValues(seed: number): Promise<{ trained: Float32Array; fixed: Float32Array }> {
    const values = {
      trained: new Float32Array(this.layout.total),
      fixed: new Float32Array(this.frozen.total),
    };
    for (const part of this.parts) {
      const named = await part.initialValues(seed);
      const some = (specs: readonly ParameterSpec[]) =>
        new Map(specs.map(({ name }) => [name, named.get(name)!]));
      this.layout.scatter(values.trained, some(part.trained));
      this.frozen.scatter(values.fixed, some(part.fixed));
    }
    return values;
  }

  /** The tensor of a parameter in a block, trained or fixed. */
  view(graph: Graph, name: string): Tensor {
    return this.frozen.has(name)
      ? this.frozen.view(graph, "frozen", name)
      : this.layout.view(graph, "parameters", name);
  }

  /** How the optimiser treats a group of the layout. */
  group(name: string): GroupSettings {
    return this.parts.find((p) => p.trained.some((spec) => spec.group === name))!.group(name);
  }
}
