/**
 * A model as a run uses it: its config (with layers cut away), the storage of each weight on the GPU, and the upload.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { extname, join, resolve } from "@std/path";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { type FloatDtype, fromFloat32, scanNonFinite, toFloat32 } from "../../formats/dtype.ts";
import type { ModelSource, TensorData } from "../../formats/model_source.ts";
import { openModel, readTokenizerAt } from "../../formats/open_model.ts";
import { badBlock } from "../../formats/quantised/gpu_layout.ts";
import type { QuantizeDtype } from "../../formats/quantised/quantiser.ts";
import { BUFFER_USAGE } from "../../gpu/buffer_usage.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { Architecture } from "../../models/architecture.ts";
import type { DecoderConfig } from "../../models/config.ts";
import { storedNames, type WeightSpecs } from "../../models/context.ts";
import { readArchitecture } from "../../models/families.ts";
import type { ModelFamily } from "../../models/family.ts";
import { checkTensors } from "../../models/weights.ts";
import type { Plan } from "../../tensor/plan.ts";
import { bytesOf, type DType, elementCount, wholeBlockUnits } from "../../tensor/weight_storage.ts";
import { cutIdentity, cutModel } from "./cut_model.ts";
import { ModelBlocks } from "./model_blocks.ts";
import type { ShapeSpace } from "./shape_space.ts";
import type { WidthCut } from "./width_cut.ts";

/**
 * What a model's weights are rounded to. `exact`: nothing is. `half`: what neither f16 nor bf16 holds (f32 and quantised values) is
 * rounded to f16. `f16`, `bf16`: everything is rounded. `f32`: nothing is, and folders are written in f32.
 */
export type WeightStorage = "exact" | "half" | FloatDtype;

/** What is known of a model when its files are open. */
export interface OpenedFiles {
  readonly source: ModelSource;
  /** Of the whole model, before layers are cut away. */
  readonly architecture: Architecture;
}

/** How a model is opened. */
export interface ModelOptions {
  /** Layers that are kept, rising; all when absent. They are renumbered from 0. */
  readonly layers?: readonly number[] | undefined;
  /** Heads and channels that the kept layers keep; all when absent. */
  readonly width?: WidthCut | undefined;
  /** The shapes of it that are trained at once; one when absent. */
  readonly shapes?: ShapeSpace | undefined;
  /** `exact` when absent. */
  readonly storage?: WeightStorage;
  /**
   * Keeps the weights of linear layers but the head in blocks of this type, where the file has none that kernels read: quantised when
   * they are loaded. Norms, biases, embedding and head stay as `storage` says.
   */
  readonly quantize?: QuantizeDtype | undefined;
  /** Gives a model whose head is its embedding a head of its own, which begins as the embedding. */
  readonly ownHead?: boolean;
  /** Rows of embedding and head that take part, from the first on; all when absent. Files that are written have them all. */
  readonly rows?: number | undefined;
  /** The folder or GGUF file that its tokenizer is read from; its own when absent. */
  readonly tokenizer?: string | undefined;
  /** Line of `estimate` under which the weights count. */
  readonly category: string;
}

/** A model, its files open and its tensors checked; nothing is on the GPU yet. */
export class Model {
  readonly path: string;
  /** The files; where the width is cut, what is left of them. */
  readonly source: ModelSource;
  /** What is computed, with `layers` and `width` applied. */
  readonly architecture: Architecture;
  /** In the files. */
  readonly keptLayers: readonly number[];
  /** Layers of the source, before any are cut away. */
  readonly sourceLayers: number;
  /** Whether the head is the source's embedding, copied: see {@linkcode ModelOptions.ownHead}. */
  readonly untied: boolean;
  /** Whether some layer has fewer heads or channels than in the files. */
  readonly isNarrowed: boolean;
  readonly specs: WeightSpecs;
  readonly #blocks: ModelBlocks;
  readonly #options: ModelOptions;
  readonly #files: OpenedFiles;

