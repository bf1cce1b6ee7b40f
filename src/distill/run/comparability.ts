/**
 * Whether the figures of several recipes may stand side by side.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { openModel } from "../../formats/open_model.ts";
import type { Recipe, ServedTeacherRecipe, TeacherCacheRecipe } from "../recipe/recipe.ts";
import { canonicalJson } from "../../base/json.ts";
import { modelIdentity, samplesIdentity, sha256 } from "../inputs/identity.ts";
import { trainingIdentity } from "../inputs/training_batches.ts";
import type { SampleSet } from "../inputs/sample_sets.ts";
import { heldOutSets, trainingSets } from "../recipe/data_sets.ts";
import { cacheOf, movingSelf, teachersOf } from "../recipe/teachers.ts";

/** A recipe with what decides whether it can be compared. */
export interface ComparedRecipe {
  /** How errors and tables call it. */
  readonly name: string;
  readonly recipe: Recipe;
  /** Hash of the held-out tokens, of which of them count, and, of several sets, of which set they are. */
  readonly heldOut: string;
  /** Hash of the training tokens and of which of them count. */
  readonly train: string;
}

/** Hashes what an opened recipe measures and learns. */
export function comparedRecipe(
  name: string,
  prepared: Pick<PreparedRun, "recipe" | "sets" | "train" | "tokenizer">,
): ComparedRecipe {
  const { recipe, sets } = prepared;
  return { name, recipe, heldOut: heldOutIdentity(sets.heldOut), train: trainingIdentity(prepared) };
}

/** One set is the same whatever it is called; of several, the names are columns. */
function heldOutIdentity(sets: readonly SampleSet[]): string {
  if (sets.length === 1) return samplesIdentity(sets[0]!.samples);
  return sha256(JSON.stringify(sets.map(({ name, samples }) => [name, samplesIdentity(samples)])));
}

/**
 * Checks that all recipes are measured with one yardstick: teacher, held-out tokens and context length of the first one.
 *
 * @param identify identity of the model at a path, by its bytes; asked only where paths differ
 * @returns what else differs that makes a comparison unfair, as warnings
 * @throws {InputError} naming each recipe that is measured otherwise, and why
 */
export async function checkComparable(
  recipes: readonly ComparedRecipe[],
  identify: (path: string) => Promise<string> = modelIdentityAt,
): Promise<string[]> {
  const [first, ...others] = recipes as readonly [ComparedRecipe, ...ComparedRecipe[]];
  const known = new Map<string, string>();
  const isSame = async (a: string, b: string) => {
    if (a === b) return true;
    for (const path of [a, b]) if (!known.has(path)) known.set(path, await identify(path));
    return known.get(a) === known.get(b);
  };
  const problems: string[] = [];
  const warnings = recipes.flatMap(({ name, recipe: { teacher } }) => {
    const how = teacher.train
      ? "trains its teacher along"
      : movingSelf(teacher)
      ? "teaches itself"
      : undefined;
    return how
      ? [`${name} ${how}, so its divergences and its agreement are to what the teacher has become`]
      : [];
  });
  const kept = recipes.map(({ recipe }) => keptOfTeacher(recipe));
  if (new Set(kept).size > 1) {
    recipes.forEach(({ name }, i) =>
      kept[i] &&
      warnings.push(
        `${name} measures its divergences to ${kept[i]} of its teacher, others to other parts or all of it`,
      )
    );
  }
  for (const other of others) {
    const refuse = (what: string, mine: unknown, its: unknown) =>
      problems.push(`${other.name}: another ${what} than ${first.name}: ${its}, not ${mine}`);
    const [a, b] = [first.recipe, other.recipe];
    if (!await haveOneTeacher(a, b, isSame)) refuse("teacher", teacherText(a), teacherText(b));
    if (a.data.contextLength !== b.data.contextLength) {
      refuse("context length", a.data.contextLength, b.data.contextLength);
    } else if (first.heldOut !== other.heldOut) {
      refuse("held-out data", heldOutText(a, b), heldOutText(b, a));
    }
    const warn = (what: string, mine: unknown, its: unknown) =>
      warnings.push(`${other.name} has another ${what} than ${first.name}: ${its}, not ${mine}`);
    const [mine, its] = [a, b].map(studentPath) as [string, string];
    if (keptLayers(a) !== keptLayers(b) || !await isSame(mine, its)) {
      warn("student", `${mine} ${keptLayers(a)}`, `${its} ${keptLayers(b)}`);
    }
    if (a.train.steps !== b.train.steps) warn("number of steps", a.train.steps, b.train.steps);
    if (tokensPerStep(a) !== tokensPerStep(b)) {
      warn("number of tokens per step", tokensPerStep(a), tokensPerStep(b));
    }
    if (first.train !== other.train) {
      warnings.push(
        `${other.name} trains on other data than ${first.name}, so the order of the data is not paired`,
      );
    }
  }
  if (problems.length === 0) return warnings;
  throw new InputError(`these recipes cannot be compared\n  ${problems.join("\n  ")}`, {
    hint: "Losses of different teachers, texts or context lengths mean different things. " +
      "`--set` gives all recipes the same, such as --set data.contextLength=256.",
  });
}

