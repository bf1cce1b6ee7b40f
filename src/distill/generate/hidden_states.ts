/**
 * The hidden states of texts: what a model's head reads at each token, after the final norm.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { Model } from "../inputs/models.ts";
import { traceModel } from "../program/traced_model.ts";
import { passes, passStream, passTokens } from "./text_passes.ts";

const [BLOCK, HIDDEN] = ["hidden states", "hidden"];

/** The block of a model that makes them. */
function hiddenPlan(device: DeviceDescription, model: Model, length: number): Plan {
  const program = new Program();
  const graph = program.block(BLOCK);
  const stream = passStream({ block: BLOCK, length });
  graph.output(HIDDEN, traceModel(graph, "model", model, passTokens(length), stream).hidden);
  return plan(program, device);
}

/** A model ready to give them. */
export class HiddenStates {
  readonly #executable: Executable;
  readonly #length: number;
  readonly #width: number;

  private constructor(executable: Executable, length: number, width: number) {
    [this.#executable, this.#length, this.#width] = [executable, length, width];
  }

  /**
   * Compiles what gives them.
   *
   * @param weights Buffers of the model's weights by storage name
   * @param length Longest text
   */
  static async create(
    gpu: Gpu,
    model: Model,
    weights: ReadonlyMap<string, GpuBuffer>,
    length: number,
  ): Promise<HiddenStates> {
    const executable = await compile(gpu, hiddenPlan(gpu.description, model, length), { weights });
    return new HiddenStates(executable, length, model.config.hiddenSize);
  }

  /**
   * Hidden states of texts, each f32 [n, H].
   *
   * @param texts Token ids of the model's vocabulary, each at least one
   * @param onPass Called after each pass
   * @throws {InputError} if a text is empty or too long, or they are not finite
   */
  async of(texts: readonly Int32Array[], onPass?: () => void): Promise<Float32Array<ArrayBuffer>[]> {
    const width = this.#width;
    const found = texts.map(({ length }) => new Float32Array(length * width));
    const options = { block: BLOCK, length: this.#length, count: passTokens(this.#length) };
    for (const feeds of passes(this.#executable, texts, options)) {
      const back = (await this.#executable.read([HIDDEN], BLOCK)).get(HIDDEN)!.data as Float32Array;
      for (const [row, { text, position }] of feeds.entries()) {
        const state = back.subarray(row * width, (row + 1) * width);
        if (!state.every(Number.isFinite)) {
          throw new InputError(`the model's hidden states are not finite numbers at token ${position + 1}`, {
            hint: "The model's weights are damaged, or too large for f32: check the model.",
          });
        }
        found[text]!.set(state, position * width);
      }
      onPass?.();
    }
    return found;
  }

  /** Frees its cache and buffers; shared weights stay. */
  destroy(): void {
    this.#executable.destroy();
  }
}
