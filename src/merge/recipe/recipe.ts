/**
 * What a merge is to do, whichever way it was written down.
 *
 * @module
 */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { describeIssues, type FieldSchema, type SchemaProblem } from "../../base/schema_problems.ts";
import type { FloatDtype } from "../../formats/dtype.ts";
import { type Settings, settingSchema } from "./setting.ts";

/** Whose tokens the result has. `base`: the base's; `union`: the base's and then those that only others have; else a model's. */
export type VocabularySource = { readonly of: "base" | "union" } | {
  readonly of: "model";
  readonly model: string;
};

/** A model, or some of its layers, that goes into a slice. */
export interface MergeSource {
  /** Folder or GGUF file. */
  readonly model: string;
  /** First layer and the one after the last; all when absent. */
  readonly layers?: readonly [first: number, end: number] | undefined;
  readonly options: Settings;
  /** Where it stands in the file, such as `models.0`, for errors. */
  readonly where: string;
}

/** Layers of the result that are made of as many layers of each source. */
export interface MergeSlice {
  readonly sources: readonly MergeSource[];
  readonly options: Settings;
  readonly where: string;
}

/** A merge, as it is written: nothing is opened, and the method's options are not checked. */
export interface MergeRecipe {
  /** Id of the method. */
  readonly method: string;
  /** The model whose differences to the others are merged. */
  readonly base?: string | undefined;
  /** One after another from the first layer of the result. */
  readonly slices: readonly MergeSlice[];
  /** Options of the method, and of every parent that does not set them itself. */
  readonly options: Settings;
  /** Where `options` stand in the file. */
  readonly optionsAt: string;
  /** What parents are rounded to before they are merged; as they are when absent. */
  readonly dtype?: FloatDtype | undefined;
  /** How the result is stored; `dtype`, or else what holds the parents, when absent. */
  readonly outDtype?: FloatDtype | undefined;
  readonly vocabulary?: VocabularySource | undefined;
  /** A Jinja template that the result's tokenizer is to have. */
  readonly chatTemplate?: string | undefined;
  readonly seed: number;
  /** A program whose choices are followed where they differ from the method's paper. */
  readonly like?: string | undefined;
  /** Folder of the result, if the file names one. */
  readonly output?: string | undefined;
  /** What was read, as it was written. */
  readonly written: unknown;
  /** What the reader should know of how the file was understood. */
  readonly notes: readonly string[];
  /** Whether it was written for mergekit, whose choices a reader may expect. */
  readonly writtenFor?: "mergekit" | undefined;
}

/** A merge recipe that breaks rules. */
export class MergeRecipeError extends InputError {
  override readonly code = "bad_recipe";
  readonly problems: readonly SchemaProblem[];

  constructor(where: string, problems: readonly SchemaProblem[], hint?: string) {
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    const lines = problems.map(({ path, message }) => `\n  ${path || "(whole recipe)"}: ${message}`);
    super(`${count} in the merge recipe${lines.join("")}`, hint === undefined ? { where } : { where, hint });
    this.problems = problems;
  }
}

const model = z.string().min(1).describe(
  "Folder in Hugging Face layout, a GGUF file, or hf:ORG/NAME of the hub",
);
const dtype = z.enum(["f32", "f16", "bf16"]);
const layers = z.tuple([z.int().min(0), z.int().min(1)])
  .describe("First layer and the one after the last");
const options = z.record(z.string(), settingSchema).default({});

/** A merge as one writes it. */
const mergeRecipeSchema = z.strictObject({
  method: z.string().min(1).describe("Id of the method, such as ties; `limbeck plugin list` names them"),
  base: model.optional().describe("The model that the others were trained from"),
  models: z.array(z.object({ model }).catchall(settingSchema)).min(1).optional()
    .describe("The models to merge, each with its own options, such as weight"),
  slices: z.array(z.strictObject({
    sources: z.array(z.object({ model, layers }).catchall(settingSchema)).min(1),
    options: options.describe("Options in this slice"),
  })).min(1).optional().describe("Layers of the result, instead of models"),
  options: options.describe("Options of the method, and of models that do not set them"),
  dtype: dtype.optional().describe("What models are rounded to before they are merged"),
  outDtype: dtype.optional().describe("How the result is stored"),
  tokenizer: z.string().min(1).optional().describe("Whose tokens the result has: base, union or a model"),
  chatTemplate: z.string().min(1).optional().describe("A Jinja template for conversations"),
  seed: z.int().min(0).default(0).describe("What random choices begin from"),
  like: z.string().min(1).optional().describe(
    "Follow a program, such as mergekit, where it differs from the paper",
  ),
  output: z.string().min(1).optional().describe("Folder of the result"),
});

