/**
 * Merging models: from a recipe to a folder that transformers loads.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { DiskFullError, freeBytes, isTaken, openFile } from "../../formats/files.ts";
import { fingerprint } from "../../formats/huggingface/huggingface.ts";
import { writeHuggingFaceFolder } from "../../formats/huggingface/write.ts";
import { tensorBytes } from "../../formats/safetensors/write.ts";
import type { Merge } from "../../registry/contract.ts";
import type { WeightsHash } from "../written/card_text.ts";
import type { Parents } from "../parents/parents.ts";
import type { MergeRecipe } from "../recipe/recipe.ts";
import { type MergeWork, TensorMerger } from "./merge_tensors.ts";
import { modelCard } from "./model_card.ts";
import type { ModelFamily } from "../../models/family.ts";
import { openParents } from "./open_parents.ts";
import { type MergePlan, passesOf, planMerge, type PlannedTensor } from "./plan.ts";

/** How far a merge is. */
export interface MergeProgress {
  /** Tensors written. */
  readonly tensors: number;
  readonly tensorsTotal: number;
  /** Bytes of f32 values read. */
  readonly bytes: number;
  readonly bytesTotal: number;
}

/** How models are merged. */
export interface MergeModelsOptions extends Omit<MergeWork, "onBytes"> {
  /** A method by its id. @throws {InputError} where there is none */
  readonly method: (id: string) => Merge;
  /** Families of models beside the built-in ones. */
  readonly families?: readonly ModelFamily[] | undefined;
  /** How errors name the recipe. */
  readonly where?: string;
  /** Most bytes of tensors in one file. */
  readonly shardBytes?: number;
  /** Called when all is checked, before anything is written. */
  readonly onPlan?: (plan: MergePlan) => void;
  readonly onProgress?: (progress: MergeProgress) => void;
}

/** What a merge left. */
export interface MergeResult {
  readonly output: string;
  readonly method: string;
  readonly tensors: number;
  /** Values in all of them. */
  readonly parameters: number;
  readonly dtype: string;
  /** Every model that was read, with the SHA-256 of its weights. */
  readonly models: readonly WeightsHash[];
  /** SHA-256 of the weights that were written, by file. */
  readonly files: Readonly<Record<string, string>>;
  readonly seconds: number;
}

/**
 * Plans a merge without carrying it out.
 *
 * @throws {InputError} as {@linkcode mergeModels}
 */
export async function previewMerge(
  recipe: MergeRecipe,
  { method, where = "merge recipe", families }: Pick<MergeModelsOptions, "method" | "where" | "families">,
): Promise<MergePlan> {
  const found = method(recipe.method);
  const parents = await openParents(recipe, found, where, families);
  try {
    return await planMerge(recipe, found, parents, where);
  } finally {
    parents.close();
  }
}

/**
 * Merges models into a folder, tensor by tensor: whole or not at all. All that can be checked is checked before a byte is written.
 *
 * @throws {MergeRecipeError} with every problem of the recipe
 * @throws {InputError} for models that do not fit each other, values that are not finite, or an output that is there already
 * @throws {DiskFullError} when the disk cannot hold the result
 *
 * @example
 * ```ts ignore
 * const recipe = await loadMergeRecipe("merge.yaml");
 * await mergeModels(recipe, "merged", { method: (id) => registry.get("merge", id), linalg: exactLinearAlgebra });
 * ```
 */
