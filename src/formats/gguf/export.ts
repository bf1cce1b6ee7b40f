/**
 * A model as a GGUF file that llama.cpp runs.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type FloatData, fromFloat32, scanNonFinite, toFloat32 } from "../dtype.ts";
import type { TokenizerFiles } from "../model_source.ts";
import type { TensorData } from "../safetensors/safetensors.ts";
import { type GgufArchitecture, ggufArchitecture } from "./architectures.ts";
import { KeyWriter } from "./architectures/keys.ts";
import { type GgufName, ggufName } from "./architectures/names.ts";
import { ggufConfig } from "./config.ts";
import type { GgufValue } from "./gguf.ts";
import { type GgufHyperparameters, ofLayers } from "./hyperparameters.ts";
import { chooseType, fileTypes, type GgufStorage, quantizers, type TypeChoice } from "./mixture.ts";
import { storedValues } from "./stored_values.ts";
import { ggufTokenizerMetadata } from "./tokenizer_write.ts";
import { type GgufSpec, type GgufWriteValue, writeGguf } from "./write.ts";

export type { GgufHyperparameters } from "./hyperparameters.ts";

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
  /** Reads a tensor, its rows in Hugging Face order. */
  read(name: string): Promise<TensorData>;
}

export type { GgufStorage, TypeChoice } from "./mixture.ts";

/** Where a tensor of the file comes from: one tensor, or one for each expert of a stack. */
interface Sources {
  readonly name: GgufName;
  readonly shape: readonly number[];
  readonly sources: string[];
}

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
  const architecture = ggufArchitecture(model.architecture, path);
  refuseWidth(architecture, config, path);
  const found = await tensorsOf(architecture, model, path);
  const mixture = { layers: config.layers, tied: !found.has("output.weight") };
  const types = [...found.values()].map(({ name, shape, sources }) =>
    chooseType(name.name, name.expert === undefined ? shape : [sources.length, ...shape], storage, mixture)
  );
  report(types);
  const specs: GgufSpec[] = types.map(({ name, type, shape }) => ({ name, type, shape }));
  const tables = architecture.tables?.(config) ?? new Map<string, Float32Array>();
  for (const [name, { length }] of tables) specs.push({ name, type: "F32", shape: [length] });

  await writeGguf(path, metadataOf(architecture, model, storage, path), specs, async ({ name, type }) => {
    const table = tables.get(name);
    if (table) return table;
    const { name: placed, shape, sources } = found.get(name)!;
    const parts: (FloatData | Uint8Array<ArrayBuffer>)[] = [];
    for (const source of sources) {
      const tensor = await model.read(source);
      if (tensor.shape.join() !== shape.join()) {
        throw new InputError(`tensor ${source} has shape [${tensor.shape}], expected [${shape}]`, {
          where: path,
        });
      }
      const values = storedValues(architecture, config, placed, tensor);
      refuseValues(values, type, source, path);
      const quantize = quantizers[type];
      parts.push(quantize ? quantize(values) : fromFloat32(type === "F16" ? "f16" : "f32", values));
    }
    return parts.length === 1 ? parts[0]! : joined(parts);
  });
}

/**
 * The config.json that a written file would be read as; what it does not say is not in the file.
 *
 * @param tensors Names of the model's tensors
 * @throws {InputError} for an architecture that is not known
 */
export function configOnceWritten(
  { architecture: name, config, tensors }: Pick<GgufModel, "architecture" | "config" | "tensors">,
  where: string,
): Record<string, unknown> {
  const architecture = ggufArchitecture(name, where);
  const written = [...tensors].flatMap(([source, shape]) => {
    const found = ggufName(architecture.names, source);
    return found ? [[found.name, { shape }] as const] : [];
  });
  return ggufConfig(architecture, {
    where,
    metadata: new Map(
      [...hyperparameters(architecture, config)].map(([key, { value }]) => [key, inFile(value)]),
    ),
    tensors: new Map(written),
    rope: new Map([...architecture.tables?.(config) ?? []].map(([name, values]) => [name, [...values]])),
  });
}

/** Whether scores are scaled by a rule of the architecture's own, so that a model's scale is multiplied into its weights. */
export function scalesWeights(architecture: string, where: string): boolean {
  return ggufArchitecture(architecture, where).scale !== undefined;
}

