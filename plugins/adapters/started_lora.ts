/**
 * LoRA that begins from factors A0, B0 of the weight: y = W x + s (B A x - B0 A0 x). The papers subtract s B0 A0 from the base weight
 * once; here it stays a term of its own, which is the same function, is exact where the base is quantised, and leaves the base as it
 * is. So the update is a plain LoRA of twice the rank at any time: A' = [A; A0], B' = [B, -B0].
 *
 * @module
 */
import { z } from "zod";
import {
  type AdaptedLayer,
  type Adapter,
  type AdapterSettings,
  CONTRACT_VERSION,
  defineAdapter,
  type LinearAlgebra,
  type ParameterDefinition,
  PluginError,
} from "../../src/registry/contract.ts";
import { add, linear, scale } from "../../src/registry/tensor_ops.ts";
import { addLowRank, loraScale } from "./lora.ts";
import { below, transpose } from "./low_rank.ts";

/** Computes A0 [rank, in] and B0 [out, rank] from a weight [out, in]. */
export type Start = (
  weight: Float32Array,
  layer: AdaptedLayer,
  linalg: LinearAlgebra,
  scale: number,
) => { a: Float32Array; b: Float32Array };

/** The adapter of a start. */
export function startedLora(
  { id, start, ...about }: { id: string; description: string; source: string; start: Start },
): Adapter {
  const parameters = (layer: AdaptedLayer, settings: AdapterSettings): ParameterDefinition[] => {
    const { rank, inFeatures, outFeatures } = layer;
    if (rank > Math.min(inFeatures, outFeatures)) {
      throw new PluginError(
        id,
        `rank ${rank} is more than ${layer.path} [${outFeatures}, ${inFeatures}] has`,
        { hint: "lower adapter.rank, or give that layer a lower one in adapter.rankPattern" },
      );
    }
    const factor = (which: "a" | "b", name: string, trainable: boolean): ParameterDefinition => ({
      name,
      suffix: trainable ? `${id}_${name}.weight` : `${id}_${name}`,
      shape: which === "a" ? [rank, inFeatures] : [outFeatures, rank],
      initialisation: {
        kind: "fromWeight",
        compute: (weight, layer, linalg) => start(weight, layer, linalg, loraScale(layer, settings))[which],
      },
      group: name,
      trainable,
    });
    return [
      factor("a", "A", true),
      factor("b", "B", true),
      factor("a", "A0", false),
      factor("b", "B0", false),
    ];
  };
  return defineAdapter({
    id,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    ...about,
    options: z.strictObject({}),
    settings: ["alpha", "rslora", "loraPlusRatio"],
    suffixes: [`${id}_A.weight`, `${id}_B.weight`, `${id}_A0`, `${id}_B0`],
    parameters,
    groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
    forward: ({ x, base, parameter, layer, settings }) => {
      const s = loraScale(layer, settings);
      const update = (a: string, b: string, factor: number) =>
        linear(scale(linear(x, parameter(a)), factor), parameter(b));
      return add(add(base(), update("A", "B", s)), update("A0", "B0", -s));
    },
    merge: (weight, { parameter, layer, settings }) => {
      const { a, b } = doubled(parameter, layer);
      return addLowRank(weight, a, b, loraScale(layer, settings), layer);
    },
    plainLora: ({ parameter, layer, settings }) => ({
      rank: 2 * layer.rank,
      scale: loraScale(layer, settings),
      ...doubled(parameter, layer),
    }),
  });
}

/** A' = [A; A0] and B' = [B, -B0]. */
function doubled(parameter: (name: string) => Float32Array, { rank, outFeatures }: AdaptedLayer) {
  const columns = (name: string) => transpose(parameter(name), outFeatures, rank);
  const b = below(columns("B"), columns("B0").map((v) => -v));
  return { a: below(parameter("A"), parameter("A0")), b: transpose(b, 2 * rank, outFeatures) };
}
