/**
 * Looks at a model as far as that is possible without a GPU: what it is, whether it loads, and what stands in the way.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { system } from "../../base/system.ts";
import { InputError, LimbeckError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import type { FoundModel } from "../../formats/find_models.ts";
import type { ModelSource } from "../../formats/model_source.ts";
import { openModel } from "../../formats/open_model.ts";
import { readPeftAdapter } from "../../formats/peft/peft.ts";
import { readArchitecture } from "../../models/families.ts";
import type { ModelFamily } from "../../models/family.ts";
import { Model } from "./models.ts";
import { openTokenizer } from "./prepare.ts";

/** What stands in the way of a model. */
export interface ModelProblem {
  /** Where: its files, its config, its weights, or its tokenizer. */
  readonly part: "files" | "config" | "weights" | "tokenizer";
  readonly message: string;
  readonly hint?: string;
}

/** What was found. */
export interface ExaminedModel extends FoundModel {
  /** Name of its family; where it is none that is known, or its config does not do, what the config says. */
  readonly family?: string;
  readonly layers?: number;
  /** Values of all tensors in its files. */
  readonly parameters?: number;
  /** Values by the type in which they are stored, the most first. */
  readonly storage?: Readonly<Record<string, number>>;
  /** Rows of its embedding, and tokens of its tokenizer. */
  readonly vocabulary?: { readonly rows: number; readonly tokens?: number };
  /** Whether it has a template for conversations. */
  readonly chat?: boolean;
  readonly loads: boolean;
  readonly problems: readonly ModelProblem[];
}

/**
 * Looks at a model. What is wrong with it is an answer, not an error.
 *
 * @param families Beside the built-in ones
 */
export async function examineModel(
  { path, kind }: FoundModel,
  families: readonly ModelFamily[] = [],
): Promise<ExaminedModel> {
  const problems: ModelProblem[] = [];
  const found: { -readonly [K in keyof ExaminedModel]?: ExaminedModel[K] } = {};
  /** Tries a part; what it throws is a problem of that part. */
  const part = async <T>(name: ModelProblem["part"], work: () => T | Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof LimbeckError)) throw error;
      problems.push(problemOf(name, error, path));
      return undefined;
    }
  };
  if (kind === "adapter") {
    const adapter = await part("files", () => readPeftAdapter(path));
    found.family = adapter && `adapter of rank ${adapter.settings.rank}`;
    return { path, kind, loads: adapter !== undefined, problems, ...found };
  }
  const source = await part("files", () => openModel(path));
  if (!source) {
    found.family = kind === "folder" ? await writtenFamily(path) : undefined;
    return { path, kind, loads: false, problems, ...found };
  }
  try {
    Object.assign(found, storageOf(source));
    const where = source.kind === "huggingface" ? join(path, "config.json") : path;
    const architecture = await part("config", () => readArchitecture(source.config, where, families));
    found.family = architecture?.family.name ?? familyIn(source.config);
    if (architecture) {
      found.layers = architecture.config.layers;
      found.vocabulary = { rows: architecture.config.vocabularySize };
    }
  } finally {
    source.close();
  }
  const model = problems.length === 0
    ? await part("weights", () => Model.open(path, { category: "weights" }, families))
    : undefined;
  try {
    const opened = model && await part("tokenizer", () => openTokenizer(model));
    if (opened) {
      found.vocabulary = { rows: model!.config.vocabularySize, tokens: opened.tokenizer.vocabularySize };
      found.chat = opened.template !== undefined;
    }
  } finally {
    model?.close();
  }
  return { path, kind, loads: problems.length === 0, problems, ...found };
}

function problemOf(part: ModelProblem["part"], error: LimbeckError, path: string): ModelProblem {
  const where = error instanceof InputError && error.where ? `${error.where}: ` : "";
  let message = where && error.message.startsWith(where) ? error.message.slice(where.length) : error.message;
  // A file within the model is worth naming.
  const inside = error instanceof InputError && error.where?.startsWith(`${path}/`)
    ? error.where.slice(path.length + 1)
    : "";
  if (inside) message = `${inside}: ${message}`;
  return { part, message, ...(error.hint === undefined ? {} : { hint: error.hint }) };
}

function storageOf(source: ModelSource): Pick<ExaminedModel, "parameters" | "storage"> {
  const counts = new Map<string, number>();
  for (const { dtype, shape } of source.tensors.values()) {
    counts.set(dtype, (counts.get(dtype) ?? 0) + shape.reduce((a, b) => a * b, 1));
  }
  const sorted = [...counts].sort(([, a], [, b]) => b - a);
  return {
    parameters: sorted.reduce((sum, [, count]) => sum + count, 0),
    storage: Object.fromEntries(sorted),
  };
}

/** What the config of a folder says, where its weights cannot be opened. */
async function writtenFamily(folder: string): Promise<string | undefined> {
  try {
    return familyIn(JSON.parse(await system.readTextFile(join(folder, "config.json"))));
  } catch {
    return undefined;
  }
}

function familyIn(config: unknown): string | undefined {
  if (!isObject(config)) return undefined;
  const { architectures, model_type: type } = config;
  const named = typeof type === "string" ? type : Array.isArray(architectures) ? architectures[0] : undefined;
  return typeof named === "string" ? named : undefined;
}
