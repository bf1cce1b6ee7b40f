/**
 * The record of a family whose decoder is told by a description.
 *
 * @module
 */
import type { ModelFamily } from "../family.ts";
import { Fields, type RawConfig } from "../fields.ts";
import type { DescribedConfig, LayerDescription } from "./description.ts";
import { decoderTables, traceDecoder, traceHead } from "./trace.ts";

/** What sets a family apart, all of it data but the reading of its config. */
export interface DescribedFamily extends
  Pick<
    ModelFamily<DescribedConfig>,
    "name" | "architectures" | "names" | "gguf" | "narrowing" | "buffers" | "fanInFanOut"
  > {
  /** Fields that its configs have and that change nothing that is computed here, beside those of every family. */
  readonly ignored?: readonly string[];
  /** Fields with an entry for each layer that configs may leave to a rule; see `ModelFamily.layerFields`. */
  layerFields?(layers: readonly LayerDescription[]): Record<string, unknown>;
  /**
   * Reads a config of one of its architectures.
   *
   * @throws {InputError} on a field that would change the computation and is not understood
   */
  describe(fields: Fields, architecture: string): DescribedConfig;
}

/** The record. */
export function describedFamily(
  { describe, ignored = [], layerFields, ...family }: DescribedFamily,
): ModelFamily<DescribedConfig> {
  return {
    ...family,
    parse(config: RawConfig, architecture, where) {
      const fields = new Fields(config, where);
      const described = describe(fields, architecture);
      fields.refuseUnknown(family.name, ignored);
      return described;
    },
    tables: decoderTables,
    decoder: (ctx, config) => traceDecoder(ctx, config, family.names),
    head: (ctx, config, x) => traceHead(ctx, config, family.names, x),
    ...(layerFields ? { layerFields: (config) => layerFields(config.description.layers) } : {}),
    keepLayers: (config, kept) => ({
      ...config,
      layers: kept.length,
      description: { ...config.description, layers: kept.map((layer) => config.description.layers[layer]!) },
    }),
  };
}
