/**
 * A narrower model, read from the files of a wider one.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../../base/errors.ts";
import { canonicalJson } from "../../base/json.ts";
import { configOfLayers } from "../../formats/huggingface/config.ts";
import type { ModelSource } from "../../formats/model_source.ts";
import { type SelectedTensor, selectFromModel } from "../../formats/selected_source.ts";
import type { Architecture } from "../../models/architecture.ts";
import { readArchitecture } from "../../models/families.ts";
import type { LayerProjections, Narrowing, Widths } from "../../models/family.ts";
import { checkWidthCut, cutsNothing, shapeWidthOf, type WidthCut } from "./width_cut.ts";

/**
 * A model with fewer groups of heads and fewer channels. Its rows and columns are read from the source's, so nothing is written; written
 * as a folder it is an ordinary model. All layers of a file have the same widths, so layers that keep less are filled up with zeros, which
 * change nothing: rows of zeros in what makes queries, keys, values and channels, columns of zeros in what takes them. So is a number of
 * heads that does not divide the hidden size, which loaders refuse for many families.
 *
 * @param architecture Of the source
 * @param cut Of the layers that are kept, in their order
 * @param layers Layers of the source that are kept, rising; they are renumbered from 0. All when absent
 * @throws {InputError} if the cut is not one of this model, or models of its family cannot be cut
 *
 * @example
 * ```ts ignore
 * const narrow = cutModel(source, readArchitecture(source.config, source.path), { groups: [[0, 2]], channels: [[1, 5, 6]] });
 * narrow.config.num_key_value_heads; // 2
 * ```
 */
export function cutModel(
  source: ModelSource,
  architecture: Architecture,
  cut: WidthCut,
  layers: readonly number[] = Array.from({ length: architecture.config.layers }, (_, i) => i),
): ModelSource {
  const { config } = architecture;
  checkWidthCut(cut, config, layers.length, source.path);
  const narrowing = narrowingOf(architecture, source.path);
  const widths = cutWidths(architecture, cut);
  const fewer = layers.length < config.layers
    ? { ...configOfLayers(source.config, layers), ...architecture.with({ layers }).layerFields }
    : source.config;
  const narrowConfig = narrowing.config(fewer, widths);
  const narrow = readArchitecture(narrowConfig, source.path, architecture.further);
  const select = selectorOf(architecture, cut, layers, source.path);
  const tensors = new Map<string, SelectedTensor>();
  for (const [name, shape] of narrow.tensors) tensors.set(name, { ...select(name), shape });
  return selectFromModel(source, {
    config: narrowConfig,
    tensors,
    fingerprint: (of) => createHash("sha256").update(`${of} ${cutIdentity(cut, layers)}`).digest("hex"),
  });
}

/**
 * Finds for each tensor of a narrower model, by its name, what of the wider one it is.
 *
 * @param architecture Of the wider one
 * @param where The wider one, for errors
 * @throws {InputError} for a family whose layers cannot be made narrower
 */
export function selectorOf(
  architecture: Architecture,
  cut: WidthCut,
  layers: readonly number[],
  where: string,
): (name: string) => Omit<SelectedTensor, "shape"> {
  const { projections } = narrowingOf(architecture, where);
  const select = new TensorSelector(architecture, projections, cutWidths(architecture, cut), cut, layers);
  return (name) => select.tensor(name);
}

/** Hash (SHA-256, hex) of what a cut keeps and adds. */
export function cutIdentity(cut: WidthCut, layers: readonly number[]): string {
  return createHash("sha256").update(canonicalJson({ ...shapeWidthOf(cut), layers })).digest("hex");
}

/** @throws {InputError} for a family whose layers cannot be made narrower */
export function narrowingOf({ family }: Architecture, where: string): Narrowing {
  if (family.narrowing) return family.narrowing;
  throw new InputError(`models of the family ${family.name} cannot be made narrower`, {
    where,
    hint: "Cut layers instead.",
  });
}

