/**
 * The difference of two models as a LoRA adapter: truncated singular value decompositions of its linear layers.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { resolve } from "@std/path";
import { InputError } from "../../base/errors.ts";
import type { TensorData } from "../../formats/model_source.ts";
import { writePeftAdapter } from "../../formats/peft/peft.ts";
import { addLeftOut, type LeftOut, lowRank, relativeError } from "../../linalg/low_rank.ts";
import { derivedCard } from "../written/derived_card.ts";
import { checkOutput, pieces } from "../written/output.ts";
import { Residual, type ResidualModels, type ResidualOptions } from "./residual.ts";

/** How an adapter is taken from a difference. */
export interface ExtractOptions extends ResidualOptions {
  /** Rank of every layer; less where a layer is smaller. */
  readonly rank: number;
}

/** How near an adapter comes to a difference. Errors are Frobenius norms of what is left out, relative to those of the whole. */
export interface ExtractResult {
  readonly rank: number;
  /** By module path. */
  readonly byModule: Readonly<Record<string, number>>;
  /** Over all linear weights of a layer. */
  readonly byLayer: readonly number[];
  /** Over all linear weights. */
  readonly total: number;
  /** Share of the squared norm of the whole difference that lies in tensors which no adapter changes: embedding, norms, head, biases. */
  readonly shareOutside: number;
  readonly notes: readonly string[];
}

/**
 * Writes scale (instruct - base) as an adapter for the new base, in PEFT's layout, whole or not at all.
 *
 * @throws {InputError} see {@linkcode Residual.open}; `output` is there already
 */
export async function writeResidualAdapter(
  models: ResidualModels,
  output: string,
  options: ExtractOptions,
): Promise<ExtractResult> {
  const title = "Instruction residual as an adapter";
  return await writeDifference(models, output, options, {
    title,
    method: "instruct - base (arXiv 2410.10739)",
    parents: (residual) => residual.parents(),
  });
}

/**
 * Writes tuned - base as an adapter for the base, in PEFT's layout, whole or not at all. The vocabulary may have grown: no adapter reaches
 * the embedding.
 *
 * @throws {InputError} models of different shapes; `output` is there already
 *
 * @example
 * ```ts
 * const { total } = await extractLora("./base", "./fine-tuned", "./adapter", { rank: 32 });
 * ```
 */
export async function extractLora(
  base: string,
  tuned: string,
  output: string,
  options: Omit<ExtractOptions, "commonRows">,
): Promise<ExtractResult> {
  const models = { base, instruct: tuned, newBase: base };
  return await writeDifference(models, output, { ...options, commonRows: true }, {
    title: "Difference of two models as an adapter",
    method: "tuned - base",
    async parents({ base, instruct }) {
      return [
        { role: "base", model: base.name, sha256: await base.source.fingerprint() },
        { role: "tuned", model: instruct.name, sha256: await instruct.source.fingerprint() },
      ];
    },
  });
}

/** What the card says of a difference. */
interface InWords {
  readonly title: string;
  readonly method: string;
  readonly parents: (residual: Residual) => ReturnType<Residual["parents"]>;
}

