/**
 * The contract of model families: how a config.json becomes the description of a decoder.
 *
 * What a decoder computes is data (see `DecoderDescription`); one function traces all of them. Where that does not reach, a family brings a
 * decoder or a head of its own.
 *
 * @module
 */
import { noOptions, type OptionsSchema, type PluginHeader } from "../base/plugin.ts";
import type { DescribedConfig, LayerDescription } from "../models/decoder/description.ts";
import type { FamilyNames, ModelFamily, Narrowing } from "../models/family.ts";
import type { Fields } from "../models/fields.ts";

/** How a family is written. */
export interface FamilyDefinition extends Omit<PluginHeader, "options"> {
  /**
   * The classes of transformers that it computes as, each with its `model_type`: `{FalconForCausalLM: "falcon"}`. None may be one that
   * Limbeck or another plugin reads.
   */
  readonly architectures: Readonly<Record<string, string>>;
  /** The embedding's tensor, what stands before the number of a layer, and the head. */
  readonly names: FamilyNames;
  /** Fields that its configs have and that change nothing that is computed. Any other that nobody reads is refused by its name. */
  readonly ignored?: readonly string[];
  /**
   * Reads a config of one of its architectures.
   *
   * @throws {InputError} on a field that would change the computation and is not understood
   */
  describe(fields: Fields, architecture: string): DescribedConfig;
  /** Fields with an entry for each layer that configs may leave to a rule, spelled out: written where layers are left out. */
  layerFields?(layers: readonly LayerDescription[]): Record<string, unknown>;
  /** How its layers are made narrower; absent where they cannot be. */
  readonly narrowing?: Narrowing;
  /** Names of tensors that its files may hold and that are computed from the config. */
  readonly buffers?: RegExp;
  /** Traces hidden states after the final norm; when absent, what the description says is traced. */
  readonly decoder?: ModelFamily<DescribedConfig>["decoder"];
  /** Traces logits of hidden states; when absent, what the description says is traced. */
  readonly head?: ModelFamily<DescribedConfig>["head"];
  /** Tables made on the host that its own decoder asks for, beside the rotary ones of the description. */
  readonly tables?: ModelFamily<DescribedConfig>["tables"];
}

/** A registered family. */
export interface Family extends FamilyDefinition, PluginHeader {
  readonly kind: "family";
  readonly options: OptionsSchema;
}

/**
 * A model family.
 *
 * @example A Llama whose files call it by another name
 * ```ts
 * import { CONTRACT_VERSION, decoder, defineFamily } from "./contract.ts";
 *
 * export default defineFamily({
 *   id: "ada/alpaca",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   architectures: { AlpacaForCausalLM: "alpaca" },
 *   names: decoder.USUAL_NAMES,
 *   describe(fields, architecture) {
 *     fields.choice("hidden_act", decoder.SILU);
 *     const { config, rotary } = decoder.parseDecoderConfig(fields, architecture, { grouping: "none", ropeTheta: 10_000 });
 *     const layer = decoder.usualLayer(config, rotary);
 *     return {
 *       ...config,
 *       description: { layers: decoder.everyLayer(config, () => layer), finalNorm: decoder.finalNorm(config) },
 *     };
 *   },
 * });
 * ```
 */
export function defineFamily(definition: FamilyDefinition): Family {
  return { ...definition, options: noOptions, kind: "family" };
}