/** Whether what the students are compared with is one: the same teachers, together in the same way. */
async function haveOneTeacher(
  a: Recipe,
  b: Recipe,
  isSame: (a: string, b: string) => Promise<boolean>,
): Promise<boolean> {
  const [mine, its] = [a, b].map(({ teacher }) => teachersOf(teacher));
  if (mine!.length !== its!.length || a.teacher.combine !== b.teacher.combine) return false;
  for (const [i, one] of mine!.entries()) {
    const other = its![i]!;
    const settings = [one, other].map(({ model: _, name: _name, server, cache: _cache, ...rest }) =>
      canonicalJson({ ...rest, served: servedAt(server) })
    );
    if (settings[0] !== settings[1]) return false;
    const isOwn = [one, other].map(({ model }) => model === "student");
    if (isOwn[0] !== isOwn[1]) return false;
    const [x, y] = isOwn[0] ? [a, b].map(studentPath) : [one.model, other.model];
    if (isOwn[0] && keptLayers(a) !== keptLayers(b)) return false;
    if (!await isSame(x!, y!)) return false;
  }
  return true;
}

/** The teachers of a recipe in words. */
function teacherText({ teacher }: Recipe): string {
  const each = teachersOf(teacher).map(({ model, server, layers, quantize, self, weight, schedule }) =>
    [
      model === "student" ? `the student itself${self ? ` (${self.kind})` : ""}` : servedAt(server) || model,
      ...(layers ? [`layers [${layers.join(", ")}]`] : []),
      ...(quantize ? [`in ${quantize}`] : []),
      ...(weight === undefined ? [] : [`weight ${weight}`]),
      ...(schedule ? [`weight ${schedule.weight.from} to ${schedule.weight.to}`] : []),
    ].join(" ")
  );
  return teacher.combine ? `${teacher.combine} of ${each.join(" and ")}` : each.join();
}

/** Where a teacher is served; empty where it is here. */
function servedAt(server: ServedTeacherRecipe | undefined): string {
  return server ? `${server.model} of ${server.url.replace(/\/+$/, "")}` : "";
}

/** What caches have of the teacher, of several of each; empty where all of it is there. */
function keptOfTeacher({ teacher }: Recipe): string {
  const each = teachersOf(teacher).map((_, i) => keptText(cacheOf(teacher, i)));
  if (!teacher.teachers || new Set(each).size === 1) return each[0]!;
  return each.map((kept, i) => `${kept || "all"} of ${teacher.teachers![i]!.name}`).join(", ");
}

function keptText(cache: TeacherCacheRecipe | undefined): string {
  if (!cache) return "";
  if (cache.payload === "hidden") {
    return cache.precision === "f32" ? "" : `the hidden states in ${cache.precision}`;
  }
  return cache.topK === undefined ? `${cache.samples} samples a token` : `the ${cache.topK} largest logits`;
}

/** Where the student's weights come from. */
function studentPath({ teacher, student }: Recipe): string {
  return student.model === "teacher" ? teacher.model : student.model;
}

function keptLayers({ student }: Recipe): string {
  const { layers, shape, shapes, dtype, quantize } = student;
  const kept = layers
    ? `layers [${layers.join(", ")}]`
    : shape
    ? `the shape ${shape}`
    : shapes
    ? `all layers and smaller shapes`
    : "all layers";
  return `${kept}${dtype ? ` in ${dtype}` : ""}${quantize ? ` quantised to ${quantize}` : ""}`;
}

function tokensPerStep({ train }: Recipe): number {
  return train.tokensPerMicroBatch * train.accumulation;
}

/** Fields that decide which held-out tokens count. */
const HELD_OUT_FIELDS = ["mask", "tooLong", "endToken", "template", "limit"] as const;

/** What a recipe measures on, with the settings in which another differs. */
function heldOutText({ data }: Recipe, { data: other }: Recipe): string {
  const settings = HELD_OUT_FIELDS.filter((field) => data[field] !== other[field]).map((field) =>
    `data.${field} ${data[field]}`
  );
  const several = (sets: readonly { name: string; path: string }[]) =>
    sets.length > 1 ? sets.map(({ name, path }) => `${name} (${path})`) : sets.map(({ path }) => path);
  const named = heldOutSets(data);
  const files = named ? several(named) : [`5 % of ${several(trainingSets(data)).join(" and of ")}`];
  return [...files, ...settings].join(", ");
}

async function modelIdentityAt(path: string): Promise<string> {
  const source = await openModel(path);
  try {
    return await modelIdentity({ source });
  } finally {
    source.close();
  }
}