async function writeDifference(
  models: ResidualModels,
  output: string,
  options: ExtractOptions,
  { title, method, parents }: InWords,
): Promise<ExtractResult> {
  await checkOutput(output);
  return await Residual.open(models, options, async (residual) => {
    const { tensors, ranks, left, outside } = await factorise(residual, options);
    const { architecture: { linearLayers, family, config } } = residual.newBase;
    const { rank, scale = 1 } = options;
    const inside = addLeftOut(left.values());
    const whole = inside.of + outside;
    const layerError = (layer: number) => {
      const own = [...left].filter(([module]) => module.startsWith(`${family.names.layers}.${layer}.`));
      return relativeError(addLeftOut(own.map(([, part]) => part)));
    };
    const result: ExtractResult = {
      rank,
      byModule: Object.fromEntries([...left].map(([module, part]) => [module, relativeError(part)])),
      byLayer: Array.from({ length: config.layers }, (_, layer) => layerError(layer)),
      total: relativeError(inside),
      shareOutside: whole === 0 ? 0 : outside / whole,
      notes: residual.notes,
    };
    const readme = derivedCard({
      title,
      method: `The best rank ${rank} approximation of ${
        scale === 1 ? "" : `${scale} times `
      }${method}, for every linear layer.`,
      library: "peft",
      parents: await parents(residual),
      notes: [...result.notes, ...leftOutLines(result)],
    });
    const settings = {
      rank,
      // A scale of 1: the factors multiply to the difference.
      alpha: rank,
      targetModules: [...new Set(linearLayers.map(({ name }) => name.split(".").at(-1)!))],
      fanInFanOut: family.fanInFanOut,
      baseModel: resolve(residual.newBase.name),
      rankPattern: ranks,
      alphaPattern: ranks,
    };
    await writePeftAdapter(output, { settings, tensors }, { readme });
    return result;
  });
}

/** Factors of every linear layer, what they leave out, and the sum of squares of all that is in no linear layer. */
async function factorise(residual: Residual, { rank, onProgress, signal }: ExtractOptions) {
  let done = 0;
  const tell = (name: string, values: number) => {
    signal?.throwIfAborted();
    onProgress?.(done += values, residual.size, name);
  };
  const tensors = new Map<string, TensorData>();
  const ranks: Record<string, number> = {};
  const left = new Map<string, LeftOut>();
  const { linearLayers } = residual.newBase.architecture;
  for (const { name, out, in: inSize } of linearLayers) {
    const shape = residual.tensors.get(`${name}.weight`);
    if (shape?.join() === `${out},${inSize}`) continue;
    throw new InputError(`${name}.weight is stored as [${shape}], not as [out, in] = [${out}, ${inSize}]`, {
      where: residual.newBase.name,
      hint:
        "No adapter can be taken of such a layer; `limbeck residual` without --rank takes the difference whole.",
    });
  }
  // What is quick comes first, so that values that are not finite are found before the long part.
  const linear = new Set(linearLayers.map(({ name }) => `${name}.weight`));
  let outside = 0;
  for (const [name, shape] of residual.tensors) {
    if (linear.has(name)) continue;
    for (const { first, count } of pieces(shape)) {
      const values = await residual.read(name, first, count);
      for (const value of values) outside += value * value;
      tell(name, values.length);
    }
  }
  for (const { name: module, out, in: inSize } of linearLayers) {
    const matrix = await residual.read(`${module}.weight`, 0, out);
    const found = lowRank(matrix, out, inSize, rank);
    if (found.rank !== rank) ranks[module] = found.rank;
    left.set(module, found.left);
    tensors.set(`${module}.lora_A.weight`, factor([found.rank, inSize], found.a));
    tensors.set(`${module}.lora_B.weight`, factor([out, found.rank], found.b));
    tell(`${module}.weight`, matrix.length);
  }
  return { tensors, ranks, left, outside };
}

/** What an adapter leaves out, in words. */
export function leftOutLines(
  { total, shareOutside }: Pick<ExtractResult, "total" | "shareOutside">,
): string[] {
  return [
    `relative error of the linear weights ${total.toFixed(4)} (Frobenius norm)`,
    `${
      (100 * shareOutside).toFixed(1)
    } % of the difference's squared norm lies where no adapter reaches (embedding, norms, head)`,
  ];
}

/** A factor as it is stored. */
export function factor(shape: number[], values: Float64Array): TensorData {
  const data = Float32Array.from(values);
  if (data.every(Number.isFinite)) return { dtype: "f32", shape, data };
  throw new InputError("a factor holds values too large for f32", {
    hint: "The models differ beyond all measure: are they of one family?",
  });
}
