/**
 * What a merge computes: for each tensor of the result what it is made of, and with which options.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { oneOf } from "../../base/did_you_mean.ts";
import { InputError } from "../../base/errors.ts";
import type { SchemaProblem } from "../../base/schema_problems.ts";
import type { FloatDtype } from "../../formats/dtype.ts";
import type { Architecture } from "../../models/architecture.ts";
import { readArchitecture } from "../../models/families.ts";
import type { Merge } from "../../registry/contract.ts";
import { checkAlike, layerDifferences } from "../parents/alike.ts";
import type { Parents } from "../parents/parents.ts";
import type { ParentTensor } from "../parents/read_pieces.ts";
import { mergedModels, type MergeRecipe, MergeRecipeError, modelsOf } from "../recipe/recipe.ts";
import { isOfTokens, planVocabulary, type Vocabulary } from "../parents/vocabulary.ts";
import { MergeOptions, type Options } from "./options.ts";
import { type Placed, type ResolvedSlice, resolveSlice } from "./slices.ts";

/** Under what config.json says how many layers there are. */
const DEPTH_FIELDS: readonly string[] = ["num_hidden_layers", "n_layer"];

/** Lists of config.json that have no entry for each layer, however long they are. */
const LISTS: readonly string[] = ["architectures", "eos_token_id"];

/** A tensor of the result. */
export interface PlannedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly options: Options;
  readonly base?: ParentTensor;
  readonly parents: readonly (ParentTensor & { readonly options: Options })[];
  /** Whether its rows are tokens. */
  readonly ofTokens: boolean;
}

/** All that a merge computes and writes. */
export interface MergePlan {
  readonly recipe: MergeRecipe;
  readonly method: Merge;
  /** config.json of the result. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly dtype: FloatDtype;
  /** In the order of the forward pass. */
  readonly tensors: readonly PlannedTensor[];
  readonly vocabulary: Vocabulary;
  /** What the reader should know before anything is done. */
  readonly notes: readonly string[];
}

/**
 * Plans a merge and checks all of it: options, numbers of parents, layers, architectures, tokens and shapes.
 *
 * @param parents Every model that the recipe names, open
 * @param where How errors name the recipe
 * @throws {MergeRecipeError} with every problem of the recipe
 * @throws {InputError} where the models do not fit each other
 */
export async function planMerge(
  recipe: MergeRecipe,
  method: Merge,
  parents: Parents,
  where: string,
): Promise<MergePlan> {
  const plan = await planAsWritten(recipe, method, parents, where);
  const { writtenFor, like } = recipe;
  if (!writtenFor || like !== undefined || !method.like?.[writtenFor]) return plan;
  if (passesOf(plan) === 0 || !variesByTensor(plan)) return plan;
  // What is found for whole models needs options of whole models. A file for a program that goes by tensor may well vary them.
  const note =
    `options of models differ from tensor to tensor, so ${method.id} goes by tensor, as ${writtenFor} does`;
  return await planAsWritten(
    { ...recipe, like: writtenFor, notes: [...recipe.notes, note] },
    method,
    parents,
    where,
  );
}

/** How often a method has to see all tensors before any is merged. */
export function passesOf({ method, tensors }: Pick<MergePlan, "method" | "tensors">): number {
  return Math.max(0, ...tensors.map(({ options }) => method.survey?.passes(options) ?? 0));
}

/** Whether some model has other options for one tensor than for another. */
function variesByTensor({ tensors }: MergePlan): boolean {
  const optionsOf = ({ parents }: PlannedTensor) => JSON.stringify(parents.map(({ options }) => options));
  return new Set(tensors.map(optionsOf)).size > 1;
}

async function planAsWritten(
  recipe: MergeRecipe,
  method: Merge,
  parents: Parents,
  where: string,
): Promise<MergePlan> {
  const options = new MergeOptions(method, recipe);
  const problems: SchemaProblem[] = [...likeProblems(recipe, method)];
  const slices = recipe.slices.map((slice) => resolveSlice(slice, recipe, method, parents, problems));
  throwProblems(where, [...problems, ...options.problems]);

  const merged = mergedModels(recipe).map((name) => parents.get(name));
  const notes = [...recipe.notes, ...options.notes, ...checkAlike(merged)];
  const { vocabulary, notes: ofTokens } = await planVocabulary(
    recipe,
    merged,
    modelsOf(recipe).map((name) => parents.get(name)),
  );
  const primary = parents.get(recipe.base ?? slices[0]!.parents[0]!.source.model);
  const config = resultConfig(primary.source.config, recipe, slices, parents, vocabulary);
  const architecture = readArchitecture(
    config,
    join(primary.name, "config.json"),
    primary.architecture.further,
  );
  checkLayers(architecture, slices, parents);
  const names = [...architecture.tensors.keys()];
  const firstOfLayers = names.findIndex((name) => name.startsWith(`${architecture.family.names.layers}.`));
  const beforeLayers = new Set(names.slice(0, firstOfLayers));
  const tensors = [...architecture.tensors].map(([name, shape]): PlannedTensor => {
    const { resolved, inputName, t } = placeOf(name, architecture, beforeLayers, slices);
    const input = ({ source, first }: Placed) => ({ parent: source.model, name: inputName(first) });
    return {
      name,
      shape,
      options: options.ofMethod(resolved.slice, name, t) ?? {},
      ...(resolved.base ? { base: input(resolved.base) } : {}),
      parents: resolved.parents.map((placed) => ({
        ...input(placed),
        options: options.ofParent(placed.source, resolved.slice, inputName(placed.first), t) ?? {},
      })),
      ofTokens: isOfTokens(name, architecture),
    };
  });
  throwProblems(where, options.problems);
  checkShapes(tensors, parents, vocabulary);
  return {
    recipe,
    method,
    config,
    dtype: recipe.outDtype ?? recipe.dtype ?? holding(tensors, parents),
    tensors,
    vocabulary,
    notes: [...notes, ...ofTokens],
  };
}

