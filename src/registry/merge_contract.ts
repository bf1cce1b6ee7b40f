/**
 * The contract of merges: how the weights of several models become those of one.
 *
 * A merge sees one tensor at a time, all of it or pieces, as f32 values of every parent; names, slices of layers, parameters that differ
 * from tensor to tensor, storage and files are the host's.
 *
 * @module
 */
import type { z } from "zod";
import type { OptionsSchema, PluginHeader } from "../base/plugin.ts";
import type { LinearAlgebra } from "./adapter_contract.ts";

/** What a merge is given of one parent. Values are the merge's own: it may change them in place. */
export interface MergeParent<ParentOptions = Record<string, unknown>> {
  /** Row-major, f32. */
  readonly values: Float32Array;
  /** Read for this tensor: gradients along the layers and filters by name are already applied. */
  readonly options: ParentOptions;
}

/** One tensor of every parent, or one piece of it: see {@linkcode MergeDefinition.unit}. */
export interface MergeInput<Options = Record<string, unknown>, ParentOptions = Record<string, unknown>> {
  /** Name of the tensor in the result. */
  readonly name: string;
  /** Of the whole tensor. */
  readonly shape: readonly number[];
  /** Of the base model; undefined where the recipe names none. */
  readonly base?: Float32Array;
  /** In the order of the recipe, the base not among them. */
  readonly parents: readonly MergeParent<ParentOptions>[];
  readonly options: Options;
  /**
   * Uniform numbers in [0, 1) for each entry, drawn from (seed of the merge, name of the tensor, number of the parent): the same whatever
   * else is merged and in which order.
   */
  random(parent: number): Float32Array;
  readonly linalg: LinearAlgebra;
}

/** How a merge is written. */
export interface MergeDefinition<
  Schema extends OptionsSchema = OptionsSchema,
  ParentSchema extends OptionsSchema = OptionsSchema,
> extends PluginHeader<Schema> {
  /** Options that each parent has for itself, such as its weight. */
  readonly parentOptions: ParentSchema;
  /** Whether the differences to a base model are merged; `optional` where it works with and without. */
  readonly base: "required" | "optional" | "none";
  /** How many parents it takes beside the base. */
  readonly parents: { readonly least: number; readonly most?: number };
  /**
   * What a call sees. `entries`: each entry of the result depends on the same entry of the parents alone, so that tensors come in pieces;
   * `tensor`: whole tensors.
   */
  readonly unit: "entries" | "tensor";
  /** Options that do what another program does where it differs from the paper: `--like NAME`. */
  readonly like?: Readonly<Record<string, z.input<Schema>>>;
  /**
   * The merged values, as many as each parent has. It may be a parent's or the base's own array.
   *
   * Work in f32; statistics in f64.
   */
  merge(input: MergeInput<z.output<Schema>, z.output<ParentSchema>>): Float32Array | Promise<Float32Array>;
  /** Options and those of parents under which merging equal models gives that model: what a check merges first. */
  readonly identities?: MergeIdentities<z.input<Schema>, z.input<ParentSchema>>;
}

/** What must hold of a merge, for a check. */
export interface MergeIdentities<Options, ParentOptions> {
  /** Equal parents (equal to the base, if there is one) give that model: false where they do not. `true` when absent. */
  readonly equalParents?: boolean;
  /** Options under which the result is the base. */
  readonly base?: { readonly options: Options; readonly parent: ParentOptions };
  /** Options under which one parent alone, or the first of the least number, is the result. */
  readonly first?: { readonly options: Options; readonly parents: readonly ParentOptions[] };
  /** The order of the parents does not matter. */
  readonly symmetric?: boolean;
}

/** A registered merge. */
export interface Merge extends MergeDefinition {
  readonly kind: "merge";
}

/**
 * A way to merge models.
 *
 * @example Task arithmetic (arXiv 2212.04089): W = W_0 + sum_i w_i (W_i - W_0)
 * ```ts
 * import { z } from "zod";
 * import { CONTRACT_VERSION, defineMerge } from "./contract.ts";
 *
 * export default defineMerge({
 *   id: "ada/add-differences",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   options: z.strictObject({}),
 *   parentOptions: z.strictObject({ weight: z.number().default(1) }),
 *   base: "required",
 *   parents: { least: 1 },
 *   unit: "entries",
 *   merge: ({ base, parents }) =>
 *     base!.map((w0, i) => parents.reduce((w, p) => w + p.options.weight * (p.values[i]! - w0), w0)),
 * });
 * ```
 */
export function defineMerge<Schema extends OptionsSchema, ParentSchema extends OptionsSchema>(
  definition: MergeDefinition<Schema, ParentSchema>,
): Merge {
  return { ...definition as unknown as MergeDefinition, kind: "merge" };
}