let cachedSchema: FieldSchema | undefined;

/** The JSON Schema of a merge recipe, as it is written. */
export function mergeRecipeJsonSchema(): FieldSchema {
  return cachedSchema ??= z.toJSONSchema(mergeRecipeSchema, { io: "input" }) as FieldSchema;
}

/** The fields that a recipe may have. */
export const MERGE_RECIPE_FIELDS: readonly string[] = Object.keys(mergeRecipeSchema.shape);

/**
 * Checks a merge written in our own words.
 *
 * @param where How errors name the recipe
 * @throws {MergeRecipeError} with every problem at once
 */
export function parseMergeRecipe(value: unknown, where = "merge recipe"): MergeRecipe {
  const parsed = mergeRecipeSchema.safeParse(value);
  if (!parsed.success) {
    throw new MergeRecipeError(where, describeIssues(parsed.error.issues, value, mergeRecipeJsonSchema()));
  }
  const { models, slices, tokenizer, ...rest } = parsed.data;
  if ((models === undefined) === (slices === undefined)) {
    throw new MergeRecipeError(where, [{
      path: "models",
      message: "give either models, which are merged whole, or slices",
    }]);
  }
  return {
    ...rest,
    optionsAt: "options",
    slices: models
      ? [{ sources: models.map((entry, i) => sourceOf(entry, `models.${i}`)), options: {}, where: "models" }]
      : slices!.map(({ sources, options }, i) => ({
        sources: sources.map((entry, j) => sourceOf(entry, `slices.${i}.sources.${j}`)),
        options,
        where: `slices.${i}`,
      })),
    vocabulary: tokenizer === undefined ? undefined : vocabularySource(tokenizer),
    written: value,
    notes: [],
  };
}

function sourceOf(
  { model, layers, ...options }:
    & { model: string; layers?: readonly [number, number] }
    & Record<string, unknown>,
  where: string,
): MergeSource {
  return { model, layers, options: options as Settings, where };
}

/** What the value of a field that says whose tokens the result has means. */
export function vocabularySource(tokenizer: string): VocabularySource {
  return tokenizer === "base" || tokenizer === "union"
    ? { of: tokenizer }
    : { of: "model", model: tokenizer };
}

/** Every model that is merged, each once, the base first. */
export function mergedModels(recipe: MergeRecipe): string[] {
  const { base } = recipe;
  return [...new Set([...(base === undefined ? [] : [base]), ...sourceModels(recipe)])];
}

/** Every model whose part of the result is told by a weight or a place, each once: the base only where it is among them. */
export function sourceModels({ slices }: Pick<MergeRecipe, "slices">): string[] {
  return [...new Set(slices.flatMap(({ sources }) => sources.map(({ model }) => model)))];
}

/** Every model that is read, each once: those merged, and the one whose tokens the result has. */
export function modelsOf(recipe: MergeRecipe): string[] {
  const { vocabulary } = recipe;
  return [...new Set([...mergedModels(recipe), ...(vocabulary?.of === "model" ? [vocabulary.model] : [])])];
}

/** The same merge with other paths. */
export function mapModels(recipe: MergeRecipe, map: (path: string) => string): MergeRecipe {
  const { vocabulary } = recipe;
  return {
    ...recipe,
    base: recipe.base === undefined ? undefined : map(recipe.base),
    slices: recipe.slices.map((slice) => ({
      ...slice,
      sources: slice.sources.map((source) => ({ ...source, model: map(source.model) })),
    })),
    vocabulary: vocabulary?.of === "model" ? { of: "model", model: map(vocabulary.model) } : vocabulary,
    output: recipe.output === undefined ? undefined : map(recipe.output),
  };
}
