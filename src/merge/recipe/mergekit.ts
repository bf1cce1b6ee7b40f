/**
 * mergekit's YAML (https://github.com/arcee-ai/mergekit, docs/configuration), read as it is. What is not supported is an error that
 * names the field.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { resolve } from "@std/path";
import { z } from "zod";
import { describeIssues, type FieldSchema, type SchemaProblem } from "../../base/schema_problems.ts";
import type { FloatDtype } from "../../formats/dtype.ts";
import { isObject } from "../../base/json.ts";
import {
  type MergeRecipe,
  MergeRecipeError,
  type MergeSlice,
  type MergeSource,
  vocabularySource,
} from "./recipe.ts";
import { type Setting, type Settings, settingSchema } from "./setting.ts";

const DTYPES: Readonly<Record<string, FloatDtype>> = { float32: "f32", float16: "f16", bfloat16: "bf16" };

const parameters = z.record(z.string(), settingSchema).nullish();
const model = z.string().min(1).describe("Folder in Hugging Face layout, or a GGUF file");
const dtype = z.enum(["float32", "float16", "bfloat16"]).nullish();

const mergekitSchema = z.strictObject({
  merge_method: z.string().min(1),
  base_model: model.nullish(),
  models: z.array(z.strictObject({ model, parameters })).min(1).nullish(),
  slices: z.array(z.strictObject({
    sources: z.array(z.strictObject({
      model,
      layer_range: z.tuple([z.int().min(0), z.int().min(1)]),
      parameters,
    })).min(1),
    parameters,
  })).min(1).nullish(),
  parameters,
  dtype,
  out_dtype: dtype,
  tokenizer_source: z.string().min(1).nullish(),
  tokenizer: z.strictObject({ source: z.string().min(1) }).nullish(),
  chat_template: z.string().min(1).nullish(),
});

/** The fields that a file may have. */
export const MERGEKIT_FIELDS: readonly string[] = Object.keys(mergekitSchema.shape);

/** Fields that mergekit has and this does not, with what to do instead. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  modules: "models of several modules are not supported; merge the language models alone",
  residual_weight: "is not supported (mergekit itself does nothing with it); leave it out",
  base_model: "one base for the whole merge is supported; name it at the top",
  tokens: "embeddings of single tokens cannot be chosen; leave it out",
  pad_to_multiple_of: "embeddings are not padded; leave it out",
  lora: "adapters are not merged in on the way; merge the adapter into its base first",
  adapter: "adapters are not merged in on the way; merge the adapter into its base first",
};

/** Parameters that say how mergekit is to work, without effect on what comes out. */
const WITHOUT_EFFECT = ["int8_mask"];

/** Whether something read from a file is written in mergekit's words. */
export function isMergekit(value: unknown): boolean {
  return isObject(value) && Object.hasOwn(value, "merge_method");
}

let cachedSchema: FieldSchema | undefined;

/**
 * Reads a merge written for mergekit.
 *
 * @param where How errors name the file
 * @throws {MergeRecipeError} with every problem at once
 */
export function parseMergekit(value: unknown, where: string): MergeRecipe {
  const parsed = mergekitSchema.safeParse(value);
  if (!parsed.success) {
    cachedSchema ??= z.toJSONSchema(mergekitSchema, { io: "input" }) as FieldSchema;
    const problems = describeIssues(parsed.error.issues, value, cachedSchema);
    throw new MergeRecipeError(where, problems.map(namingUnsupported));
  }
  const file = parsed.data;
  const problems: SchemaProblem[] = [];
  if (!file.models === !file.slices) {
    problems.push({ path: "models", message: "give either models, which are merged whole, or slices" });
  }
  if (file.tokenizer_source && file.tokenizer) {
    problems.push({ path: "tokenizer", message: "give either tokenizer or tokenizer_source" });
  }
  const tokenizer = file.tokenizer_source ?? file.tokenizer?.source;
  if (tokenizer === "base" && !file.base_model) {
    problems.push({ path: "tokenizer_source", message: "is base, but there is no base_model" });
  }
  const template = file.chat_template ?? undefined;
  if (template !== undefined && !/\{[{%]/.test(template)) {
    problems.push({
      path: "chat_template",
      message: `"${template}" is no Jinja template, and templates by name are not supported; write it out`,
    });
  }
  const ignored = new Set<string>();
  const optionsOf = (given: z.output<typeof parameters>) => withoutIdle(given ?? {}, ignored);
  const slices = slicesOf(file, optionsOf);
  for (const source of slices.flatMap(({ sources }) => sources)) {
    if (source.model.includes("+")) {
      problems.push({
        path: `${source.where}.model`,
        message: `"${source.model}" names a model with an adapter; merge the adapter into its base first`,
      });
    }
  }
  if (problems.length > 0) throw new MergeRecipeError(where, problems);
  return {
    method: file.merge_method.replaceAll("_", "-"),
    base: file.base_model ?? undefined,
    slices,
    options: optionsOf(file.parameters),
    optionsAt: "parameters",
    dtype: file.dtype ? DTYPES[file.dtype] : undefined,
    outDtype: file.out_dtype ? DTYPES[file.out_dtype] : undefined,
    vocabulary: tokenizer == null ? undefined : vocabularySource(tokenizer),
    chatTemplate: template,
    seed: 0,
    written: value,
    notes: [...ignored].map((name) => `${name} has no effect on the result, here as in mergekit`),
    writtenFor: "mergekit",
  };
}

function slicesOf(
  file: z.output<typeof mergekitSchema>,
  optionsOf: (given: z.output<typeof parameters>) => Settings,
): MergeSlice[] {
  if (file.slices) {
    return file.slices.map((slice, i) => ({
      sources: slice.sources.map((source, j) => ({
        model: source.model,
        layers: source.layer_range,
        options: optionsOf(source.parameters),
        where: `slices.${i}.sources.${j}`,
      })),
      options: optionsOf(slice.parameters),
      where: `slices.${i}`,
    }));
  }
  const sources = (file.models ?? []).map(({ model, parameters }, i): MergeSource => ({
    model,
    options: optionsOf(parameters),
    where: `models.${i}`,
  }));
  // A base that is not among the models is one more of them: methods without a base merge it too.
  const isBase = (path: string) => resolve(path) === resolve(file.base_model!);
  if (file.base_model && !sources.some(({ model }) => isBase(model))) {
    sources.push({ model: file.base_model, options: {}, where: "base_model" });
  }
  return [{ sources, options: {}, where: "models" }];
}

/** Parameters but those without effect, whose names go into `ignored`. They are translated where the method is known. */
function withoutIdle(given: Readonly<Record<string, Setting>>, ignored: Set<string>): Settings {
  for (const name of WITHOUT_EFFECT) if (Object.hasOwn(given, name)) ignored.add(name);
  return Object.fromEntries(Object.entries(given).filter(([name]) => !WITHOUT_EFFECT.includes(name)));
}

function namingUnsupported({ path, message }: SchemaProblem): SchemaProblem {
  const field = path.split(".").at(-1)!;
  const instead = Object.hasOwn(UNSUPPORTED, field) ? UNSUPPORTED[field] : undefined;
  return message.startsWith("there is no such field") && instead
    ? { path, message: instead }
    : { path, message };
}