function throwProblems(where: string, problems: readonly SchemaProblem[]): void {
  const once = new Map(problems.map((problem) => [`${problem.path} ${problem.message}`, problem]));
  if (once.size > 0) throw new MergeRecipeError(where, [...once.values()]);
}

function likeProblems({ like }: MergeRecipe, method: Merge): SchemaProblem[] {
  if (like === undefined || like === "mergekit" || method.like?.[like]) return [];
  const known = Object.keys(method.like ?? {});
  const message = known.length === 0
    ? `${method.id} follows no other program`
    : `${method.id} can be like ${oneOf(known)}`;
  return [{ path: "like", message }];
}

/** Where a tensor of the result comes from. Tensors outside of layers are read at t = 0, as in mergekit. */
function placeOf(
  name: string,
  { family: { names } }: Architecture,
  beforeLayers: ReadonlySet<string>,
  slices: readonly ResolvedSlice[],
): { resolved: ResolvedSlice; inputName: (first: number) => string; t: number } {
  const prefix = `${names.layers}.`;
  if (!name.startsWith(prefix)) {
    const resolved = beforeLayers.has(name) ? slices[0]! : slices.at(-1)!;
    return { resolved, inputName: () => name, t: 0 };
  }
  const [index, ...rest] = name.slice(prefix.length).split(".");
  let layer = Number(index);
  const resolved = slices.find(({ layers }) => (layer -= layers) < 0)!;
  layer += resolved.layers;
  return {
    resolved,
    inputName: (first) => [names.layers, first + layer, ...rest].join("."),
    t: resolved.layers > 1 ? layer / (resolved.layers - 1) : 1,
  };
}

/** Refuses layers that would compute otherwise in the result than in the models that they come from. */
function checkLayers({ config }: Architecture, slices: readonly ResolvedSlice[], parents: Parents): void {
  let begin = 0;
  for (const { base, parents: sources, layers } of slices) {
    for (const { source, first } of base ? [base, ...sources] : sources) {
      for (let i = 0; i < layers; i++) {
        const own = parents.get(source.model).architecture.config;
        const [difference] = layerDifferences(own, first + i, config, begin + i);
        if (difference === undefined) continue;
        throw new InputError(
          `layer ${first + i} would be layer ${begin + i} of the result, where ${difference}`,
          {
            where: source.model,
            hint:
              "Layers of this family differ by their place: stack them so that each stays among its like.",
          },
        );
      }
    }
    begin += layers;
  }
}

/** The first model's config with the layers and tokens of the result. */
function resultConfig(
  config: Readonly<Record<string, unknown>>,
  recipe: MergeRecipe,
  slices: readonly ResolvedSlice[],
  parents: Parents,
  vocabulary: Vocabulary,
): Record<string, unknown> {
  const depthField = DEPTH_FIELDS.find((field) => Object.hasOwn(config, field)) ?? DEPTH_FIELDS[0]!;
  const result: Record<string, unknown> = {
    ...config,
    [depthField]: slices.reduce((sum, { layers }) => sum + layers, 0),
    vocab_size: vocabulary.rows,
  };
  for (const [key, value] of Object.entries(config)) {
    if (!Array.isArray(value) || value.length !== config[depthField] || LISTS.includes(key)) continue;
    // What is said of each layer goes along with it.
    const lists = slices.map(({ base, parents: sources, layers }) => {
      const { source, first } = base ?? sources[0]!;
      const own = parents.get(source.model).source.config[key];
      return Array.isArray(own) ? own.slice(first, first + layers) : undefined;
    });
    result[key] = lists.includes(undefined) ? value : lists.flat();
  }
  if (recipe.vocabulary?.of === "model") {
    const other = parents.get(recipe.vocabulary.model).source.config;
    for (const key of ["bos_token_id", "eos_token_id", "pad_token_id"]) {
      if (Object.hasOwn(other, key)) result[key] = other[key];
      else delete result[key];
    }
  }
  return result;
}

/** Refuses tensors that do not have the shape of the result. */
function checkShapes(tensors: readonly PlannedTensor[], parents: Parents, vocabulary: Vocabulary): void {
  const wrong: string[] = [];
  for (const { shape, base, parents: inputs, ofTokens } of tensors) {
    for (const input of [...(base ? [base] : []), ...inputs]) {
      const found = parents.get(input.parent).source.tensors.get(input.name)?.shape;
      const compared = ofTokens && vocabulary.sources ? 1 : 0;
      if (found && found.slice(compared).join() === shape.slice(compared).join()) continue;
      wrong.push(
        `${input.parent}: ${input.name} has shape [${found?.join(", ")}], expected [${shape.join(", ")}]`,
      );
    }
  }
  if (wrong.length === 0) return;
  const more = wrong.length > 12 ? `\n  and ${wrong.length - 12} more` : "";
  throw new InputError(
    `tensors do not fit:${wrong.slice(0, 12).map((line) => `\n  ${line}`).join("")}${more}`,
    {
      hint: "Only tensors of one shape can be merged.",
    },
  );
}

/** The smallest storage that holds what the parents hold. */
function holding(tensors: readonly PlannedTensor[], parents: Parents): FloatDtype {
  const dtypes = new Set(
    tensors.flatMap(({ base, parents: inputs }) =>
      [...(base ? [base] : []), ...inputs].map(({ parent, name }) =>
        parents.get(parent).source.tensors.get(name)!.exactDtype
      )
    ),
  );
  const [only] = dtypes;
  return dtypes.size === 1 ? only! : "f32";
}