/** The widths that hold every layer of a cut. */
export function cutWidths({ config }: Architecture, cut: WidthCut): Widths {
  const { attentionHeads, keyValueHeads, headDim, hiddenSize, intermediateSize } = config;
  const queries = attentionHeads / keyValueHeads;
  const most = (byLayer: readonly (readonly number[])[]) =>
    Math.max(1, ...byLayer.map((kept) => kept.length));
  const needed = most(cut.groups);
  // transformers refuses a Llama, and models of many other families, whose hidden size is no multiple of its heads, stated head_dim or not.
  let groups = needed;
  while (groups < keyValueHeads && hiddenSize % (groups * queries) !== 0) groups++;
  if (hiddenSize % (groups * queries) !== 0) groups = needed;
  return {
    attentionHeads: groups * queries,
    keyValueHeads: groups,
    headDim,
    intermediateSize: Math.min(intermediateSize, most(cut.channels)),
    biases: cut.compensation !== undefined && !cutsNothing(cut, config),
  };
}

/** Finds for each tensor of a narrower model what of the wider one it is. */
class TensorSelector {
  readonly #source: Architecture;
  readonly #projections: LayerProjections;
  readonly #widths: Widths;
  readonly #cut: WidthCut;
  readonly #layers: readonly number[];

  constructor(
    source: Architecture,
    projections: LayerProjections,
    widths: Widths,
    cut: WidthCut,
    layers: readonly number[],
  ) {
    [this.#source, this.#projections, this.#widths] = [source, projections, widths];
    [this.#cut, this.#layers] = [cut, layers];
  }

  tensor(name: string): Omit<SelectedTensor, "shape"> {
    const before = `${this.#source.family.names.layers}.`;
    if (!name.startsWith(before)) return { from: name };
    const [, index, part, kind] = /^(\d+)\.(.+)\.(weight|bias)$/.exec(name.slice(before.length)) ?? [];
    if (part === undefined) throw new InputError(`cutting does not know the tensor ${name}; this is a bug`);
    const layer = Number(index);
    const module = `${before}${this.#layers[layer]}.${part}`;
    const rows = this.#outputs(part, layer);
    if (kind === "weight") return { from: `${module}.weight`, rows, columns: this.#inputs(part, layer) };
    const plus = this.#compensation(part, layer);
    return this.#source.tensors.has(`${module}.bias`)
      ? { from: `${module}.bias`, rows, plus }
      : { from: `${module}.weight`, empty: true, plus };
  }

  /** The outputs that a projection keeps; undefined for all. */
  #outputs(part: string, layer: number): number[] | undefined {
    const { queries, keys, values, mlpInputs } = this.#projections;
    if (part === queries) return this.#queryRows(layer);
    if (part === keys || part === values) return this.#headRows(layer, 1);
    return mlpInputs.includes(part) ? this.#channelRows(layer) : undefined;
  }

  /** The inputs that a projection keeps; undefined for all. */
  #inputs(part: string, layer: number): number[] | undefined {
    const { attentionOutput, mlpOutput } = this.#projections;
    if (part === attentionOutput) return this.#queryRows(layer);
    return part === mlpOutput ? this.#channelRows(layer) : undefined;
  }

  #compensation(part: string, layer: number): Float64Array | undefined {
    const { attentionOutput, mlpOutput } = this.#projections;
    const { attention, mlp } = this.#widths.biases ? this.#cut.compensation![layer]! : {};
    return part === attentionOutput ? attention : part === mlpOutput ? mlp : undefined;
  }

  #queryRows(layer: number): number[] {
    const { attentionHeads, keyValueHeads } = this.#source.config;
    return this.#headRows(layer, attentionHeads / keyValueHeads);
  }

  /** Rows of the kept groups where a group has so many heads, filled up to the widest layer. */
  #headRows(layer: number, headsOfGroup: number): number[] {
    const size = headsOfGroup * this.#source.config.headDim;
    const rows = this.#cut.groups[layer]!.flatMap((group) =>
      Array.from({ length: size }, (_, i) => group * size + i)
    );
    return filled(rows, this.#widths.keyValueHeads * size);
  }

  #channelRows(layer: number): number[] {
    return filled(this.#cut.channels[layer]!, this.#widths.intermediateSize);
  }
}

/** -1 stands for zeros. */
function filled(kept: readonly number[], length: number): number[] {
  return [...kept, ...new Array<number>(length - kept.length).fill(-1)];
}
