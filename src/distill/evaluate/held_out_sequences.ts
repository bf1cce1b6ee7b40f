/**
 * Models measured sequence by sequence on the held-out sets of a recipe, whichever recipe or merge they come from.
 *
 * @module
 */
import { familiesOf } from "../../registry/families.ts";
import { InputError } from "../../base/errors.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { type TextTokenizer, vocabularyDifference } from "../../text/tokenizer.ts";
import type { RunSource } from "../checkpoint/run_student.ts";
import { prepareRun } from "../inputs/prepare.ts";
import type { SampleSet } from "../inputs/sample_sets.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { OpenedModel, type SequenceLoss } from "./measured_model.ts";

/** What is found on one held-out set. */
export interface SetSequences {
  readonly name: string;
  readonly sequences: readonly SequenceLoss[];
}

/** The held-out sets of a recipe, and a device to measure on, which is opened when it is needed. */
export class HeldOutSequences {
  readonly #sets: readonly SampleSet[];
  readonly #tokenizer: TextTokenizer;
  readonly #contextLength: number;
  #gpu: Gpu | undefined;

  private constructor(sets: readonly SampleSet[], tokenizer: TextTokenizer, contextLength: number) {
    [this.#sets, this.#tokenizer, this.#contextLength] = [sets, tokenizer, contextLength];
  }

  /**
   * Reads the held-out sets of a recipe.
   *
   * @throws {InputError} whatever is wrong with the recipe's models and data
   */
  static async open(recipe: Recipe, registry: Registry): Promise<HeldOutSequences> {
    const prepared = await prepareRun(recipe, undefined, familiesOf(registry));
    prepared.close();
    return new HeldOutSequences(prepared.sets.heldOut, prepared.tokenizer, recipe.data.contextLength);
  }

  /**
   * Looks whether a model can be measured on them.
   *
   * @throws {InputError} it cannot be opened, was trained for fewer positions, or means other tokens by its ids
   */
  async check(model: string, registry: Registry): Promise<void> {
    (await this.#opened(model, registry)).close();
  }

  /**
   * Measures a model on each set.
   *
   * @param source A folder or GGUF file; or a run, for its student with its adapter
   * @throws {InputError} as {@linkcode check}
   * @throws {DeviceError} without a device, or where memory does not suffice
   */
  async measure(source: string | RunSource, registry: Registry): Promise<SetSequences[]> {
    const opened = await this.#opened(source, registry);
    try {
      this.#gpu ??= await openGpu();
      const samples = this.#sets.flatMap((set) => set.samples);
      return await opened.measure({ contextLength: this.#contextLength }, samples, async (program) => {
        const found: SetSequences[] = [];
        for (const { name, samples } of this.#sets) {
          found.push({ name, sequences: await program.sequences(samples) });
        }
        return found;
      }, this.#gpu);
    } finally {
      opened.close();
    }
  }

  async #opened(source: string | RunSource, registry: Registry): Promise<OpenedModel> {
    const opened = await OpenedModel.open(source, registry);
    try {
      opened.contextLength(this.#contextLength);
      const difference = vocabularyDifference(this.#tokenizer, opened.tokenizer);
      if (difference) {
        throw new InputError(`has another vocabulary than the recipes' teacher: ${difference}`, {
          where: opened.model.path,
          hint: "Losses a token of different vocabularies mean different things.",
        });
      }
      return opened;
    } catch (error) {
      opened.close();
      throw error;
    }
  }

  /** Frees the device. */
  close(): void {
    this.#gpu?.destroy();
    this.#gpu = undefined;
  }
}
