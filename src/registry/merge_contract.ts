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

/** What a merge is given of one parent. Values, and those of the base, are the merge's own: it may change them in place. */
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
  /** In the order of the recipe. */
  readonly parents: readonly MergeParent<ParentOptions>[];
  readonly options: Options;
  /**
   * Uniform numbers in [0, 1) for each entry, drawn from (seed of the merge, name of the tensor, number of the parent): the same whatever
   * else is merged and in which order.
   */
  random(parent: number): Float32Array;
  readonly linalg: LinearAlgebra;
  /** What {@linkcode MergeSurvey.see} gathered; undefined where it has no passes. */
  readonly survey?: unknown;
}

/** What a call of `merge` sees: see {@linkcode MergeDefinition.unit}. */
export type MergeUnit = "entries" | "tensor";

/**
 * A look at all tensors before any is merged, for what depends on whole models. What it remembers must not grow with the models.
 *
 * The host makes `begin()` once, then `passes` times shows every tensor, in any order and in pieces.
 */
export interface MergeSurvey<Options, ParentOptions> {
  /** How often it has to see every tensor; 0 where these options need no survey. */
  passes(options: Options): number;
  /** What it remembers at first, for so many parents. */
  begin(parents: number): unknown;
  /** Takes a tensor, or a piece of one, into what it remembers. `pass` counts from 0. */
  see(
    memory: unknown,
    input: Pick<MergeInput<Options, ParentOptions>, "name" | "base" | "parents" | "options">,
    pass: number,
  ): void;
}

/** What another program does, where that differs. */
export interface MergeLikeness<Options, ParentOptions> {
  /** Its choices, taken for options that a recipe does not give: `--like NAME`. */
  readonly options?: Options;
  /** Its choices for options of parents. */
  readonly parent?: ParentOptions;
  /**
   * What it calls options, of the merge or of parents, where that is not our name in snake_case: `{nuslerp_flatten: "flatten"}`. Read
   * whether or not its choices are taken.
   */
  readonly names?: Readonly<Record<string, string>>;
}

/** How a merge is written. */
export interface MergeDefinition<
  Schema extends OptionsSchema = OptionsSchema,
  ParentSchema extends OptionsSchema = OptionsSchema,
> extends PluginHeader<Schema> {
  /** Options that each parent has for itself, such as its weight. All have defaults. */
  readonly parentOptions: ParentSchema;
  /**
   * Whether the differences to a base model are merged; `optional` where it works with and without. With both the base is not among the
   * parents. `first`: a base, where the recipe names one, is the first of the parents. `none`: a base is a parent like any other.
   */
  readonly base: "required" | "optional" | "first" | "none";
  /** How many parents it takes, the base not counted unless it is one of them. */
  readonly parents: { readonly least: number; readonly most?: number };
  /**
   * What a call sees. `entries`: each entry of the result depends on the same entry of the parents alone, so that tensors come in pieces;
   * `tensor`: whole tensors. A function where it depends on the options.
   */
  readonly unit: MergeUnit | ((options: z.output<Schema>) => MergeUnit);
  readonly survey?: MergeSurvey<z.output<Schema>, z.output<ParentSchema>>;
  /** By the other program's name. */
  readonly like?: Readonly<Record<string, MergeLikeness<z.input<Schema>, z.input<ParentSchema>>>>;
  /**
   * The merged values, as many as each parent has. It may be a parent's or the base's own array.
   *
   * Work in f32; statistics in f64.
   */
  merge(input: MergeInput<z.output<Schema>, z.output<ParentSchema>>): Float32Array | Promise<Float32Array>;
  /** What must hold of it, for `limbeck plugin check`. */
  readonly identities?: MergeIdentities<z.input<Schema>, z.input<ParentSchema>>;
}

/** What must hold of a merge. */
export interface MergeIdentities<Options, ParentOptions> {
  /** Parents equal to one another, and to the base if there is one, give that model: false where they do not. `true` when absent. */
  readonly equalParents?: boolean;
  /** Options under which the result is the base whatever the parents are. */
  readonly base?: { readonly options?: Options; readonly parent?: ParentOptions };
  /** Options of the merge, and of each of several parents, under which the first of them is the result. */
  readonly first?: { readonly options?: Options; readonly parents: readonly ParentOptions[] };
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
