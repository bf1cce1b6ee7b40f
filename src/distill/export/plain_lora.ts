/**
 * An adapter as plain LoRA, and that folded to one rank and one scale.
 *
 * @module
 */
import type { UniformLora, UniformLoraLayer } from "../../formats/peft/uniform_lora.ts";
import type { AdaptedLayer, AdapterValues, PlainLora } from "../../registry/contract.ts";
import { expertValues } from "../trained/expert_values.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";

/** W + scale B A on one layer, with the magnitudes of DoRA where it is that. */
export interface PlainLayer
  extends PlainLora, Pick<AdaptedLayer, "path" | "inFeatures" | "outFeatures" | "experts"> {
  readonly magnitude?: Float32Array;
}

/** The plain LoRA of every layer of an adapter that has one. A layer of experts is as many as an expert has modules in it. */
export function plainLayers(
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
): PlainLayer[] {
  return adapter.layers.flatMap((layer) => {
    const own = adapter.values(layer.path, values);
    if (layer.experts !== undefined) return expertModules(adapter, { ...layer, experts: layer.experts }, own);
    return [{ ...layer, ...adapter.plugin.plainLora!(own) }];
  });
}

/** Modules that lie one above the other in the weight of an expert, each with the rows of B that are its own. */
function expertModules(
  { plugin, model: { architecture } }: ModelAdapter,
  layer: AdaptedLayer & { readonly experts: number },
  values: AdapterValues,
): PlainLayer[] {
  const { experts, inFeatures } = layer;
  const of = Array.from(
    { length: experts },
    (_, e) => plugin.plainLora!(expertValues(values, e, experts)),
  );
  const [{ rank, scale }] = of as [PlainLora];
  const { modules } = architecture.expertLayers.find(({ name }) => name === layer.path)!;
  let first = 0;
  return modules(0).map((path) => {
    const rows = architecture.tensors.get(`${path}.weight`)![0]!;
    const from = first * rank;
    first += rows;
    return {
      ...{ path, experts, inFeatures, outFeatures: rows, rank, scale },
      a: oneAfterAnother(of.map(({ a }) => a)),
      b: oneAfterAnother(of.map(({ b }) => b.subarray(from, from + rows * rank))),
    };
  });
}

function oneAfterAnother(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The same updates with the largest rank and the first scale: rows and columns of zeros are added, B takes up the rest of the scale. */
export function uniform(layers: readonly PlainLayer[]): UniformLora {
  const rank = Math.max(...layers.map((l) => l.rank));
  // llama.cpp takes a scale of 0 for 1.
  const scale = layers.find((l) => l.scale !== 0)?.scale ?? 1;
  return { rank, scale, layers: layers.map((layer) => padded(layer, rank, scale)) };
}

function padded(plain: PlainLayer, rank: number, scale: number): UniformLoraLayer {
  const { path, inFeatures, outFeatures, experts } = plain;
  const count = experts ?? 1;
  const [a, b] = [new Float32Array(count * rank * inFeatures), new Float32Array(count * outFeatures * rank)];
  const each = plain.rank * inFeatures;
  for (let e = 0; e < count; e++) a.set(plain.a.subarray(e * each, (e + 1) * each), e * rank * inFeatures);
  for (let o = 0; o < count * outFeatures; o++) {
    for (let r = 0; r < plain.rank; r++) {
      b[o * rank + r] = plain.b[o * plain.rank + r]! * (plain.scale === scale ? 1 : plain.scale / scale);
    }
  }
  const magnitude = plain.magnitude && { magnitude: new Float32Array(plain.magnitude) };
  return { path, ...(experts === undefined ? {} : { experts }), inFeatures, outFeatures, a, b, ...magnitude };
}
