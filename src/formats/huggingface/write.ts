/**
 * Writing a model folder in Hugging Face layout, one tensor in memory at a time.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { type FloatData, type FloatDtype, fromFloat32, scanNonFinite, toFloat32 } from "../dtype.ts";
import { writeAtomically, writeFolderAtomically, writeTextAtomically } from "../files.ts";
import { exportedConfig } from "./config.ts";
import { layoutOf, transpose } from "./layout.ts";
import type { TokenizerFiles } from "../model_source.ts";
import { pythonJson } from "../python_json.ts";
import type { TensorData } from "../safetensors/safetensors.ts";
import {
  type SafetensorsSpec,
  tensorBytes,
  type TensorProducer,
  writeSafetensors,
} from "../safetensors/write.ts";

/** A model to be written. */
export interface HuggingFaceModel {
  /** A config.json of either generation, or the config of a GGUF model. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Absent where the model has none. */
  readonly tokenizer?: TokenizerFiles | undefined;
  /** Every tensor by name with its shape. A head tied to the embedding is left out if it is among them. */
  readonly tensors: ReadonlyMap<string, readonly number[]>;
  /** Delivers a tensor when its turn comes, whole or in pieces of rows, in any storage; it is rounded to the one asked for. */
  read(name: string): Promise<TensorData> | AsyncIterable<TensorData>;
}

/** How a model folder is written. */
export interface HuggingFaceOptions {
  readonly dtype: FloatDtype;
  /** Most bytes of tensors in one file; above it the model is split. */
  readonly shardBytes?: number;
  /** Text of a README.md, or what makes it when all else has been written into a folder. */
  readonly readme?: string | ((folder: string) => Promise<string>);
  /** Allows a folder that is already there. */
  readonly replace?: boolean;
}

/** Fields of config.json that transformers 4 warns about, or transformers 5 refuses, when they are integers. */
const floatFields = [
  ...[
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "partial_rotary_factor",
  ],
  ...["final_logit_softcapping", "attn_logit_softcapping", "initializer_range", "router_aux_loss_coef"],
];
const defaultShardBytes = 5e9;
const dtypes = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

/**
 * Writes a folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` load, whole or not at all.
 *
 * @throws {InputError} when a tensor has another shape than announced, holds values that are not finite, or overflows in f16.
 *
 * @example
 * ```ts
 * await writeHuggingFaceFolder("merged", {
 *   config: model.config,
 *   tokenizer: await model.tokenizer(),
 *   tensors: expectedTensors(config),
 *   read: (name) => model.read(name),
 * }, { dtype: "f16" });
 * ```
 */
export async function writeHuggingFaceFolder(
  path: string,
  model: HuggingFaceModel,
  options: HuggingFaceOptions,
): Promise<void> {
  const { dtype } = options;
  const config = exportedConfig(model.config, dtype, path);
  const { tensors: layout } = layoutOf(model.config);
  const isTurned = (name: string, shape: readonly number[]) =>
    shape.length === 2 && layout?.transposed.test(name);
  const specs: SafetensorsSpec[] = [];
  for (const [name, shape] of model.tensors) {
    if (name === "lm_head.weight" && config.tie_word_embeddings === true) continue;
    specs.push({ name, dtype: dtypes[dtype], shape: isTurned(name, shape) ? shape.toReversed() : shape });
  }

  function stored(name: string, tensor: TensorData): FloatData {
    const rounded = tensor.dtype === dtype
      ? tensor.data
      : fromFloat32(dtype, toFloat32(tensor.dtype, tensor.data));
    // What is not finite is not so when rounded either, so one look at what is written is enough.
    const overflown = scanNonFinite(dtype, rounded);
    if (!overflown) return rounded;
    const wrong = scanNonFinite(tensor.dtype, tensor.data);
    if (wrong) {
      throw new InputError(`tensor ${name} holds ${wrong.count} values that are NaN or infinite`, {
        where: path,
      });
    }
    throw new InputError(`tensor ${name} holds ${overflown.count} values too large for ${dtype}`, {
      where: path,
      hint: "Save the model in bf16 or f32.",
    });
  }

  async function* produce({ name, shape }: SafetensorsSpec): AsyncIterable<ArrayBufferView> {
    if (!isTurned(name, shape)) return yield* piecesOf(name, shape);
    const pieces: FloatData[] = [];
    const turned = shape.toReversed();
    for await (const piece of piecesOf(name, turned)) pieces.push(piece);
    yield transpose({ dtype, shape: turned, data: joined(pieces) }).data;
  }

  async function* piecesOf(name: string, shape: readonly number[]): AsyncIterable<FloatData> {
    const [rows, ...row] = shape;
    const wrongShape = (found: readonly (number | undefined)[]) =>
      new InputError(`tensor ${name} has shape [${found}], expected [${shape}]`, { where: path });
    const delivered = model.read(name);
    let done = 0;
    for await (const tensor of Symbol.asyncIterator in delivered ? delivered : [await delivered]) {
      if (tensor.shape.slice(1).join() !== row.join()) throw wrongShape(tensor.shape);
      done += tensor.shape[0] ?? 1;
      yield stored(name, tensor);
    }
    if (done !== (rows ?? 1)) throw wrongShape([done, ...row]);
  }

  await writeFolderAtomically(path, async (folder) => {
    await writeWeights(folder, specs, produce, options.shardBytes ?? defaultShardBytes);
    await writeJson(folder, "config.json", config);
    if (model.tokenizer) await writeTokenizer(folder, model.tokenizer);
    await writeJson(
      folder,
      "generation_config.json",
      model.tokenizer?.generationConfig ?? generationConfig(config),
    );
    const { readme } = options;
    if (readme === undefined) return;
    const text = typeof readme === "string" ? readme : await readme(folder);
    await writeTextAtomically(join(folder, "README.md"), text);
  }, { replace: options.replace });
}

