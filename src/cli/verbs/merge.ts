/**
 * `limbeck merge`
 *
 * @module
 */
// @ts-types="../../../types/std_yaml.d.ts"
import { parse as parseYaml } from "@std/yaml";
import { familiesOf } from "../../registry/families.ts";
import { isObject } from "../../base/json.ts";
import { UsageError } from "../../base/errors.ts";
import { bytes, count, duration } from "../../base/units.ts";
import { applySets } from "../../distill/recipe/file.ts";
import { exactLinearAlgebra } from "../../linalg/host.ts";
import { isMergekit, MERGEKIT_FIELDS } from "../../merge/recipe/mergekit.ts";
import { mergeModels, type MergeModelsOptions, previewMerge } from "../../merge/engine/merge_models.ts";
import type { MergePlan } from "../../merge/engine/plan.ts";
import {
  MERGE_RECIPE_FIELDS,
  type MergeRecipe,
  parseMergeRecipe,
  sourceModels,
  vocabularySource,
} from "../../merge/recipe/recipe.ts";
import { loadMergeRecipe, withAbsolutePaths, withLocalParents } from "../../merge/recipe/recipe_file.ts";
import type { Command, FlagReader, Invocation } from "../command.ts";
import { DTYPE_FLAG, dtypeFlag } from "../dtype_flag.ts";
import { HUB_FLAGS, localModel } from "../hub_models.ts";
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { registryWith } from "../setup/registry.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { table } from "../terminal/table.ts";
import { stoppable } from "../terminal/stoppable_work.ts";

/** Merges models. */
export const merge: Command = {
  name: "merge",
  usage: "RECIPE --output FOLDER | --method METHOD MODEL [...] --output FOLDER",
  positional: [0, 100],
  loadsPlugins: true,
  details:
    "Reads a recipe, ours or one written for mergekit, or merges the models that are named. Everything is checked before anything " +
    "is written, and the folder appears whole or not at all. `limbeck plugin list` names the methods, `limbeck plugin show METHOD` " +
    "their options. Paths in a recipe are relative to its folder, in one for mergekit to where you are.",
  flags: {
    output: { value: "FOLDER", short: "o", help: "The folder to write (default: the recipe's output)" },
    method: { value: "METHOD", help: "Merge the models that are named, by this method" },
    base: { value: "MODEL", help: "The model that the others were trained from (with --method)" },
    weight: { value: "LIST", help: "The weight of each model, such as 1,0.5 (with --method)" },
    set: {
      value: "NAME=VALUE",
      many: true,
      help: "An option of the method, or a field of the recipe by its path",
    },
    ...DTYPE_FLAG,
    tokenizer: { value: "WHOSE", help: "Whose tokens the result has: base, union, or a model" },
    seed: {
      value: "NUMBER",
      kind: "count",
      most: Number.MAX_SAFE_INTEGER,
      help: "What random choices begin from (default 0)",
    },
    like: {
      value: "PROGRAM",
      help: "Follow a program, such as mergekit, where it differs from the method's paper",
    },
    "dry-run": { help: "Check everything and print the plan; write nothing" },
    ...HUB_FLAGS,
    ...PLUGIN_FLAGS,
  },
  examples: [
    "limbeck merge recipe.yaml --output merged",
    "limbeck merge --method linear ./a ./b --weight 0.7,0.3 --output merged",
    "limbeck merge --method ties ./a ./b --base ./base --set density=0.5 --output merged --dtype bf16",
    "limbeck merge mergekit.yml --output merged --like mergekit",
    "limbeck merge recipe.yaml --dry-run",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out, args, plugins } = invocation;
    const named = withFlags(await readRecipe(args, flags), flags);
    const registry = await registryWith(plugins);
    const options: MergeModelsOptions = {
      method: (id) => registry.get("merge", id),
      families: familiesOf(registry),
      linalg: exactLinearAlgebra,
      where: flags.text("method") === undefined ? args[0]! : "limbeck merge",
    };
    const local = () => withLocalParents(named, (model) => localModel(model, invocation));
    if (flags.on("dry-run")) {
      showPlan(await previewMerge(await local(), options), invocation);
      return 0;
    }
    const output = flags.text("output") ?? named.output;
    if (output === undefined) throw new UsageError("name the folder to write: --output FOLDER");
    const recipe = await local();
    const result = await stoppable(out, "merging", ({ signal, onProgress }) =>
      mergeModels(recipe, output, {
        ...options,
        signal,
        onPlan: ({ notes }) => notes.forEach((note) => out.note(note)),
        onProgress: ({ tensors, tensorsTotal, bytes: done, bytesTotal }) =>
          onProgress(
            done,
            bytesTotal,
            `${tensors}/${tensorsTotal} tensors  ${bytes(done)} of ${bytes(bytesTotal)}`,
          ),
      }));
    out.value(result);
    out.line(
      `Merged ${mergedText(recipe)} by ${result.method}: ` +
        `${result.tensors} tensors, ` +
        `${count(result.parameters)} parameters in ${result.dtype}, ${duration(result.seconds)}`,
    );
    out.line(`Wrote ${shownPath(output)}`);
    return 0;
  },
};

