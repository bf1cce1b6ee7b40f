/**
 * What a run may do instead of distilling: merge models, add a residual, cut a model, measure some. A task is written like a recipe, with the field
 * `task` to tell which one it is.
 *
 * @module
 */
import { z } from "zod";
import { didYouMean } from "../../base/did_you_mean.ts";
import { isObject } from "../../base/json.ts";
import { describeIssues, type FieldSchema } from "../../base/schema_problems.ts";
import { evaluationTasks } from "../../distill/recipe/schema/evaluate.ts";
import { RecipeError } from "../../distill/recipe/parse.ts";
import { recipeJsonSchema } from "../../distill/recipe/problems.ts";
import { ADAPTER_METHODS } from "../../merge/adapters/adapters.ts";
import { isMergekit, parseMergekit } from "../../merge/recipe/mergekit.ts";
import { type CacheTask, parseCacheTask } from "./cache_recipe.ts";
import {
  type MergeRecipe,
  MergeRecipeError,
  mergeRecipeJsonSchema,
  parseMergeRecipe,
} from "../../merge/recipe/recipe.ts";
import { DEPTH_SEARCHES } from "../../shape/depth/depth_search.ts";
import { DEPTH_METRICS } from "../../shape/depth/metrics.ts";
import { WIDTH_STRUCTURES } from "../../shape/width/flap.ts";

const model = z.string().min(1).describe(
  "Folder in Hugging Face layout, a GGUF file, or hf:ORG/NAME of the hub",
);
const dataset = z.string().min(1).describe("JSON Lines file");

const residualSchema = z.strictObject({
  task: z.literal("residual"),
  base: model.describe("What instruction tuning began from"),
  instruct: model.describe("What it made of it"),
  newBase: model.describe("What is to become an instruct model"),
  scale: z.number().default(1).describe("What the residual is multiplied by"),
  commonRows: z.boolean().default(false).describe(
    "Where vocabularies differ, change only the rows of tokens that all three have",
  ),
  rank: z.int().min(1).optional().describe("Write an adapter of this rank instead of a model"),
  dtype: z.enum(["f32", "f16", "bf16"]).optional().describe(
    "How the model is stored; as the new base when absent",
  ),
}).refine(({ rank, dtype }) => rank === undefined || dtype === undefined, {
  path: ["dtype"],
  message: "is for models; an adapter is stored in f32",
});

const shrinkSchema = z.strictObject({
  task: z.literal("shrink"),
  model,
  data: z.union([dataset, z.array(dataset).min(1)]).describe("Calibration samples, or questions"),
  layers: z.int().min(1).optional().describe("Layers that stay"),
  metric: z.enum(DEPTH_METRICS).default("loss").describe("What subsets of layers are measured by"),
  search: z.enum(DEPTH_SEARCHES).default("dp").describe("How layers are chosen"),
  keepLast: z.int().min(0).default(0).describe("Layers at the end that always stay"),
  beam: z.int().min(1).default(4).describe("Subsets that a beam search goes on with"),
  width: z.number().positive().max(1).optional().describe(
    "Part of the parameters of heads and channels that stays",
  ),
  structure: z.enum(WIDTH_STRUCTURES).default("global").describe(
    "One threshold for all layers, or the same widths everywhere",
  ),
  compensation: z.boolean().default(true).describe("Biases in place of the heads and channels that are cut"),
  faithful: z.boolean().default(false).describe("Cut the width as AmoebaLLM's code does"),
  untimed: z.boolean().optional().describe(
    "Leave out how fast shapes are, those on the frontier or near it, which takes some seconds to measure",
  ),
  contextLength: z.int().min(2).optional().describe("Longest sample in tokens"),
  limit: z.int().min(1).optional().describe("Most samples used"),
  mask: z.enum(["auto", "completion", "all"]).optional().describe("Which tokens are measured"),
  endToken: z.union([z.enum(["auto", "eos", "bos", "none"]), z.int().min(0)]).optional()
    .describe("Token put after a text"),
}).refine(({ layers, width }) => layers !== undefined || width !== undefined, {
  path: ["layers"],
  message: "say how many layers stay, or how much of their width: width",
});

