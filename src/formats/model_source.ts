/**
 * A model on disk, whatever its format: its config in the shape of a Hugging Face config.json, its tensors under Hugging Face
 * names, its tokenizer.
 *
 * @module
 */
import type { FloatDtype } from "./dtype.ts";
import type { NestedMagnitudes } from "./nf4.ts";
import type { TensorData } from "./safetensors/safetensors.ts";

export type { TensorData } from "./safetensors/safetensors.ts";

/** What is known of a tensor before it is read. */
export interface TensorInfo {
  /** As the file stores it: F32, F16, BF16, another safetensors dtype, or a GGUF type such as Q8_0. */
  readonly dtype: string;
  /** Rows first. */
  readonly shape: number[];
  /** The smallest storage that holds the stored values exactly; f32 for most quantised types. */
  readonly exactDtype: FloatDtype;
}

/** The files that make up a tokenizer, parsed. */
export interface TokenizerFiles {
  /** tokenizer.json. */
  readonly tokenizerJson: unknown;
  /** tokenizer_config.json; empty when there is none. */
  readonly tokenizerConfig: Record<string, unknown>;
  /** The Jinja template for conversations, if the model has one. */
  readonly chatTemplate?: string;
  /** generation_config.json, if there is one. */
  readonly generationConfig?: Record<string, unknown>;
  /** The bytes of tokenizer.model, where that is what the tokenizer was read from. */
  readonly sentencePieceModel?: Uint8Array;
  /** Where it was read, if not in the model itself. */
  readonly where?: string;
  /** The text of every tokenizer file the model came with, by name; absent for a tokenizer made from GGUF metadata. */
  readonly originals?: ReadonlyMap<string, string>;
}

/** A weight that a file has in NF4, one list of values row after row. */
export interface StoredNf4 {
  /** Whether the magnitudes of its blocks are quantised in their turn. */
  readonly nested: boolean;
  /** Codes of values `from` to `from + count`; `from` is even. */
  packed(from: number, count: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Of all blocks. */
  magnitudes(): Promise<Float32Array<ArrayBuffer>>;
  /** Of all blocks, as they are stored where they are nested. */
  nestedMagnitudes(): Promise<NestedMagnitudes>;
}

/** An open model. Nothing but headers is read until it is asked for. */
export interface ModelSource {
  readonly path: string;
  readonly kind: "huggingface" | "gguf";
  /** config.json, or the same made from GGUF metadata. */
  readonly config: Record<string, unknown>;
  /** Every tensor by its Hugging Face name. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** A whole tensor in its `exactDtype`. @throws {InputError} when there is none of that name, or its dtype is none of ours. */
  read(name: string): Promise<TensorData>;
  /** Rows `first` to `first + count` of a tensor, so that a large one can be uploaded in pieces. */
  readRows(name: string, first: number, count: number): Promise<TensorData>;
  /**
   * The bytes of rows of a matrix as the file stores them, in blocks of the type that `dtype` names; the rows are those of `readRows`.
   * Absent where a model's rows are no rows of a file.
   */
  readBlocks?(name: string, first: number, count: number): Promise<Uint8Array<ArrayBuffer>>;
  /** A weight in NF4; undefined for all others. Absent where there are none. */
  nf4?(name: string): StoredNf4 | undefined;
  tokenizer(): Promise<TokenizerFiles>;
  /** sha256 over the weight files in lower-case hexadecimal; of a single file it is what `sha256sum` prints. */
  fingerprint(): Promise<string>;
  close(): void;
}