  private constructor(
    path: string,
    source: ModelSource,
    whole: Architecture,
    kept: readonly number[],
    options: ModelOptions,
  ) {
    const { layers, tiedHead } = whole.config;
    const { width } = options;
    this.path = path;
    this.isNarrowed = width !== undefined;
    this.source = width ? cutModel(source, whole, width, kept) : source;
    this.untied = tiedHead && options.ownHead === true;
    // Where the width is cut, the source has left the layers out already.
    const left = width
      ? readArchitecture(this.source.config, path, whole.further)
      : whole.with({ layers: kept });
    this.architecture = left.with({
      tiedHead: tiedHead && !this.untied,
      ...(options.rows === undefined ? {} : { vocabularySize: options.rows }),
    });
    this.keptLayers = kept;
    this.sourceLayers = layers;
    this.#options = options;
    this.#files = { source, architecture: whole };
    this.#blocks = new ModelBlocks(this.source, {
      // Where everything is rounded to a type, so are the values of blocks, unless blocks are asked for.
      keeps: options.quantize !== undefined || this.storage === "exact" || this.storage === "f32",
      quantize: options.quantize,
      linear: this.architecture.linearLayers.map(({ name }) => this.storedName(`${name}.weight`)),
      experts: this.#expertWeights().map((name) => this.storedName(name)),
    }, (stored) => async (first, count) => {
      const { dtype, data } = await this.#readSource(stored, first, count);
      return toFloat32(dtype, data);
    });
    // Two models with the same files, the same cut and the same rounding have the same prefix, and so share their weights.
    const cut = width ? ` cut to ${cutIdentity(width, kept)}` : "";
    const rows = options.rows === undefined ? "" : ` of ${options.rows} rows`;
    const prefix = `${path}${cut}${rows}${this.#isRoundedBeside ? ` as ${this.storage}` : ""}: `;
    this.specs = {
      prefix,
      category: options.category,
      resolve: (name) => {
        const stored = this.storedName(name);
        return { name: this.#gpuName(stored), dtype: this.gpuDtype(stored) };
      },
    };
  }

  /**
   * Opens a folder or GGUF file and checks that it holds every tensor its config promises.
   *
   * @param options May depend on what is found
   * @param families Beside the built-in ones
   * @throws {InputError} naming every missing or wrongly shaped tensor, or a layer that does not exist
   */
  static async open(
    path: string,
    options: ModelOptions | ((files: OpenedFiles) => ModelOptions | Promise<ModelOptions>),
    families: readonly ModelFamily[] = [],
  ): Promise<Model> {
    const real = await realModelPath(path);
    const source = await openModel(real);
    try {
      const whole = readArchitecture(
        source.config,
        source.kind === "huggingface" ? join(path, "config.json") : path,
        families,
      );
      checkTensors(whole, source.tensors, path);
      const { layers } = whole.config;
      const chosen = typeof options === "function" ? await options({ source, architecture: whole }) : options;
      const kept = chosen.layers ?? Array.from({ length: layers }, (_, i) => i);
      const missing = kept.filter((i) => i >= layers);
      if (missing.length) {
        throw new InputError(
          `layers ${missing.join(", ")} do not exist; the model has layers 0 to ${layers - 1}`,
          {
            where: path,
            hint: "Correct the layers in the recipe.",
          },
        );
      }
      const { tokenizer } = chosen;
      const files = tokenizer === undefined
        ? source
        : { ...source, tokenizer: async () => await readTokenizerAt(await realModelPath(tokenizer)) };
      return new Model(real, files, whole, kept, chosen);
    } catch (error) {
      source.close();
      throw error;
    }
  }

  /** The same of which only so many rows of embedding and head take part. Whoever closes one of the two closes both. */
  withRows(rows: number): Model {
    const { source, architecture } = this.#files;
    return new Model(this.path, source, architecture, this.keptLayers, { ...this.#options, rows });
  }

  /** Whether some rows of embedding and head take no part. */
  get isRowCut(): boolean {
    return this.#options.rows !== undefined;
  }

  get config(): DecoderConfig {
    return this.architecture.config;
  }

  /** The name a tensor has in the source: layers are renumbered where some are cut away. */
  storedName(name: string): string {
    const { embedding, layers, head } = this.architecture.family.names;
    if (name === `${head}.weight` && this.untied) return embedding;
    // Where the width is cut, the source has renumbered them.
    if (this.isNarrowed || !name.startsWith(`${layers}.`)) return name;
    const [index, ...rest] = name.slice(layers.length + 1).split(".");
    return [layers, this.keptLayers[Number(index)], ...rest].join(".");
  }

  /** Type of a tensor of the source on the GPU. */
  gpuDtype(stored: string): DType {
    return this.#blocks.dtype(stored) ?? this.dtype(stored);
  }

  /** What tells a tensor that is quantised here from the same as it is: both may be in one program, and all others are shared. */
  #gpuName(stored: string): string {
    return this.#blocks.isQuantised(stored) ? `${stored}${QUANTISED}${this.quantize}` : stored;
  }

  /** Whether this model fills a weight of a plan. */
  provides(name: string): boolean {
    if (!name.startsWith(this.specs.prefix)) return false;
    const own = name.slice(this.specs.prefix.length);
    const stored = storedOf(own);
    const [first] = storedNames(stored) as [string];
    return !this.source.tensors.has(first) || stored.replace(first, this.#gpuName(first)) === own;
  }

  /** Names of the weights of single experts. */
  #expertWeights(): string[] {
    return this.architecture.expertLayers.flatMap(({ experts, modules }) =>
      Array.from({ length: experts }, (_, e) => modules(e).map((module) => `${module}.weight`)).flat()
    );
  }

  /** Whether weights of experts are quantised when they are loaded. */
  get hasQuantisedExperts(): boolean {
    return this.#expertWeights().some((name) => this.#blocks.isQuantised(this.storedName(name)));
  }

  /** Whether a tensor of the source is in blocks on the GPU. */
  isInBlocks(stored: string): boolean {
    return this.#blocks.dtype(stored) !== undefined;
  }

  /** Type in which a tensor of the source is read, and written in `base/`: that of the GPU, or f32 for what is in blocks there. */
  dtype(stored: string): FloatDtype {
    if (this.isInBlocks(stored)) return "f32";
    const exact = this.source.tensors.get(stored)!.exactDtype;
    if (this.storage === "half") return exact === "f32" ? "f16" : exact;
    return this.storage === "exact" || this.storage === "f32" ? exact : this.storage;
  }

  /** The shapes of it that are trained at once, where it is more than one. */
  get shapes(): ShapeSpace | undefined {
    return this.#options.shapes;
  }

  get storage(): WeightStorage {
    return this.#options.storage ?? "exact";
  }

  /** Whether some weight is not what the file holds. */
  get isRounded(): boolean {
    return this.#isRoundedBeside || this.isQuantised;
  }

  /** Whether some weight is quantised when it is loaded. */
  get isQuantised(): boolean {
    return this.#blocks.isQuantised();
  }

  /** Whether some weight that is not in blocks is not what the file holds. */
  get #isRoundedBeside(): boolean {
    return [...this.architecture.tensors.keys()].some((name) => {
      const stored = this.storedName(name);
      return !this.isInBlocks(stored) && this.dtype(stored) !== this.source.tensors.get(stored)!.exactDtype;
    });
  }

  /** What weights of linear layers are quantised to when they are loaded. */
  get quantize(): QuantizeDtype | undefined {
    return this.#options.quantize;
  }

  /** Every tensor of this model (renumbered names) with shape and storage type, rows that take no part included. */
  tensors(): Map<string, { shape: number[]; dtype: FloatDtype }> {
    const { embedding, head } = this.architecture.family.names;
    const cut = this.isRowCut ? [embedding, `${head}.weight`] : [];
    return new Map(
      [...this.architecture.tensors].map(([name, shape]) => {
        const stored = this.storedName(name);
        const own = cut.includes(name) ? this.source.tensors.get(stored)!.shape : shape;
        return [name, { shape: own, dtype: this.dtype(stored) }];
      }),
    );
  }

  /**
   * Rows of a tensor by its renumbered name, in its storage type.
   *
   * @throws {InputError} if a value is NaN or infinite, or does not fit that type
   */
  async read(name: string, first = 0, count?: number): Promise<TensorData> {
    return await this.#readStored(this.storedName(name), first, count);
  }

  async #readStored(stored: string, first: number, count?: number): Promise<TensorData> {
    const shape = this.source.tensors.get(stored)!.shape;
    if (this.isInBlocks(stored)) {
      const rows = count ?? shape[0]! - first;
      const data = await this.#blocks.weight(stored).values(first, rows);
      this.#checkFinite(stored, { dtype: "f32", shape, data }, first * shape[1]!);
      return { dtype: "f32", shape: [rows, ...shape.slice(1)], data };
    }
    const data = await this.#readSource(stored, first, count);
    const wanted = this.dtype(stored);
    if (wanted === data.dtype) return data;
    const rounded: TensorData = {
      ...data,
      dtype: wanted,
      data: fromFloat32(wanted, toFloat32(data.dtype, data.data)),
    };
    this.#checkFinite(stored, rounded, first * valuesOfRow(shape), `are too large for ${wanted}`);
    return rounded;
  }

  /** Rows as the source has them, all of them finite. */
  async #readSource(stored: string, first: number, count: number | undefined): Promise<TensorData> {
    const shape = this.source.tensors.get(stored)!.shape;
    const data = first === 0 && (count === undefined || count === shape[0])
      ? await this.source.read(stored)
      : await this.source.readRows(stored, first, count ?? shape[0]! - first);
    this.#checkFinite(stored, data, first * valuesOfRow(shape));
    return data;
  }

  /** @param offset Place of the first value in the whole tensor */
  #checkFinite(stored: string, tensor: TensorData, offset: number, why = "are not finite numbers"): void {
    const bad = scanNonFinite(tensor.dtype, tensor.data);
    if (!bad) return;
    throw this.#notFinite(
      `${bad.count} values of tensor ${stored} (the first at ${offset + bad.first}) ${why}`,
    );
  }

  #notFinite(message: string): InputError {
    return new InputError(message, {
      where: this.path,
      hint: "The weights are damaged, or come from a training that diverged: get the model again.",
    });
  }

  /**
   * A weight of a plan that this model {@linkcode provides}, as it lies on the GPU: in pieces that are read one after another.
   *
   * @param pieceBytes About how much is in memory at once
   */
  *pieces(name: string, shape: readonly number[], pieceBytes: number = PIECE_BYTES): Iterable<WeightPiece> {
    const storedName = storedOf(name.slice(this.specs.prefix.length));
    const table = this.architecture.tables[storedName];
    if (table) {
      yield { at: 0, read: () => Promise.resolve(new Uint8Array(table(shape[0]!).buffer)) };
      return;
    }
    const names = storedNames(storedName);
    const each = [shape[0]! / names.length, ...shape.slice(1)];
    const other = names.find((name) => this.gpuDtype(name) !== this.gpuDtype(names[0]!));
    if (other !== undefined) {
      throw new InputError(`${other} is stored in another type than ${names[0]}`, {
        where: this.path,
        hint: "The experts of a layer must be stored alike: convert the model to one type.",
      });
    }
    for (const [i, name] of names.entries()) yield* this.#piecesOfOne(name, each, i, pieceBytes);
  }

  /** Those of the `index`th of equal parts of a weight. */
  *#piecesOfOne(
    storedName: string,
    shape: readonly number[],
    index: number,
    pieceBytes: number,
  ): Iterable<WeightPiece> {
    const dtype = this.gpuDtype(storedName);
    const width = valuesOfRow(shape);
    const begin = bytesOf(dtype, index * shape[0]! * width);
    if (begin % 4 !== 0) {
      throw new InputError(`${storedName} has an odd number of 16-bit values, so no other can follow it`, {
        where: this.path,
        hint: "Convert the model to float32.",
      });
    }
    // Pieces of a few MB that are whole blocks, and whose bytes are a multiple of 4.
    const step = Math.max(4, wholeBlockUnits(dtype, width));
    const bytesOfRow = this.isInBlocks(storedName) ? 4 * width : bytesOf(dtype, width);
    const rows = Math.max(step, Math.floor(pieceBytes / bytesOfRow / step) * step);
    for (let first = 0; first < shape[0]!; first += rows) {
      const count = Math.min(rows, shape[0]! - first);
      yield {
        at: begin + bytesOf(dtype, first * width),
        read: async () => wholeWords(await this.#gpuRows(storedName, first, count)),
      };
    }
  }

  /** Rows as they lie on the GPU; the first of them begins a block. */
  async #gpuRows(stored: string, first: number, count: number): Promise<Uint8Array<ArrayBuffer>> {
    const dtype = this.#blocks.dtype(stored);
    if (!dtype) {
      const { data } = await this.#readStored(stored, first, count);
      return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    }
    const blocks = await this.#blocks.weight(stored).laidOut(first, count);
    const bad = badBlock(dtype, blocks);
    if (bad !== undefined) {
      const offset = first * valuesOfRow(this.source.tensors.get(stored)!.shape) + bad;
      throw this.#notFinite(`the values of tensor ${stored} from ${offset} on are not finite numbers`);
    }
    return blocks;
  }

  close(): void {
    this.source.close();
  }
}

