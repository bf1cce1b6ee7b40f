/**
 * A model as a GGUF file that llama.cpp runs.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { fromFloat32, scanNonFinite, toFloat32 } from "../dtype.ts";
import { ggufName, isPermuted, permuteHeads } from "./model.ts";
import { ggufTokenizerMetadata } from "./tokenizer_write.ts";
import { chooseType, fileTypes, type GgufStorage, quantizers, type TypeChoice } from "./mixture.ts";
import { type GgufSpec, type GgufWriteValue, writeGguf } from "./write.ts";
import type { TokenizerFiles } from "../model_source.ts";
import type { TensorData } from "../safetensors/safetensors.ts";

/** The hyperparameters of a model; a `DecoderConfig` has them. */
export interface GgufHyperparameters {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly attentionHeads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocabularySize: number;
  readonly normEpsilon: number;
  readonly contextLength: number;
  readonly bosToken?: number;
  readonly eosTokens: readonly number[];
  readonly ropeTheta: number;
  readonly inverseFrequencies: Float64Array;
}

/** A model to be written. */
export interface GgufModel {
  /** `general.name`. */
  readonly name: string;
  /** More of `general.*`, such as license, author, url, description. */
  readonly about?: Readonly<Record<string, string>>;
  /** `general.architecture`: what llama.cpp computes. */
  readonly architecture: string;
  readonly config: GgufHyperparameters;
  readonly tokenizer: TokenizerFiles;
  /** Every tensor by its Hugging Face name with its shape, in the order they will be asked for. */
  readonly tensors: ReadonlyMap<string, readonly number[]>;
  /** Reads a tensor, rows of q and k in Hugging Face order. */
  read(name: string): Promise<TensorData>;
}

export type { GgufStorage, TypeChoice } from "./mixture.ts";

/**
 * Writes a model. A matrix whose rows are no whole blocks of its type gets another, in the end F16. Biases of a Llama that are all zero are left out:
 * llama.cpp needs none, and takes those of queries to be as wide as the hidden states, which those of a model with heads cut away are not.
 *
 * @param report Told the type of every tensor before any is written
 * @throws {InputError} for a tensor or a tokenizer that GGUF has no place for, or values that are not finite or too large.
 *
 * @example
 * ```ts
 * const { config, tensors } = readArchitecture(model.config, model.path);
 * await writeGgufModel("stories.gguf", {
 *   name: "stories",
 *   architecture: "llama",
 *   config,
 *   tokenizer: await model.tokenizer(),
 *   tensors,
 *   read: (name) => model.read(name),
 * });
 * ```
 */
export async function writeGgufModel(
  path: string,
  model: GgufModel,
  storage: GgufStorage = "Q8_0",
  report: (types: readonly TypeChoice[]) => void = () => {},
): Promise<void> {
  const { config } = model;
  const sources = new Map<string, string>();
  const types: TypeChoice[] = [];
  const mixture = {
    layers: config.layers,
    tied: ![...model.tensors.keys()].map(ggufName).includes("output.weight"),
  };
  for (const [source, shape] of model.tensors) {
    if (await isIdle(model, source)) continue;
    const name = ggufName(source);
    if (name === undefined) {
      throw new InputError(`tensor ${source} has no place in a GGUF file`, { where: path });
    }
    sources.set(name, source);
    types.push(chooseType(name, shape, storage, mixture));
  }
  report(types);
  const specs: GgufSpec[] = types.map(({ name, type, shape }) => ({ name, type, shape }));
  const factors = ropeFactors(config);
  if (factors) specs.push({ name: "rope_freqs.weight", type: "F32", shape: [factors.length] });

  await writeGguf(path, metadataOf(model, storage, path), specs, async ({ name, type, shape }) => {
    if (factors && name === "rope_freqs.weight") return factors;
    const source = sources.get(name)!;
    const tensor = await model.read(source);
    if (tensor.shape.join() !== shape.join()) {
      throw new InputError(`tensor ${source} has shape [${tensor.shape}], expected [${shape}]`, {
        where: path,
      });
    }
    const ordered = isPermuted(source) ? permuteHeads(tensor, config.headDim, "toNeighbours") : tensor;
    const values = toFloat32(ordered.dtype, ordered.data);
    refuseValues(values, type, source, path);
    const quantize = quantizers[type];
    return quantize ? quantize(values) : fromFloat32(type === "F16" ? "f16" : "f32", values);
  });
}

/** Largest f16; scales of blocks are f16 too. */
const LARGEST_HALF = 65504;

function refuseValues(values: Float32Array<ArrayBuffer>, type: string, source: string, where: string): void {
  const wrong = scanNonFinite("f32", values);
  if (wrong) {
    throw new InputError(`tensor ${source} holds ${wrong.count} values that are NaN or infinite`, { where });
  }
  if (type === "F32" || values.every((value) => Math.abs(value) <= LARGEST_HALF)) return;
  throw new InputError(`tensor ${source} holds values too large for ${type}`, {
    where,
    hint: "Store the model in f32: --storage f32.",
  });
}

/** Whether a tensor is a bias that changes nothing, and that may be left out. */
async function isIdle(model: GgufModel, name: string): Promise<boolean> {
  if (model.architecture !== "llama" || !name.endsWith(".bias")) return false;
  const { dtype, data } = await model.read(name);
  return toFloat32(dtype, data).every((value) => value === 0);
}

/** What the plain frequencies must be divided by, or undefined where they are not scaled. */
function ropeFactors(config: GgufHyperparameters): Float32Array | undefined {
  const factors = Float32Array.from(
    config.inverseFrequencies,
    (frequency, i) => config.ropeTheta ** (-2 * i / config.headDim) / frequency,
  );
  return factors.some((factor) => factor !== 1) ? factors : undefined;
}

function metadataOf(model: GgufModel, storage: GgufStorage, where: string): Map<string, GgufWriteValue> {
  const { config, architecture } = model;
  const metadata = new Map<string, GgufWriteValue>();
  const text = (key: string, value: string) => metadata.set(key, { type: "string", value });
  const count = (key: string, value: number) => metadata.set(key, { type: "u32", value });
  const real = (key: string, value: number) => metadata.set(key, { type: "f32", value });

  text("general.architecture", architecture);
  text("general.type", "model");
  text("general.name", model.name);
  for (const [key, value] of Object.entries(model.about ?? {})) text(`general.${key}`, value);
  count("general.file_type", fileTypes[storage]);
  count("general.quantization_version", 2);
  count(`${architecture}.vocab_size`, config.vocabularySize);
  count(`${architecture}.context_length`, config.contextLength);
  count(`${architecture}.embedding_length`, config.hiddenSize);
  count(`${architecture}.block_count`, config.layers);
  count(`${architecture}.feed_forward_length`, config.intermediateSize);
  count(`${architecture}.attention.head_count`, config.attentionHeads);
  count(`${architecture}.attention.head_count_kv`, config.keyValueHeads);
  count(`${architecture}.attention.key_length`, config.headDim);
  count(`${architecture}.attention.value_length`, config.headDim);
  count(`${architecture}.rope.dimension_count`, config.headDim);
  real(`${architecture}.attention.layer_norm_rms_epsilon`, config.normEpsilon);
  real(`${architecture}.rope.freq_base`, config.ropeTheta);
  for (const [key, value] of ggufTokenizerMetadata(model.tokenizer, config, where)) metadata.set(key, value);
  return metadata;
}
