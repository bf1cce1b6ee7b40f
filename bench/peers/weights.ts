/**
 * Reading a case's model for the libraries of the comparison.
 *
 * @module
 */
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openHuggingFaceFolder } from "../../src/formats/huggingface/huggingface.ts";
import type { DecoderConfig } from "../../src/models/config.ts";
import { readArchitecture } from "../../src/models/families.ts";

/** A model whose tensors went to a library one after another, so that no second copy of all of them is held. */
export interface LoadedModel<T> {
  readonly config: DecoderConfig;
  /** By Hugging Face name. */
  readonly weights: ReadonlyMap<string, T>;
}

/**
 * Reads the tensors of a model as f32.
 *
 * @param upload Makes a library's array of a tensor; linear weights are [out, in]
 */
export async function loadModel<T>(
  folder: string,
  upload: (data: Float32Array<ArrayBuffer>, shape: number[], name: string) => T,
): Promise<LoadedModel<T>> {
  const source = await openHuggingFaceFolder(folder);
  try {
    const { config, tensors } = readArchitecture(source.config, `${folder}/config.json`);
    if (!config.tiedHead || [...tensors.keys()].some((name) => name.endsWith(".bias"))) {
      throw new Error(`${folder}: the comparison is written for a tied head and linear layers without bias`);
    }
    const weights = new Map<string, T>();
    for (const [name, shape] of tensors) {
      const { dtype, data } = await source.read(name);
      weights.set(name, upload(toFloat32(dtype, data), shape, name));
    }
    return { config, weights };
  } finally {
    source.close();
  }
}

/** Cosines and sines of the rotary angles of positions 0 to T - 1, [T, headDim / 2] each, computed in f64. */
export function rotaryAngles(
  { headDim, inverseFrequencies }: DecoderConfig,
  positions: number,
): { cos: Float32Array<ArrayBuffer>; sin: Float32Array<ArrayBuffer> } {
  const half = headDim / 2;
  const angle = (i: number) => Math.floor(i / half) * inverseFrequencies[i % half];
  return {
    cos: Float32Array.from({ length: positions * half }, (_, i) => Math.cos(angle(i))),
    sin: Float32Array.from({ length: positions * half }, (_, i) => Math.sin(angle(i))),
  };
}