/** Without links, so that two ways to one model are one; but what says that a file is GGUF is its name, which a cache's blob has not. */
async function realModelPath(path: string): Promise<string> {
  const real = await system.realPath(path).catch(() => path);
  const isGguf = (name: string) => extname(name).toLowerCase() === ".gguf";
  return isGguf(path) && !isGguf(real) ? resolve(path) : real;
}

/** Stands between the name of a weight and what it is quantised to. */
const QUANTISED = " in ";

/** The name of a weight on the GPU without what it is quantised to. */
function storedOf(name: string): string {
  return name.replace(/ in [\w-]+/, "");
}

/** A part of a weight. */
export interface WeightPiece {
  /** Where it begins, in bytes. */
  readonly at: number;
  /** Whole words. @throws {InputError} if they cannot be read, or hold what is no number */
  read(): Promise<Uint8Array<ArrayBuffer>>;
}

/** Reads pieces one after another, each while the one before it is put where it belongs. */
export async function putPieces<P extends WeightPiece>(
  pieces: Iterable<P>,
  put: (piece: P, bytes: Uint8Array<ArrayBuffer>) => void | Promise<void>,
): Promise<void> {
  let last: { piece: P; bytes: Uint8Array<ArrayBuffer> } | undefined;
  for (const piece of pieces) {
    const reading = piece.read();
    // Where putting fails, nobody waits for it.
    reading.catch(() => {});
    if (last) await put(last.piece, last.bytes);
    last = { piece, bytes: await reading };
  }
  if (last) await put(last.piece, last.bytes);
}

