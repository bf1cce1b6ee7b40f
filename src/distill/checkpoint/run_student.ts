/**
 * The student of a run with what was trained on it, as of the last checkpoint or of another.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { familiesOf } from "../../registry/families.ts";
import { InputError } from "../../base/errors.ts";
import { BUFFER_USAGE } from "../../gpu/buffer_usage.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { ModelHooks } from "../../models/context.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";
import { attachOf, partsOf, type Trained } from "../trained/attach.ts";
import { listCheckpoints, newestState, readCheckpoint } from "./checkpoint.ts";
import type { Model } from "../inputs/models.ts";
import { FLAT } from "../trained/parameters.ts";
import { openStudent } from "../inputs/prepare.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { Trainables } from "../trained/trainables.ts";
import { trainedStudent, valuesOf } from "../trained/trained_student.ts";
import type { TrainedTensors } from "../trained/trained_tensors.ts";

/** A run by its folder. */
export interface RunSource {
  readonly folder: string;
  readonly recipe: Recipe;
  readonly registry: Registry;
  /** Step of the checkpoint that is meant; the last one where it is absent. */
  readonly step?: number;
}

/** A run's student, its files open, with all that was trained of it. */
export class RunStudent implements Trained {
  readonly model: Model;
  readonly adapter?: ModelAdapter;
  readonly tensors?: TrainedTensors;
  /** Steps the run had done. */
  readonly step: number;
  readonly #trainables: Trainables;
  readonly #trained: Float32Array;
  readonly #seed: number;

  private constructor(
    model: Model,
    { adapter, tensors }: Trained,
    trainables: Trainables,
    step: number,
    trained: Float32Array,
    seed: number,
  ) {
    this.model = model;
    if (adapter) this.adapter = adapter;
    if (tensors) this.tensors = tensors;
    this.step = step;
    this.#trainables = trainables;
    this.#trained = trained;
    this.#seed = seed;
  }

  /** @throws {InputError} without such a checkpoint, or where the student's model is not there any more */
  static async open({ folder, recipe, registry, step }: RunSource): Promise<RunStudent> {
    const checkpoints = join(folder, "checkpoints");
    const kept = await listCheckpoints(checkpoints);
    const found = step === undefined ? kept.at(-1) : kept.find((checkpoint) => checkpoint.step === step);
    if (!found) {
      throw new InputError(`the run has no checkpoint${step === undefined ? "" : ` of step ${step}`}`, {
        where: folder,
        hint: "let it run on: `limbeck resume`",
      });
    }
    const model = await openStudent(recipe, await newestState(checkpoints), familiesOf(registry));
    try {
      const trained = trainedStudent(recipe, model, registry);
      const trainables = new Trainables(partsOf(trained));
      const { flat, state } = await readCheckpoint(found.path, trainables);
      const { seed } = recipe.train;
      return new RunStudent(model, trained, trainables, state.step, flat.parameters, seed);
    } catch (error) {
      model.close();
      throw error;
    }
  }

  /** All values by name, the fixed ones made again. */
  async values(): Promise<Map<string, Float32Array>> {
    return await valuesOf(this, this.#trainables.layout.gather(this.#trained), this.#seed);
  }

  /** The hooks of what was trained, without dropout. */
  attach(graph: Graph, prompt: () => Tensor): ModelHooks {
    return attachOf(this)!(graph, (name) => this.#trainables.view(graph, name), false, prompt);
  }

  /** Adds the values that `attach` reads to a model's weights, by the name of their state. The caller destroys the buffers. */
  async upload(gpu: Gpu, weights: Map<string, GpuBuffer>): Promise<void> {
    const { fixed } = await this.#trainables.initialValues(this.#seed);
    for (const [name, data] of [[FLAT.parameters, this.#trained], [FLAT.fixed, fixed]] as const) {
      if (data.length === 0) continue;
      const buffer = gpu.createBuffer(data.byteLength, BUFFER_USAGE.storage, name);
      gpu.device.queue.writeBuffer(buffer.raw, 0, data as Float32Array<ArrayBuffer>);
      weights.set(name, buffer);
    }
  }

  close(): void {
    this.model.close();
  }
}
