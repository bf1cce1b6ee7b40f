/**
 * The values of a tensor as the files of an architecture have them.
 *
 * @module
 */
import { toFloat32 } from "../dtype.ts";
import type { TensorData } from "../safetensors/safetensors.ts";
import type { GgufArchitecture } from "./architectures.ts";
import type { GgufName } from "./architectures/names.ts";
import { storedRows, toStored } from "./architectures/rows.ts";
import { type GgufHyperparameters, ofLayers } from "./hyperparameters.ts";

/**
 * Rows in the file's order, norms with the one that they add, queries with the scale of scores that the architecture has no key for.
 *
 * @param name Where the tensor goes
 * @returns f32, in a buffer of its own where anything changes
 */
export function storedValues(
  architecture: GgufArchitecture,
  config: GgufHyperparameters,
  { name, module }: GgufName,
  { dtype, shape, data }: TensorData,
): Float32Array<ArrayBuffer> {
  let values = toFloat32(dtype, data);
  if (architecture.normsPlusOne && /norm\.weight$/.test(name)) values = values.map((value) => value + 1);
  const scale = module === undefined ? 1 : scaleOf(architecture, config, module);
  if (scale !== 1) values = values.map((value) => value * scale);
  return module === undefined ? values : storedOrder(architecture, config, module, shape[0]!, values);
}

/** Rows of a tensor, or those of the second factor of its update, in the order of the file. */
export function storedOrder(
  { rows }: GgufArchitecture,
  config: GgufHyperparameters,
  module: string,
  count: number,
  values: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  const order = rows?.[module] && storedRows(rows[module], count, config);
  return order ? toStored(values, order) : values;
}

/** What the tensors of a module are multiplied by, so that scores are scaled as in the model. */
export function scaleOf(
  { scale }: GgufArchitecture,
  config: GgufHyperparameters,
  module: string,
): number {
  if (!scale || module !== scale.scaled) return 1;
  const own = ofLayers(config, ({ attention }) => attention.scale) ?? scale.of(config);
  const ratio = own / scale.of(config);
  return Math.abs(ratio - 1) < 1e-12 ? 1 : ratio;
}