const PIECE_BYTES = 16 * 2 ** 20;

function valuesOfRow(shape: readonly number[]): number {
  return elementCount(shape.slice(1));
}

function wholeWords(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.byteLength % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  padded.set(bytes);
  return padded;
}

/**
 * Allocates and fills every weight of a plan but those that are filled while it runs.
 *
 * @returns Buffers by storage name, for `compile`; the caller destroys them
 * @throws {DeviceError} if memory does not suffice
 */
export async function uploadWeights(
  gpu: Gpu,
  plan: Plan,
  models: readonly Model[],
  onProgress?: (bytes: number, total: number) => void,
): Promise<Map<string, GpuBuffer>> {
  const buffers = new Map<string, GpuBuffer>();
  const weights = [...plan.storages.values()].filter((s) => s.kind === "weight" && !s.late);
  const total = weights.reduce((sum, w) => sum + w.bytes, 0);
  let done = 0;
  try {
    // All of them first: between what is on its way, they would leave holes in the device's memory.
    for (const { name, bytes } of weights) {
      const allocate = () => gpu.createBuffer(bytes, BUFFER_USAGE.storage, name);
      buffers.set(name, await gpu.allocating(`weight ${name}`, allocate));
    }
    await putPieces(piecesOf(weights, models), async ({ weight, at }, bytes) => {
      if (at === 0) onProgress?.(done, total);
      await gpu.upload(buffers.get(weight.name)!, at, bytes);
      done += bytes.byteLength;
    });
    onProgress?.(total, total);
    return buffers;
  } catch (error) {
    for (const buffer of buffers.values()) buffer.destroy();
    throw error;
  }
}

type PlannedWeight = Plan["storages"] extends ReadonlyMap<string, infer W> ? W : never;

/** The pieces of weights that models provide. */
function* piecesOf(weights: readonly PlannedWeight[], models: readonly Model[]) {
  for (const weight of weights) {
    const model = models.find((m) => m.provides(weight.name));
    if (!model) throw new InputError(`no model provides the weight "${weight.name}"; this is a bug`);
    for (const piece of model.pieces(weight.name, weight.shape)) yield { ...piece, weight };
  }
}
