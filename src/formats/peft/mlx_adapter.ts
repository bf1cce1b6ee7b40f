/**
 * Adapters as mlx-lm (https://github.com/ml-explore/mlx-lm) keeps them: adapters.safetensors with `lora_a` [in, rank] and `lora_b`
 * [rank, out] of each layer, also `m` [out] with DoRA, and adapter_config.json, which says what mlx-lm puts where before it loads them.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { writeFolderAtomically, writeTextAtomically } from "../files.ts";
import { pythonJson } from "../python_json.ts";
import { type SafetensorsSpec, writeSafetensors } from "../safetensors/write.ts";
import type { UniformLora, UniformLoraLayer } from "./uniform_lora.ts";

/** An adapter to be written. */
export interface MlxAdapter {
  /** Path or name of the base model; mlx-lm keeps it, but is told the model when it loads the adapter. */
  readonly model: string;
  /** Either all layers have magnitudes (DoRA), or none. */
  readonly lora: UniformLora;
  readonly dropout: number;
  /** Decoder layers of the model, adapted or not. */
  readonly modelLayers: number;
}

/**
 * Writes an adapter folder for `mlx_lm.generate --adapter-path`, whole or not at all.
 *
 * @param options.replace Allows a folder that is already there.
 */
export async function writeMlxAdapter(
  folder: string,
  adapter: MlxAdapter,
  options: { replace?: boolean } = {},
): Promise<void> {
  const { model, lora, dropout, modelLayers } = adapter;
  const tensors = new Map(lora.layers.flatMap((layer) => layerTensors(layer, lora.rank)));
  const config = {
    fine_tune_type: lora.layers.some((l) => l.magnitude) ? "dora" : "lora",
    lora_parameters: { dropout, keys: keysOf(lora, modelLayers), rank: lora.rank, scale: lora.scale },
    model,
    num_layers: modelLayers - Math.min(...lora.layers.map(({ path }) => placeOf(path).layer)),
  };
  await writeFolderAtomically(folder, async (temporary) => {
    const specs = [...tensors].map(([name, { shape }]): SafetensorsSpec => ({ name, dtype: "F32", shape }));
    await writeSafetensors(
      join(temporary, "adapters.safetensors"),
      specs,
      ({ name }) => tensors.get(name)!.data,
      { format: "mlx" },
    );
    await writeTextAtomically(
      join(temporary, "adapter_config.json"),
      pythonJson(config, ["dropout", "scale"]),
    );
  }, options);
}

interface Matrix {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

function layerTensors(
  { path, inFeatures, outFeatures, a, b, magnitude }: UniformLoraLayer,
  rank: number,
): [string, Matrix][] {
  return [
    [`${path}.lora_a`, { shape: [inFeatures, rank], data: transposed(a, rank, inFeatures) }],
    [`${path}.lora_b`, { shape: [rank, outFeatures], data: transposed(b, outFeatures, rank) }],
    ...(magnitude ? [[`${path}.m`, { shape: [outFeatures], data: magnitude }] as [string, Matrix]] : []),
  ];
}

function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j]!;
  }
  return result;
}

/** Decoder layer of a module, and its name within it. */
function placeOf(path: string): { layer: number; name: string } {
  const [, layer, name] = /^model\.(?:layers|h)\.(\d+)\.(.+)$/.exec(path)!;
  return { layer: Number(layer), name: name! };
}

/**
 * mlx-lm takes a key for a module's name within each of the last `num_layers` layers, and for a whole path in the model: the names
 * where all of these layers have the same modules adapted, as mlx-lm's own adapters do; else the paths.
 */
function keysOf({ layers }: UniformLora, modelLayers: number): string[] {
  const names = new Map<number, string[]>();
  for (const { path } of layers) {
    const { layer, name } = placeOf(path);
    names.set(layer, [...names.get(layer) ?? [], name]);
  }
  const sets = [...names.values()].map((list) => list.sort());
  const reachesLast = Math.min(...names.keys()) + names.size === modelLayers;
  const alike = sets.every((list) => list.join() === sets[0]!.join());
  return reachesLast && alike ? sets[0]! : layers.map(({ path }) => path);
}