export async function mergeModels(
  recipe: MergeRecipe,
  output: string,
  options: MergeModelsOptions,
): Promise<MergeResult> {
  const begun = performance.now();
  if (await isTaken(output)) {
    throw new InputError("is already there", { where: output, hint: "choose another name, or remove it" });
  }
  const method = options.method(recipe.method);
  const where = options.where ?? "merge recipe";
  const parents = await openParents(recipe, method, where, options.families);
  try {
    const plan = await planMerge(recipe, method, parents, where);
    await checkSpace(output, plan);
    options.onPlan?.(plan);
    const progress = progressOf(plan, options.onProgress);
    const merger = await TensorMerger.begin(plan, parents, { ...options, onBytes: progress.read });
    // Files are hashed while others wait for the disk; who waits for it hears of a failure.
    const hashed = hashesOfModels(parents);
    hashed.catch(() => {});
    let models: WeightsHash[] = [];
    let files = new Map<string, string>();
    await writeHuggingFaceFolder(output, {
      config: plan.config,
      tokenizer: withTemplate(plan),
      tensors: new Map(plan.tensors.map(({ name, shape }) => [name, shape])),
      read: (name) => counted(merger.merge(name), progress.written),
    }, {
      dtype: plan.dtype,
      ...(options.shardBytes === undefined ? {} : { shardBytes: options.shardBytes }),
      async readme(folder) {
        models = await hashed;
        files = await hashesOf(folder);
        options.signal?.throwIfAborted();
        return modelCard(plan, basename(output), models, files);
      },
    });
    return {
      output,
      method: method.id,
      tensors: plan.tensors.length,
      parameters: plan.tensors.reduce((sum, tensor) => sum + values(tensor), 0),
      dtype: plan.dtype,
      models,
      files: Object.fromEntries(files),
      seconds: (performance.now() - begun) / 1000,
    };
  } finally {
    parents.close();
  }
}

/** Refuses a result that the disk has no room for, where the system says how much there is. */
async function checkSpace(output: string, { tensors, dtype }: MergePlan): Promise<void> {
  const stored = ({ f32: "F32", f16: "F16", bf16: "BF16" } as const)[dtype];
  const needed = tensors.reduce((sum, { shape }) => sum + tensorBytes(stored, shape), 0);
  let folder = dirname(output);
  while (!await isTaken(folder) && dirname(folder) !== folder) folder = dirname(folder);
  const free = await freeBytes(folder);
  if (free !== undefined && needed > free) throw new DiskFullError(output, needed, free);
}

function progressOf(plan: MergePlan, report: ((progress: MergeProgress) => void) | undefined) {
  const inputs = plan.tensors.reduce(
    (sum, tensor) => sum + 4 * values(tensor) * (tensor.parents.length + (tensor.base ? 1 : 0)),
    0,
  );
  const state = {
    tensors: 0,
    tensorsTotal: plan.tensors.length,
    bytes: 0,
    bytesTotal: inputs * (1 + passesOf(plan)),
  };
  return {
    read(bytes: number) {
      state.bytes += bytes;
      report?.({ ...state });
    },
    written() {
      state.tensors++;
      report?.({ ...state });
    },
  };
}

function values({ shape }: PlannedTensor): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The same pieces; says when the last was taken. */
async function* counted<T>(pieces: AsyncIterable<T>, done: () => void): AsyncGenerator<T> {
  yield* pieces;
  done();
}

/** The tokenizer's files, with the template that the recipe wants. */
function withTemplate({ vocabulary: { tokenizer }, recipe: { chatTemplate } }: MergePlan) {
  if (!tokenizer || chatTemplate === undefined) return tokenizer;
  const originals = tokenizer.originals &&
    new Map([...tokenizer.originals, ["chat_template.jinja", chatTemplate]]);
  return { ...tokenizer, chatTemplate, ...(originals ? { originals } : {}) };
}

async function hashesOfModels(parents: Parents): Promise<WeightsHash[]> {
  const hashes: WeightsHash[] = [];
  for (const { name, source } of parents) hashes.push({ model: name, sha256: await source.fingerprint() });
  return hashes;
}

/** SHA-256 of every file of weights in a folder. */
async function hashesOf(folder: string): Promise<Map<string, string>> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) if (name.endsWith(".safetensors")) names.push(name);
  const hashes = new Map<string, string>();
  for (const name of names.sort()) {
    const source = await openFile(join(folder, name));
    try {
      hashes.set(name, await fingerprint([source]));
    } finally {
      source.close?.();
    }
  }
  return hashes;
}