/** What is merged, in words: the base is what it is merged on. */
function mergedText(recipe: MergeRecipe): string {
  const { base } = recipe;
  const models = sourceModels(recipe);
  const onBase = base !== undefined && !models.includes(base) ? " on a base" : "";
  return `${models.length === 1 ? "one model" : `${models.length} models`}${onBase}`;
}

/** The recipe that is named, or the one that the short form means. */
async function readRecipe(args: readonly string[], flags: FlagReader): Promise<MergeRecipe> {
  const method = flags.text("method");
  const sets = flags.list("set");
  if (method === undefined) {
    for (const name of ["base", "weight"]) {
      if (flags.text(name) !== undefined) {
        throw new UsageError(`--${name} is for --method; a recipe has its own`);
      }
    }
    if (args.length !== 1) {
      throw new UsageError(
        args.length === 0 ? "name a recipe, or a method and models" : "several models need --method METHOD",
        { hint: "See limbeck merge --help." },
      );
    }
    return await loadMergeRecipe(args[0]!, { change: (written) => withSets(written, sets) });
  }
  if (args.length === 0) throw new UsageError("name the models to merge");
  const weights = readWeights(flags.text("weight"), args.length);
  const base = flags.text("base");
  const written = {
    method,
    ...(base === undefined ? {} : { base }),
    models: args.map((model, i) => ({ model, ...(weights ? { weight: weights[i] } : {}) })),
  };
  return withAbsolutePaths(parseMergeRecipe(withSets(written, sets), "limbeck merge"), Deno.cwd());
}

/** A recipe with changes: a path whose first part is no field of it is an option of the method. */
function withSets(written: unknown, sets: readonly string[]): unknown {
  if (!isObject(written)) return written;
  const [fields, options] = isMergekit(written)
    ? [MERGEKIT_FIELDS, "parameters"]
    : [MERGE_RECIPE_FIELDS, "options"];
  const paths = sets.map((set) => fields.includes(set.split(/[.=]/)[0]!) ? set : `${options}.${set}`);
  return applySets(written, paths);
}

/** The numbers of --weight, one for each model. @throws {UsageError} other than that many numbers */
export function readWeights(text: string | undefined, models: number): readonly unknown[] | undefined {
  if (text === undefined) return undefined;
  const weights = text.split(",").map((part) => parseYaml(part, { schema: "core" }));
  if (!weights.every((weight) => typeof weight === "number" && Number.isFinite(weight))) {
    throw new UsageError(`--weight must be numbers with commas between them, not "${text}"`);
  }
  if (weights.length !== models) {
    throw new UsageError(
      `--weight has ${weights.length} numbers for ${models} models`,
      { hint: "Give one for each model, in their order; the base has none." },
    );
  }
  return weights;
}

/** Flags come before what the recipe says. */
function withFlags(recipe: MergeRecipe, flags: FlagReader): MergeRecipe {
  const tokenizer = flags.text("tokenizer");
  const changed: MergeRecipe = {
    ...recipe,
    outDtype: dtypeFlag(flags).dtype ?? recipe.outDtype,
    seed: flags.number("seed") ?? recipe.seed,
    like: flags.text("like") ?? recipe.like,
  };
  if (tokenizer === undefined) return changed;
  return withAbsolutePaths({ ...changed, vocabulary: vocabularySource(tokenizer) }, Deno.cwd());
}

function showPlan(plan: MergePlan, { out }: Invocation): void {
  const { method, dtype, config, tensors, vocabulary, notes } = plan;
  out.value({
    method: method.id,
    dtype,
    layers: config.num_hidden_layers,
    vocabulary: vocabulary.rows,
    notes,
    tensors: tensors.map(({ name, shape, options, base, parents }) => ({
      name,
      shape,
      options,
      base: base ?? null,
      parents,
    })),
  });
  notes.forEach((note) => out.note(note));
  // Paths are long and few; in the rows of hundreds of tensors each has a number.
  const paths = [...new Set(tensors.flatMap(({ parents }) => parents.map(({ parent }) => parent)))];
  const base = tensors.find(({ base }) => base)?.base?.parent;
  const named = (path: string) => String(paths.indexOf(path) + 1);
  if (base !== undefined) out.line(`base  ${shownPath(base)}`);
  for (const path of paths) out.line(`${named(path).padEnd(4)}  ${shownPath(path)}`);
  out.line();
  const rows = tensors.map(({ name, shape, options, base, parents }) => [
    name,
    `[${shape.join(", ")}]`,
    inWords(options),
    [
      ...(base ? ["base"] : []),
      ...parents.map((input) =>
        named(input.parent) + (input.name === name ? "" : ` ${input.name}`) +
        (Object.keys(input.options).length > 0 ? ` (${inWords(input.options)})` : "")
      ),
    ].join(" + "),
  ]);
  for (const line of table(["tensor", "shape", method.id, "of"], rows)) out.line(line);
  out.line(`${tensors.length} tensors in ${dtype}. Nothing was written.`);
}

function inWords(options: Readonly<Record<string, unknown>>): string {
  return Object.entries(options).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ");
}
