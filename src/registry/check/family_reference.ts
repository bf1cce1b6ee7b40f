/**
 * What a family is held to: a small model with what another program computes of it.
 *
 * @module
 */

/** f32 values, row by row. */
export interface ReferenceArray {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** A folder of reference values, read; docs/families.md has its files. */
export interface FamilyReference {
  /** The folder, for errors. */
  readonly where: string;
  /** By the names of their files. All must mean the same: config.json, and config.legacy.json where there is one. */
  readonly configs: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  /** Weights by their Hugging Face names. */
  readonly tensors: ReadonlyMap<string, ReferenceArray>;
  /** Sequences of token ids, all of one length. */
  readonly ids: readonly (readonly number[])[];
  /** `logits` [sequences, length, V]; of the first sequence, where they are there, `embed`, `layer_i` and `final_norm` [length, H]. */
  readonly expected: ReadonlyMap<string, ReferenceArray>;
}