function joined(pieces: readonly FloatData[]): FloatData {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const whole: FloatData = pieces[0] instanceof Float32Array
    ? new Float32Array(length)
    : new Uint16Array(length);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

async function writeWeights(
  folder: string,
  specs: readonly SafetensorsSpec[],
  produce: TensorProducer,
  shardBytes: number,
): Promise<void> {
  const shards: SafetensorsSpec[][] = [[]];
  let used = 0;
  let total = 0;
  for (const spec of specs) {
    const bytes = tensorBytes(spec.dtype, spec.shape);
    if (used > 0 && used + bytes > shardBytes) {
      shards.push([]);
      used = 0;
    }
    shards[shards.length - 1].push(spec);
    used += bytes;
    total += bytes;
  }
  if (shards.length === 1) {
    return await writeSafetensors(join(folder, "model.safetensors"), specs, produce);
  }
  const weightMap: Record<string, string> = {};
  const five = (count: number) => String(count).padStart(5, "0");
  for (const [i, shard] of shards.entries()) {
    const name = `model-${five(i + 1)}-of-${five(shards.length)}.safetensors`;
    await writeSafetensors(join(folder, name), shard, produce);
    for (const tensor of shard) weightMap[tensor.name] = name;
  }
  await writeJson(folder, "model.safetensors.index.json", {
    metadata: { total_size: total },
    weight_map: weightMap,
  });
}

/** The files of the source as they were, or, for a tokenizer made from other metadata, new ones. */
async function writeTokenizer(folder: string, tokenizer: TokenizerFiles): Promise<void> {
  const { sentencePieceModel } = tokenizer;
  if (sentencePieceModel) {
    await writeAtomically(join(folder, "tokenizer.model"), (sink) => sink.write(sentencePieceModel), {
      size: sentencePieceModel.length,
    });
  }
  if (tokenizer.originals) {
    for (const [name, text] of tokenizer.originals) await writeTextAtomically(join(folder, name), text);
    return;
  }
  await writeTextAtomically(
    join(folder, "tokenizer.json"),
    JSON.stringify(tokenizer.tokenizerJson, null, 2) + "\n",
  );
  const template = tokenizer.chatTemplate === undefined ? {} : { chat_template: tokenizer.chatTemplate };
  await writeJson(folder, "tokenizer_config.json", { ...tokenizer.tokenizerConfig, ...template });
}

function generationConfig(config: Record<string, unknown>): Record<string, unknown> {
  const { bos_token_id = null, eos_token_id = null } = config;
  return { _from_model_config: true, bos_token_id, eos_token_id };
}

async function writeJson(folder: string, name: string, value: unknown): Promise<void> {
  await writeTextAtomically(join(folder, name), pythonJson(value, floatFields));
}
