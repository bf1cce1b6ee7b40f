/**
 * The shapes of a student that a run trains at once: which layers each keeps, times how wide they are.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { checkShapedModel, readShapeFile } from "../../formats/shape_file.ts";
import type { Architecture } from "../../models/architecture.ts";
import type { DecoderConfig } from "../../models/config.ts";
import type { ShapesRecipe } from "../recipe/recipe.ts";
import { checkWidthCut, type WidthCut, widthCutOf } from "./width_cut.ts";

/** One shape of a student. */
export interface StudentShape {
  /** Layers that are kept, from 0 and rising. */
  readonly layers: readonly number[];
  /** Which of the widths of its {@linkcode ShapeSpace}. */
  readonly width: number;
}

/** A width that all kept layers of a shape have. */
export interface StudentWidth {
  /** Part that stays; 1 is all. */
  readonly share: number;
  /** Of every layer of the whole model; absent where nothing is cut. */
  readonly cut?: WidthCut;
}

/** All shapes: every one of the depths in every one of the widths. */
export interface ShapeSpace {
  /** Kept layers, from all to fewest. */
  readonly depths: readonly (readonly number[])[];
  /** From the whole width to the narrowest. */
  readonly widths: readonly StudentWidth[];
}

/**
 * The shapes of a recipe.
 *
 * @param identity Hash of the model's weights and config
 * @param path The model, for errors
 * @throws {InputError} where a layer does not exist, or a shape file is not of this model
 */
export async function readShapeSpace(
  { layers, widths = [] }: ShapesRecipe,
  config: DecoderConfig,
  identity: () => Promise<string>,
  path: string,
): Promise<ShapeSpace> {
  const all = Array.from({ length: config.layers }, (_, i) => i);
  for (const [i, kept] of layers.entries()) {
    const last = kept.at(-1)!;
    if (last < config.layers && kept.length < config.layers) continue;
    throw new InputError(
      last < config.layers
        ? "keeps every layer; the whole model is one of the shapes anyway"
        : `names layer ${last}; the model has layers 0 to ${config.layers - 1}`,
      { where: `recipe student.shapes.layers.${i}`, hint: "`limbeck shrink` says which layers to keep." },
    );
  }
  const narrower: StudentWidth[] = [];
  for (const { width, shape: file } of widths) {
    const shape = await readShapeFile(file);
    checkShapedModel(shape, await identity(), path, file);
    if (!shape.width || shape.keptLayers.length !== config.layers) {
      throw new InputError(
        shape.width
          ? `keeps ${shape.keptLayers.length} of ${config.layers} layers; which ones is said by student.shapes.layers`
          : "cuts no heads or channels",
        { where: file, hint: "Make one with `limbeck shrink MODEL --width SHARE --shape FILE`." },
      );
    }
    const cut = widthCutOf(shape.width, file);
    checkWidthCut(cut, config, config.layers, file);
    narrower.push({ share: width, cut });
  }
  return shapeSpace([all, ...layers], [{ share: 1 }, ...narrower]);
}

/** A space of depths and widths in any order; the whole model is among them. */
export function shapeSpace(
  depths: readonly (readonly number[])[],
  widths: readonly StudentWidth[],
): ShapeSpace {
  return {
    depths: [...depths].sort((a, b) => b.length - a.length),
    widths: [...widths].sort((a, b) => b.share - a.share),
  };
}

/** The whole model. */
export function fullShape({ depths }: ShapeSpace): StudentShape {
  return { layers: depths[0]!, width: 0 };
}

/** The shape with the fewest layers and the narrowest width. */
export function smallestShape({ depths, widths }: ShapeSpace): StudentShape {
  return { layers: depths.at(-1)!, width: widths.length - 1 };
}

/** Every shape, from the whole model on. */
export function allShapes({ depths, widths }: ShapeSpace): StudentShape[] {
  return depths.flatMap((layers) => widths.map((_, width) => ({ layers, width })));
}

/** Place of a shape among {@linkcode allShapes}, the whole width when absent; -1 where it is none of them. */
export function shapeIndex(
  { layers, width = 0 }: Pick<StudentShape, "layers"> & { readonly width?: number | undefined },
  space: ShapeSpace,
): number {
  return allShapes(space).findIndex((s) => s.width === width && `${s.layers}` === `${layers}`);
}

/** Values of a shape's weights, biases in place of what was cut left aside. */
export function shapeParameters(
  architecture: Architecture,
  { layers, width }: StudentShape,
  { widths }: ShapeSpace,
): number {
  const { hiddenSize, headDim, attentionHeads, keyValueHeads, intermediateSize } = architecture.config;
  const { cut } = widths[width]!;
  const whole = architecture.with({ layers }).parameterCount;
  if (!cut) return whole;
  const queries = attentionHeads / keyValueHeads;
  const groupSize = hiddenSize * headDim * (2 * queries + 2);
  const channelSize = hiddenSize * (1 + architecture.family.narrowing!.projections.mlpInputs.length);
  return layers.reduce(
    (left, layer) =>
      left - groupSize * (keyValueHeads - cut.groups[layer]!.length) -
      channelSize * (intermediateSize - cut.channels[layer]!.length),
    whole,
  );
}

/** How people write a shape: `depth=4,width=0.75`. */
export function shapeName({ layers, width }: StudentShape, { widths }: ShapeSpace): string {
  return `depth=${layers.length},width=${widths[width]!.share}`;
}

/**
 * The shape that people call so.
 *
 * @param name `depth=4,width=0.75`; what is left out is whole
 * @throws {InputError} if the run has no such shape
 */
export function shapeNamed(name: string, space: ShapeSpace): StudentShape {
  const wanted = new Map<string, number>();
  for (const part of name.split(",")) {
    const [, key, value] = /^\s*(depth|width)\s*=\s*(\d+(?:\.\d+)?)\s*$/.exec(part) ?? [];
    if (key === undefined || wanted.has(key)) throw unknown(name, space);
    wanted.set(key, Number(value));
  }
  const { depth = space.depths[0]!.length, width = 1 } = Object.fromEntries(wanted);
  const layers = space.depths.find((kept) => kept.length === depth);
  const index = space.widths.findIndex(({ share }) => share === width);
  if (!layers || index < 0) throw unknown(name, space);
  return { layers, width: index };
}

function unknown(name: string, { depths, widths }: ShapeSpace): InputError {
  return new InputError(`"${name}" is no shape of the run`, {
    where: "--shape",
    hint: `It has the depths ${depths.map((kept) => kept.length).join(", ")} and the widths ${
      widths.map(({ share }) => share).join(", ")
    }: write such as depth=${depths.at(-1)!.length},width=${widths.at(-1)!.share}.`,
  });
}
