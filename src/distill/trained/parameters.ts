/**
 * Where each trainable parameter lies in the flat buffers of parameters, gradients and optimiser moments, and each fixed one
 * in a buffer of its own.
 *
 * @module
 */
import { ShapeError } from "../../base/errors.ts";
import { elementCount, type Graph, type Tensor } from "../../tensor/graph.ts";
import { part } from "../../tensor/ops/views.ts";

/** A tensor of an adapter before it has a place. */
export interface ParameterSpec {
  /** Unique: the module's path and the adapter's suffix, as PEFT names it without its prefix. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Optimiser group; parameters of a group lie side by side. */
  readonly group: string;
}

/** A parameter with its place, in elements of the flat buffers. */
export interface Parameter extends ParameterSpec {
  readonly offset: number;
  readonly count: number;
}

/** A range of the flat buffers that the optimiser treats alike. */
export interface ParameterGroup {
  readonly name: string;
  readonly offset: number;
  readonly count: number;
}

/** Views begin at multiples of 256 bytes, so that each can be bound. */
const ALIGN = 64;

/** Names of the flat states, each f32 [total]; `fixed`, `states` and `copy` have layouts of their own. */
export const FLAT = {
  fixed: "fixed.parameters",
  parameters: "trained.parameters",
  gradients: "trained.gradients",
  /** Of one of several shapes, before it is added to the others. */
  shapeGradients: "shape.gradients",
  m: "trained.m",
  v: "trained.v",
  states: "trained.states",
  /** What the student teaches itself with: its parameters some steps back, or a mean of them. */
  copy: "copied.parameters",
} as const;

/** The layout of all trainable parameters, of all fixed ones, of all states, or of a copy. Padding between them stays zero. */
export class ParameterLayout {
  readonly parameters: readonly Parameter[];
  readonly groups: readonly ParameterGroup[];
  /** Elements of each flat buffer. */
  readonly total: number;
  readonly #byName: ReadonlyMap<string, Parameter>;

  /** Groups lie in the order in which they first appear, parameters of a group in the order given. */
  constructor(specs: readonly ParameterSpec[]) {
    const groupNames = [...new Set(specs.map((s) => s.group))];
    const parameters: Parameter[] = [];
    const groups: ParameterGroup[] = [];
    let offset = 0;
    for (const name of groupNames) {
      const start = offset;
      for (const spec of specs) {
        if (spec.group !== name) continue;
        const count = elementCount(spec.shape);
        parameters.push({ ...spec, offset, count });
        offset += Math.ceil(count / ALIGN) * ALIGN;
      }
      groups.push({ name, offset: start, count: offset - start });
    }
    this.parameters = parameters;
    this.groups = groups;
    this.total = offset;
    this.#byName = new Map(parameters.map((p) => [p.name, p]));
    if (this.#byName.size !== parameters.length) {
      const twice = parameters.find((p, i) => parameters.findIndex((q) => q.name === p.name) !== i)!;
      throw new ShapeError(`two parameters are named "${twice.name}"`);
    }
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  get(name: string): Parameter {
    const parameter = this.#byName.get(name);
    if (!parameter) throw new ShapeError(`there is no parameter "${name}"`);
    return parameter;
  }

  /** Number of values, padding not counted. */
  get trainable(): number {
    return this.parameters.reduce((sum, p) => sum + p.count, 0);
  }

  /** A view of a parameter in one of the flat states. */
  view(graph: Graph, state: keyof typeof FLAT, name: string): Tensor {
    const { offset, shape } = this.get(name);
    return part(graph.state(FLAT[state], [this.total], "f32", "adapter and optimiser"), offset, shape);
  }

  /** Copies named values into a flat array; values not named stay as they are. */
  scatter(flat: Float32Array, values: ReadonlyMap<string, Float32Array>): void {
    for (const [name, data] of values) {
      const { offset, count } = this.get(name);
      if (data.length !== count) {
        throw new ShapeError(`parameter "${name}" has ${count} values, ${data.length} were given`);
      }
      flat.set(data, offset);
    }
  }

  /** The named values of a flat array, copied. */
  gather(flat: Float32Array): Map<string, Float32Array> {
    return new Map(this.parameters.map((p) => [p.name, flat.slice(p.offset, p.offset + p.count)]));
  }
}

/** All that training changes: the flat vectors of a checkpoint. */
export interface FlatState {
  readonly parameters: Float32Array;
  readonly m: Float32Array;
  readonly v: Float32Array;
  /** What is carried from step to step beside parameters and moments; see `StepWork.states`. */
  readonly states: Float32Array;
  /** What the student teaches itself with, where that follows it; absent in what training begins with: it is then as the parameters. */
  readonly copy?: Float32Array;
}
