/**
 * An adapter as plain LoRA, and that folded to one rank and one scale.
 *
 * @module
 */
import type { UniformLora, UniformLoraLayer } from "../../formats/peft/uniform_lora.ts";
import type { AdaptedLayer, PlainLora } from "../../registry/contract.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";

/** W + scale B A on one layer, with the magnitudes of DoRA where it is that. */
export interface PlainLayer extends PlainLora, Pick<AdaptedLayer, "path" | "inFeatures" | "outFeatures"> {
  readonly magnitude?: Float32Array;
}

/** The plain LoRA of every layer of an adapter that has one. */
export function plainLayers(
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
): PlainLayer[] {
  return adapter.layers.map((layer) => ({
    ...layer,
    ...adapter.plugin.plainLora!(adapter.values(layer.path, values)),
  }));
}

/** The same updates with the largest rank and the first scale: rows and columns of zeros are added, B takes up the rest of the scale. */
export function uniform(layers: readonly PlainLayer[]): UniformLora {
  const rank = Math.max(...layers.map((l) => l.rank));
  // llama.cpp takes a scale of 0 for 1.
  const scale = layers.find((l) => l.scale !== 0)?.scale ?? 1;
  return { rank, scale, layers: layers.map((layer) => padded(layer, rank, scale)) };
}

function padded(plain: PlainLayer, rank: number, scale: number): UniformLoraLayer {
  const { path, inFeatures, outFeatures } = plain;
  const [a, b] = [new Float32Array(rank * inFeatures), new Float32Array(outFeatures * rank)];
  a.set(plain.a);
  for (let o = 0; o < outFeatures; o++) {
    for (let r = 0; r < plain.rank; r++) {
      b[o * rank + r] = plain.b[o * plain.rank + r]! * (plain.scale === scale ? 1 : plain.scale / scale);
    }
  }
  const magnitude = plain.magnitude && { magnitude: new Float32Array(plain.magnitude) };
  return { path, inFeatures, outFeatures, a, b, ...magnitude };
}