/** What someone should know who runs a model's file in llama.cpp; undefined where there is nothing. */
export function ggufWarning(name: string, config: GgufHyperparameters, where: string): string | undefined {
  const window = ofLayers(config, ({ attention }) => attention.window);
  if (window === undefined || !ggufArchitecture(name, where).windowUnheeded) return undefined;
  return `llama.cpp attends to all of a text in models of the architecture ${name}: beyond ${window} tokens, the model's window, it computes something else`;
}

/** A value as reading the file gives it. */
function inFile(value: GgufWriteValue["value"]): GgufValue {
  if (typeof value === "number" && !Number.isInteger(value)) return Math.fround(value);
  return value as GgufValue;
}

/** The tensors of the file by their names, in the order in which a model's are asked for. */
async function tensorsOf(
  architecture: GgufArchitecture,
  model: GgufModel,
  where: string,
): Promise<Map<string, Sources>> {
  const found = new Map<string, Sources>();
  for (const [source, shape] of model.tensors) {
    if (await isIdle(architecture, model, source)) continue;
    const name = ggufName(architecture.names, source);
    if (name === undefined) {
      throw new InputError(
        `tensor ${source} has no place in a GGUF file of the architecture ${architecture.name}`,
        {
          where,
        },
      );
    }
    const stack = found.get(name.name);
    if (stack) stack.sources[name.expert!] = source;
    else found.set(name.name, { name, shape, sources: [source] });
  }
  const embedding = found.get("token_embd.weight");
  if (architecture.ownHead && embedding && !found.has("output.weight")) {
    found.set("output.weight", { ...embedding, name: { name: "output.weight" } });
  }
  return found;
}

/** llama.cpp takes the heads of some architectures to be as wide together as the hidden states. */
function refuseWidth(
  { name, wholeWidth }: GgufArchitecture,
  { attentionHeads, headDim, hiddenSize }: GgufHyperparameters,
  where: string,
): void {
  if (!wholeWidth || attentionHeads * headDim === hiddenSize) return;
  throw new InputError(
    `${attentionHeads} heads of ${headDim} are not as wide as the hidden states, ${hiddenSize}, which llama.cpp needs of the architecture ${name}`,
    { where, hint: "Export a Hugging Face folder: `limbeck export --target merged`." },
  );
}

/** Experts after one another. */
function joined<T extends FloatData | Uint8Array<ArrayBuffer>>(parts: readonly T[]): T {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const whole = new (parts[0]!.constructor as new (length: number) => T)(length);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
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
async function isIdle(
  { optionalBiases }: GgufArchitecture,
  model: GgufModel,
  name: string,
): Promise<boolean> {
  if (!optionalBiases || !name.endsWith(".bias")) return false;
  const { dtype, data } = await model.read(name);
  return toFloat32(dtype, data).every((value) => value === 0);
}

function metadataOf(
  architecture: GgufArchitecture,
  model: GgufModel,
  storage: GgufStorage,
  where: string,
): Map<string, GgufWriteValue> {
  const text = (value: string): GgufWriteValue => ({ type: "string", value });
  const count = (value: number): GgufWriteValue => ({ type: "u32", value });
  return new Map<string, GgufWriteValue>([
    ["general.architecture", text(architecture.name)],
    ["general.type", text("model")],
    ["general.name", text(model.name)],
    ...Object.entries(model.about ?? {}).map(([key, value]) => [`general.${key}`, text(value)] as const),
    ["general.file_type", count(fileTypes[storage])],
    ["general.quantization_version", count(2)],
    ...hyperparameters(architecture, model.config),
    ...ggufTokenizerMetadata(model.tokenizer, model.config, where),
  ]);
}

/** The keys that begin with the name of the architecture. */
function hyperparameters(
  architecture: GgufArchitecture,
  config: GgufHyperparameters,
): Map<string, GgufWriteValue> {
  const keys = new KeyWriter(architecture.name);
  keys.count("vocab_size", config.vocabularySize);
  keys.count("context_length", config.contextLength);
  keys.count("embedding_length", config.hiddenSize);
  keys.count("block_count", config.layers);
  keys.count("feed_forward_length", config.intermediateSize);
  keys.count("attention.head_count", config.attentionHeads);
  keys.count("attention.head_count_kv", config.keyValueHeads);
  keys.count("attention.key_length", config.headDim);
  keys.count("attention.value_length", config.headDim);
  if (config.inverseFrequencies.length > 0) {
    keys.count("rope.dimension_count", 2 * config.inverseFrequencies.length);
  }
  keys.real(
    architecture.layerNorm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
    config.normEpsilon,
  );
  architecture.write(config, keys);
  return keys.metadata;
}