const evaluateSchema = z.strictObject({
  task: z.literal("evaluate"),
  models: z.array(z.strictObject({
    model,
    name: z.string().min(1).max(60).optional().describe("What the table calls it; its own name when absent"),
  })).min(1).max(16).describe("Models that are measured; differences are to the first"),
  teacher: model.optional().describe("What tasks compare with; it is measured too"),
  tasks: evaluationTasks,
  contextLength: z.int().min(2).optional().describe("Longest text in tokens"),
});

const extractSchema = z.strictObject({
  task: z.literal("extract"),
  base: model.describe("What the adapter is for"),
  tuned: model.describe("What was made of it: the adapter comes as near to it as its rank allows"),
  rank: z.int().min(1).describe("Rank of the adapter"),
});

const exportSchema = z.strictObject({
  task: z.literal("export"),
  run: z.string().min(1).describe("A run that trained several shapes of its student"),
  shape: z.string().min(1).max(64).describe("Which of them, such as depth=4,width=0.75"),
  target: z.enum(["merged", "peft", "gguf"]).default("merged").describe(
    "A small model with the adapter merged in, the adapter with the small model beside it, or a GGUF file",
  ),
  storage: z.enum(["q8_0", "f16", "f32"]).optional().describe(
    "How a GGUF file stores weights; q8_0 when absent",
  ),
}).refine(({ target, storage }) => target === "gguf" || storage === undefined, {
  path: ["storage"],
  message: "is for the target gguf",
});

const mergeAdaptersSchema = z.strictObject({
  task: z.literal("merge-adapters"),
  adapters: z.array(z.strictObject({
    adapter: z.string().min(1).describe("Folder in PEFT's layout"),
    weight: z.number().default(1).describe("What its update is multiplied by"),
  })).min(1).max(100),
  method: z.enum(ADAPTER_METHODS).default("cat").describe(
    "cat: the sum, exactly, ranks add up; svd: that at a lower rank; linear: factors are summed, as PEFT does",
  ),
  rank: z.int().min(1).optional().describe("Rank of the result of svd"),
  into: model.optional().describe("Merge them into this base model"),
  dtype: z.enum(["f32", "f16", "bf16"]).optional().describe(
    "How that model is stored; as the base when absent",
  ),
}).refine(({ method, rank }) => (method === "svd") === (rank !== undefined), {
  path: ["rank"],
  message: "is for the method svd, which needs it",
}).refine(({ into, dtype }) => into !== undefined || dtype === undefined, {
  path: ["dtype"],
  message: "is for models; an adapter is stored in f32",
});

const SCHEMAS = {
  residual: residualSchema,
  shrink: shrinkSchema,
  evaluate: evaluateSchema,
  extract: extractSchema,
  export: exportSchema,
  "merge-adapters": mergeAdaptersSchema,
} as const;

/** Merges models: beside `task` what a merge recipe holds, ours or mergekit's, as it is written. */
export interface MergeTask {
  readonly task: "merge";
  readonly [field: string]: unknown;
}

/** Adds an instruction residual. */
export type ResidualTask = z.output<typeof residualSchema>;

/** Cuts layers, heads and channels out of a model. */
export type ShrinkTask = z.output<typeof shrinkSchema>;

/** Measures models on tasks. */
export type EvaluateTask = z.output<typeof evaluateSchema>;

/** Writes the difference of two models as an adapter. */
export type ExtractTask = z.output<typeof extractSchema>;

/** Writes one shape of a run that trained several. */
export type ExportTask = z.output<typeof exportSchema>;

/** Makes one adapter of several, or merges them into a model. */
export type MergeAdaptersTask = z.output<typeof mergeAdaptersSchema>;

export type { CacheTask };

/** What a run may do instead of distilling. */
export type Task =
  | CacheTask
  | MergeTask
  | ResidualTask
  | ShrinkTask
  | EvaluateTask
  | ExtractTask
  | ExportTask
  | MergeAdaptersTask;

/** Names of all tasks. */
export const TASKS: readonly Task["task"][] = [
  "merge",
  "residual",
  "shrink",
  "evaluate",
  "cache",
  "extract",
  "export",
  "merge-adapters",
];

/**
 * The JSON Schemas of tasks, as requests write them; a merge is also taken in mergekit's words. The folder of the result is the run's own,
 * and a chat template is a program, which a request may not bring along.
 */
