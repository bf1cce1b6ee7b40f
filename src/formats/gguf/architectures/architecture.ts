/**
 * What the GGUF files of an architecture of llama.cpp hold, as data: names, layouts, and which hyperparameters stand for which fields of a
 * Hugging Face config.json. The sources are llama.cpp's own: what its converters write (`conversion/`), and what it computes of it
 * (`src/models/`).
 *
 * @module
 */
import type { GgufHyperparameters } from "../hyperparameters.ts";
import type { GgufKeys, KeyWriter } from "./keys.ts";
import type { TensorNames } from "./names.ts";
import type { RowOrder } from "./rows.ts";

/** An architecture of llama.cpp. */
export interface GgufArchitecture {
  /** `general.architecture`, and what its keys begin with. */
  readonly name: string;
  readonly names: TensorNames;
  /** Tensors of a layer whose rows have another order in the file, by their names there. */
  readonly rows?: Readonly<Record<string, RowOrder>>;
  /** Whether norms take the mean away too, and their epsilon has a name of its own. */
  readonly layerNorm?: boolean;
  /** Whether norms multiply by one more than their weight, so that the file has weights with the one added. */
  readonly normsPlusOne?: boolean;
  /** Whether a model's rotary frequencies may be any: `rope_freqs.weight` has what they are divided by. */
  readonly ropeFactors?: boolean;
  /** Whether biases may be missing in the file, each of which is zeros then; a config has all of them or none. */
  readonly optionalBiases?: boolean;
  /** Whether the heads must be as wide together as the hidden states. */
  readonly wholeWidth?: boolean;
  /** Whether `output.weight` is in every file, a tied head's too. */
  readonly ownHead?: boolean;
  /**
   * The scale of scores that llama.cpp takes, where that is its own rule; another scale of a model is multiplied into the tensor of a layer
   * that `scaled` names.
   */
  readonly scale?: { readonly of: (config: GgufHyperparameters) => number; readonly scaled: string };
  /**
   * config.json of a file, without the fields that all have.
   *
   * @throws {InputError} naming a key that is missing or whose value is not supported
   */
  read(keys: GgufKeys): Record<string, unknown>;
  /** Hyperparameters of a model, beside those that every file has. */
  write(config: GgufHyperparameters, keys: KeyWriter): void;
  /** Whether llama.cpp attends to everything in spite of a window that the file has. */
  readonly windowUnheeded?: boolean;
  /** Tensors made of a config, by their names, f32. */
  tables?(config: GgufHyperparameters): ReadonlyMap<string, Float32Array>;
}
