/**
 * Which heads and which channels of the MLP a narrower model keeps, and what stands for those it has lost.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { ShapeWidth } from "../../formats/shape_file.ts";
import type { DecoderConfig } from "../../models/config.ts";

/** A cut through the width of a model, layer by layer. */
export interface WidthCut {
  /** Groups of queries with their head of keys and values that each layer keeps, from 0 and rising. */
  readonly groups: readonly (readonly number[])[];
  /** Channels of the MLP that each layer keeps, from 0 and rising. */
  readonly channels: readonly (readonly number[])[];
  /** What is added to the outputs of each layer in place of what its lost inputs gave on average; nothing when absent. */
  readonly compensation?: readonly LayerCompensation[];
}

/** Biases of a layer, each [hiddenSize]. */
export interface LayerCompensation {
  /** Of the projection behind attention (`o_proj`). */
  readonly attention: Float64Array;
  /** Of the projection out of the MLP (`down_proj`). */
  readonly mlp: Float64Array;
}

/**
 * Requires that a cut is one of a model with so many layers.
 *
 * @throws {InputError} naming the layer that does not fit
 */
export function checkWidthCut(cut: WidthCut, config: DecoderConfig, layers: number, where: string): void {
  const wrong = (message: string): never => {
    throw new InputError(message, { where, hint: "It was made for another model: make it for this one." });
  };
  const lists: readonly (readonly [string, readonly (readonly number[])[], number])[] = [
    ["groups", cut.groups, config.keyValueHeads],
    ["channels", cut.channels, config.intermediateSize],
  ];
  for (const [what, byLayer, count] of lists) {
    if (byLayer.length !== layers) {
      wrong(`the cut has ${what} of ${byLayer.length} layers; the model has ${layers}`);
    }
    byLayer.forEach((kept, layer) => {
      const fits = kept.every((k, i) => Number.isInteger(k) && k > (kept[i - 1] ?? -1) && k < count);
      if (!fits) wrong(`the ${what} of layer ${layer} must rise from 0 to at most ${count - 1}`);
    });
  }
  if (!cut.compensation) return;
  if (cut.compensation.length !== layers) {
    wrong(`the cut compensates ${cut.compensation.length} layers; the model has ${layers}`);
  }
  cut.compensation.forEach(({ attention, mlp }, layer) => {
    for (const bias of [attention, mlp]) {
      if (bias.length !== config.hiddenSize) {
        wrong(`the biases of layer ${layer} have ${bias.length} values, not ${config.hiddenSize}`);
      }
      if (!bias.every(Number.isFinite)) wrong(`a bias of layer ${layer} is not a finite number`);
    }
  });
}

/** Whether a cut leaves everything where it is. */
export function cutsNothing({ groups, channels }: WidthCut, config: DecoderConfig): boolean {
  return groups.every((kept) => kept.length === config.keyValueHeads) &&
    channels.every((kept) => kept.length === config.intermediateSize);
}

/** Layers that a cut leaves without any group, or without any channel. */
export function emptiedLayers({ groups, channels }: WidthCut): { attention: number[]; mlp: number[] } {
  const empty = (byLayer: readonly (readonly number[])[]) =>
    byLayer.flatMap((kept, layer) => kept.length === 0 ? [layer] : []);
  return { attention: empty(groups), mlp: empty(channels) };
}

/** A cut for a shape file. */
export function shapeWidthOf({ groups, channels, compensation }: WidthCut): ShapeWidth {
  const text = (values: Float64Array) =>
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength).toBase64();
  if (!compensation) return { groups, channels };
  return {
    groups,
    channels,
    compensation: compensation.map(({ attention, mlp }) => ({ attention: text(attention), mlp: text(mlp) })),
  };
}

/**
 * A cut from a shape file. Whether it is one of a given model, {@linkcode checkWidthCut} says.
 *
 * @throws {InputError} if a bias is no list of f64 values
 */
export function widthCutOf({ groups, channels, compensation }: ShapeWidth, where: string): WidthCut {
  if (!compensation) return { groups, channels };
  const values = (text: string, at: string): Float64Array => {
    try {
      // Throws where the text is no base64, and where its bytes are no whole number of values.
      return new Float64Array(Uint8Array.fromBase64(text).buffer);
    } catch (cause) {
      throw new InputError(`width.compensation.${at} must be the base64 of f64 values`, {
        where,
        hint: "The file is damaged: make it again.",
        cause,
      });
    }
  };
  return {
    groups,
    channels,
    compensation: compensation.map(({ attention, mlp }, layer) => ({
      attention: values(attention, `${layer}.attention`),
      mlp: values(mlp, `${layer}.mlp`),
    })),
  };
}