export function taskJsonSchemas(): Readonly<Record<Task["task"], FieldSchema>> {
  const { properties, ...merge } = mergeRecipeJsonSchema();
  const { output: _output, chatTemplate: _template, ...fields } = properties ?? {};
  const written = merge as FieldSchema & { required?: string[] };
  const ofSchema = (schema: z.ZodType) => z.toJSONSchema(schema, { io: "input" }) as FieldSchema;
  return {
    merge: {
      ...written,
      properties: { task: { const: "merge", type: "string" } as FieldSchema, ...fields },
      required: ["task", ...written.required ?? []],
    } as FieldSchema,
    residual: ofSchema(residualSchema),
    shrink: ofSchema(shrinkSchema),
    evaluate: ofSchema(evaluateSchema),
    cache: {
      type: "object",
      properties: {
        task: { const: "cache", type: "string" } as FieldSchema,
        recipe: {
          ...recipeJsonSchema(),
          description: "Of a distillation, with teacher.cache",
        } as FieldSchema,
      },
      required: ["task", "recipe"],
      additionalProperties: false,
    } as FieldSchema,
    extract: ofSchema(extractSchema),
    export: ofSchema(exportSchema),
    "merge-adapters": ofSchema(mergeAdaptersSchema),
  };
}

/** Whether something says of itself that it is a task, checked or not. */
export function saysTask(value: unknown): value is { task: unknown } {
  return isObject(value) && Object.hasOwn(value, "task");
}

/**
 * Checks a task and fills in its defaults. Paths are left as they are; nothing is opened.
 *
 * @param where How errors name it, such as its file
 * @throws {RecipeError} with every problem at once
 */
export function parseTask(value: unknown, where = "recipe"): Task {
  const name = isObject(value) ? value.task : undefined;
  if (name === "merge") {
    mergeRecipeOf(value as MergeTask, where);
    return value as MergeTask;
  }
  if (name === "cache") return parseCacheTask(value as Readonly<Record<string, unknown>>, where);
  if (typeof name !== "string" || !Object.hasOwn(SCHEMAS, name)) {
    const near = typeof name === "string" ? didYouMean(name, TASKS) : "";
    throw new RecipeError(where, [{
      path: "task",
      message: `must be one of ${TASKS.join(", ")}, not ${JSON.stringify(name)}${near}`,
    }]);
  }
  const schema = SCHEMAS[name as keyof typeof SCHEMAS];
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = z.toJSONSchema(schema, { io: "input" }) as FieldSchema;
  throw new RecipeError(where, describeIssues(parsed.error.issues, value, fields));
}

/**
 * The merge that a task means.
 *
 * @throws {RecipeError} with every problem at once
 */
export function mergeRecipeOf({ task: _, ...written }: MergeTask, where = "recipe"): MergeRecipe {
  let recipe: MergeRecipe;
  try {
    recipe = isMergekit(written) ? mergekitRecipe(written, where) : parseMergeRecipe(written, where);
  } catch (error) {
    if (!(error instanceof MergeRecipeError)) throw error;
    throw new RecipeError(where, error.problems);
  }
  if (recipe.output === undefined) return recipe;
  throw new RecipeError(where, [{ path: "output", message: "is the run's own folder; leave it out" }]);
}

/** mergekit's file has no place for what the command line takes as `--like`. */
function mergekitRecipe({ like, ...written }: Readonly<Record<string, unknown>>, where: string): MergeRecipe {
  const recipe = parseMergekit(written, where);
  if (like === undefined) return recipe;
  if (typeof like === "string" && like !== "") return { ...recipe, like };
  throw new MergeRecipeError(where, [{
    path: "like",
    message: "must be the name of a program, such as mergekit",
  }]);
}

/** What a task leaves in its run's folder. */
export const TASK_OUTPUTS = {
  ...{ model: "merged", adapter: "adapter", shape: "shape.json", gguf: "model.gguf" },
} as const;

/** Which of {@linkcode TASK_OUTPUTS} a task leaves. */
export function outputsOf(task: Task): readonly (keyof typeof TASK_OUTPUTS)[] {
  if (task.task === "shrink") return ["model", "shape"];
  if (task.task === "evaluate" || task.task === "cache") return [];
  if (task.task === "extract") return ["adapter"];
  if (task.task === "merge-adapters") return [task.into === undefined ? "adapter" : "model"];
  if (task.task === "export") {
    return [({ merged: "model", peft: "adapter", gguf: "gguf" } as const)[task.target]];
  }
  return task.task === "residual" && task.rank !== undefined ? ["adapter"] : ["model"];
}
