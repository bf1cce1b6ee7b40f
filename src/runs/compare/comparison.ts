/**
 * A comparison: every recipe once with every seed, each an ordinary run in a folder of its own below the comparison's.
 *
 * ```
 * runs/compare-<id>/
 *   compare.json           what is compared, and every number of it
 *   compare.md             the table
 *   compare.html           the same as a page
 *   sequences/             what each held-out sequence came to, one file a run or model
 *   tasks/                 what each came to on tasks
 *   <recipe>-seed<seed>/   a run
 * ```
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, extname, join, resolve } from "@std/path";
import { z } from "zod";
import project from "../../../deno.json" with { type: "json" };
import type { ErrorEvent, RunState, SetEvaluation } from "../../distill/run/events.ts";
import { type Recipe } from "../../distill/recipe/recipe.ts";
import { type EvaluationTask, parseEvaluationTask } from "../../evaluation/tasks/task.ts";
import { recipeHash } from "../../distill/recipe/parse.ts";
import { parseRecipe } from "../../distill/recipe/parse.ts";
import { InputError } from "../../base/errors.ts";
import { exists, unwritable, writeTextAtomically } from "../../formats/files.ts";
import { checkPlugins, type IdentifiedPlugin, identifyPlugins } from "../child/plugin_identity.ts";
import { runFolder } from "../store/layout.ts";
import { adoptRun, createRun, type LockedRun, openRun, readRun } from "../store/run_folder.ts";
import { newRunId } from "../store/run_id.ts";
import { lock } from "../store/run_lock.ts";
import { summarise } from "../store/run_summary.ts";
import type { Store } from "../store/store.ts";
import { readTaskMeasurements, type TaskParticipant } from "./compared_tasks.ts";
import { type MeasuredSet, readSequences, removeSequences } from "./sequences.ts";
import type { Participant } from "./verdicts.ts";
import { type TaughtPart, taughtParts } from "../report/teachers_table.ts";

/** What is compared; the beginning of `compare.json`, written once. */
export interface ComparisonPlan {
  id: string;
  /** ISO 8601, UTC. */
  createdAt: string;
  /** Version of Limbeck. */
  limbeck: string;
  deno: string;
  seeds: number[];
  /** Plugin modules, as in a run's manifest. */
  plugins: IdentifiedPlugin[];
  /** Resolved recipes, the one first that others are compared with. Their seed is each run's own. */
  recipes: { name: string; file: string; recipe: Recipe }[];
  /**
   * Models that are measured as they are, such as a merge; absent where there is none. A path with {@linkcode SEED_PLACE} names a model
   * for each seed.
   */
  models?: { name: string; path: string }[];
  /** What all of them are measured on beside the held-out sets; absent where there is nothing. */
  tasks?: EvaluationTask[];
  /** What makes the comparison less fair than it might be. */
  warnings: string[];
}

/** A comparison that this process alone may work on until it is released. */
export interface Comparison {
  readonly folder: string;
  readonly plan: ComparisonPlan;
  /** Lets others work on it. */
  release(): void;
}

/** How to make a comparison. */
export interface CreateComparisonOptions {
  /** Recipes with their names and the files they came from. */
  recipes: readonly { name: string; file: string; recipe: Recipe }[];
  /** Models that are only measured. */
  models?: readonly { name: string; path: string }[];
  tasks?: readonly EvaluationTask[];
  seeds: readonly number[];
  /** Plugin modules: absolute paths, and packages with their version. */
  plugins: readonly string[];
  /** What to remember beside the numbers. */
  warnings: readonly string[];
  store: Store;
}

/** One run of a comparison. */
export interface PlannedRun {
  /** The recipe's name. */
  readonly recipe: string;
  readonly seed: number;
  /** Below the comparison's folder. */
  readonly folder: string;
}

/** What stands for the seed in the path of a model that there is one of for each seed. */
const SEED_PLACE = "{seed}";

/** One model of a comparison as it is measured. */
export interface PlannedModel {
  /** The model's name. */
  readonly model: string;
  /** Null of a model that is not one for each seed. */
  readonly seed: number | null;
  /** What its file of sequences is called. */
  readonly file: string;
  readonly path: string;
}

/**
 * Held-out measurements by key, `cross-entropy` among them; null where a value is not finite. Of several sets, those of the first stand
 * under their own keys, and those of each under keys such as `chat: cross-entropy`.
 */
export type Measurement = Readonly<Record<string, number | null>>;

/** What became of one run. */
export interface ComparedRun extends PlannedRun {
  /** `queued` where it has not begun. */
  readonly state: RunState;
  /** Steps done. */
  readonly step: number;
  /** Of all attempts; null where it is not done. */
  readonly seconds: number | null;
  /** Supervised held-out tokens, of several sets those of the first; null where nothing was measured. */
  readonly tokens: number | null;
  /** Of the teacher before training; it may be trained along. */
  readonly teacher: Measurement | null;
  /** Of the student before training. */
  readonly before: Measurement | null;
  /** Of the student after the last step; null where the run is not done. */
  readonly after: Measurement | null;
  /** What each of several teachers taught; absent where samples have no teacher of their own. */
  readonly taught?: readonly TaughtPart[];
  readonly error?: ErrorEvent;
}

/** The file that holds all of a comparison. */
export const COMPARISON_FILE = "compare.json";

/**
 * Makes and locks the folder of a new comparison.
 *
 * @throws {InputError} the folder or a plugin cannot be used
 */
export async function createComparison(options: CreateComparisonOptions): Promise<Comparison> {
  const id = newRunId();
  const plan: ComparisonPlan = {
    id,
    createdAt: new Date().toISOString(),
    limbeck: project.version,
    deno: Deno.version.deno,
    seeds: [...options.seeds],
    plugins: await identifyPlugins(options.plugins),
    recipes: [...options.recipes],
    ...(options.models?.length ? { models: [...options.models] } : {}),
    ...(options.tasks?.length ? { tasks: [...options.tasks] } : {}),
    warnings: [...options.warnings],
  };
  const folder = runFolder(options.store, `compare-${id}`);
  try {
    await Deno.mkdir(folder, { recursive: true });
  } catch (cause) {
    throw unwritable(folder, cause);
  }
  const release = await lock(folder);
  await writeTextAtomically(join(folder, COMPARISON_FILE), JSON.stringify(plan, null, 2) + "\n");
  return { folder, plan, release };
}

/**
 * Locks an existing comparison, to resume it.
 *
 * @throws {InputError} no comparison there, its file is damaged, a plugin has changed, or another process works on it
 */
export async function openComparison(folder: string): Promise<Comparison> {
  const path = join(folder, COMPARISON_FILE);
  let value: unknown;
  try {
    value = JSON.parse(await Deno.readTextFile(path));
  } catch (cause) {
    throw new InputError(`there is no comparison here: ${COMPARISON_FILE} cannot be read`, {
      where: path,
      cause,
    });
  }
  const read = planSchema.safeParse(value);
  if (!read.success) {
    throw new InputError("is not the file of a comparison", {
      where: path,
      hint: "Put it back from a copy, or begin a new comparison.",
    });
  }
  const recipes = read.data.recipes.map(({ name, file, recipe }) => ({
    name,
    file,
    recipe: parseRecipe(recipe, `${path}: ${name}`),
  }));
  const release = await lock(folder);
  try {
    await checkPlugins(read.data.plugins);
    const { models, tasks, ...rest } = read.data;
    const plan = {
      ...{ ...rest, recipes },
      ...(models ? { models } : {}),
      ...(tasks ? { tasks: tasks.map((task) => parseEvaluationTask(task, path)) } : {}),
    };
    return { folder: resolve(folder), plan, release };
  } catch (error) {
    release();
    throw error;
  }
}

const planSchema = z.object({
  id: z.string(),
  createdAt: z.string(),
  limbeck: z.string(),
  deno: z.string(),
  seeds: z.array(z.number().int()).min(1),
  plugins: z.array(z.object({ path: z.string(), sha256: z.string() })),
  recipes: z.array(z.object({ name: z.string(), file: z.string(), recipe: z.unknown() })).min(1),
  models: z.array(z.object({ name: z.string(), path: z.string() })).optional(),
  tasks: z.array(z.unknown()).optional(),
  warnings: z.array(z.string()),
});

/** The runs of a comparison in their order: all recipes with one seed before the next, so that what is done forms pairs. */
export function plannedRuns({ seeds, recipes }: ComparisonPlan): PlannedRun[] {
  return seeds.flatMap((seed) =>
    recipes.map(({ name }) => ({ recipe: name, seed, folder: `${name}-seed${seed}` }))
  );
}

/** The models of a comparison, each as many times as it has to be measured. */
export function plannedModels(
  { seeds, models = [] }: { seeds: readonly number[]; models?: ComparisonPlan["models"] },
): PlannedModel[] {
  return models.flatMap(({ name: model, path }): PlannedModel[] =>
    path.includes(SEED_PLACE)
      ? seeds.map((seed) => ({
        ...{ model, seed, file: `${model}-seed${seed}` },
        path: path.replaceAll(SEED_PLACE, String(seed)),
      }))
      : [{ model, seed: null, file: model, path }]
  );
}

/**
 * Has further models measured beside a comparison's runs. One whose name a model has already takes that one's place, and all are
 * measured anew, since what lies at a path may have changed.
 */
export async function addModels(
  { folder, plan }: Comparison,
  models: readonly { name: string; path: string }[],
): Promise<void> {
  const named = new Set(models.map(({ name }) => name));
  const all = [...plan.models ?? [], ...models];
  for (const { model, file } of plannedModels({ seeds: plan.seeds, models: all })) {
    if (named.has(model)) await removeSequences(folder, file);
  }
  plan.models = all.filter((model) => models.includes(model) || !named.has(model.name));
  const path = join(folder, COMPARISON_FILE);
  const written = JSON.parse(await Deno.readTextFile(path));
  await writeTextAtomically(path, JSON.stringify({ ...written, models: plan.models }, null, 2) + "\n");
}

/**
 * Makes and locks a run of a comparison, or locks it again where it has begun.
 *
 * @returns undefined where the run is done
 * @throws {InputError} a run in its folder that is not the comparison's
 */
export async function beginRun(
  { folder, plan }: Comparison,
  planned: PlannedRun,
  store: Store,
): Promise<{ run: LockedRun; resume: boolean } | undefined> {
  const path = join(folder, planned.folder);
  const recipe = recipeOf(plan, planned);
  if (!await isRun(path)) {
    await removeSequences(folder, planned.folder);
    const plugins = plan.plugins.map((plugin) => plugin.path);
    return {
      run: await createRun({
        store,
        recipe: { ...recipe, output: { ...recipe.output, folder: path } },
        plugins,
        metadata: { comparison: plan.id, recipe: planned.recipe },
      }),
      resume: false,
    };
  }
  await checkIsPlanned(path, recipe);
  if ((await adoptRun(path, store)).state === "succeeded") return undefined;
  return { run: await openRun(path, store), resume: true };
}

/** What the folders of the runs say at this moment. */
export async function readRuns({ folder, plan }: Comparison, store: Store): Promise<ComparedRun[]> {
  const runs: ComparedRun[] = [];
  for (const planned of plannedRuns(plan)) {
    const path = join(folder, planned.folder);
    runs.push({ ...planned, ...(await isRun(path) ? await readRunOf(path, store) : NOT_BEGUN) });
  }
  return runs;
}

const NOT_BEGUN = {
  ...{ state: "queued" as const, step: 0, seconds: null, tokens: null },
  ...{ teacher: null, before: null, after: null },
};

async function readRunOf(path: string, store: Store): Promise<Omit<ComparedRun, keyof PlannedRun>> {
  const run = await adoptRun(path, store);
  const { state, step, error, result } = summarise(run);
  const rows = (await store.events(run.id, { types: ["evaluation"], holding: true }))
    .filter((event) => event.type === "evaluation");
  const measured = (model: string, fits: (step: number) => boolean): Measurement | null => {
    const row = rows.findLast((row) => row.model === model && fits(row.step));
    if (!row) return null;
    const ofSets = Object.entries(row.sets ?? {}).flatMap(([set, found]) =>
      Object.entries(metricsOf(found)).map(([key, value]) => [setKey(set, key), value] as const)
    );
    return { ...metricsOf(row), ...Object.fromEntries(ofSets) };
  };
  const done = state === "succeeded" ? result : undefined;
  const taught = taughtParts(await store.events(run.id, { types: ["teachers"], holding: true })).length > 0
    ? taughtParts(await store.events(run.id, { types: ["teachers", "metrics"], holding: true }))
    : [];
  return {
    ...(taught.length > 0 ? { taught } : {}),
    state,
    step,
    seconds: done?.seconds ?? null,
    tokens: rows.at(-1)?.tokens ?? null,
    teacher: measured("teacher", (step) => step === 0),
    before: measured("student", (step) => step === 0),
    after: done ? measured("student", (step) => step === done.steps) : null,
    ...(error ? { error } : {}),
  };
}

/** The key of a measurement on one of several held-out sets. Names of sets have no colon. */
export function setKey(set: string, key: string): string {
  return `${set}: ${key}`;
}

function metricsOf({ loss, losses }: SetEvaluation): Record<string, number | null> {
  return { "cross-entropy": loss, ...losses };
}

function recipeOf(plan: ComparisonPlan, { recipe: name, seed }: PlannedRun): Recipe {
  const { recipe } = plan.recipes.find((recipe) => recipe.name === name)!;
  return { ...recipe, train: { ...recipe.train, seed } };
}

async function checkIsPlanned(path: string, recipe: Recipe): Promise<void> {
  if ((await readRun(path)).manifest.recipeHash === recipeHash(recipe)) return;
  throw new InputError("this run was made with another recipe than the comparison says", {
    where: path,
    hint: `Move the folder away, or put ${COMPARISON_FILE} back as it was.`,
  });
}

function isRun(path: string): Promise<boolean> {
  return exists(join(path, "manifest.json"));
}

/** Runs and models that are done and can be measured sequence by sequence, under the names of their files of sequences. */
export function measurable(
  { plan }: Comparison,
  runs: readonly ComparedRun[],
): { name: string; run?: ComparedRun; path?: string }[] {
  return [
    ...runs.filter((run) => run.after !== null).map((run) => ({ name: run.folder, run })),
    ...plannedModels(plan).map(({ file, path }) => ({ name: file, path })),
  ];
}

/** The recipes and models of a comparison with what has been measured of them so far, sequence by sequence. */
export async function readParticipants(
  comparison: Comparison,
  runs: readonly ComparedRun[],
): Promise<Participant[]> {
  const { folder, plan } = comparison;
  const known = new Map<string, readonly MeasuredSet[]>();
  for (const { name } of measurable(comparison, runs)) {
    const sets = await readSequences(folder, name);
    if (sets) known.set(name, sets);
  }
  const measured = (name: string, seed: number | null) => {
    const sets = known.get(name);
    return sets ? [{ seed, sets }] : [];
  };
  return [
    ...plan.recipes.map(({ name }) => ({
      name,
      measured: runs.filter((run) => run.recipe === name).flatMap((run) => measured(run.folder, run.seed)),
    })),
    ...(plan.models ?? []).map((model) => ({
      name: model.name,
      measured: plannedModels({ seeds: plan.seeds, models: [model] })
        .flatMap(({ file, seed }) => measured(file, seed)),
    })),
  ];
}

/** What the files of the teacher and of the student before are called; no recipe's run and no model can be. */
export const TEACHER = "teacher (measured)";
/** See {@linkcode TEACHER}. */
export const BEFORE = "student before (measured)";

/** The recipes and models of a comparison with what they came to on its tasks so far; the teacher and the student before last. */
export async function readTaskParticipants(
  { folder, plan }: Comparison,
  runs: readonly ComparedRun[],
): Promise<TaskParticipant[]> {
  const measured = async (file: string, seed: number | null) => {
    const measurements = await readTaskMeasurements(folder, file);
    return measurements?.length === plan.tasks?.length && measurements ? [{ seed, measurements }] : [];
  };
  const participants: TaskParticipant[] = [];
  for (const { name } of plan.recipes) {
    const own = runs.filter((run) => run.recipe === name && run.after !== null);
    const found = await Promise.all(own.map((run) => measured(run.folder, run.seed)));
    participants.push({ name, measured: found.flat() });
  }
  for (const model of plan.models ?? []) {
    const own = plannedModels({ seeds: plan.seeds, models: [model] });
    const found = await Promise.all(own.map(({ file, seed }) => measured(file, seed)));
    participants.push({ name: model.name, measured: found.flat() });
  }
  participants.push({ name: "student before", measured: await measured(BEFORE, null) });
  participants.push({ name: "teacher", measured: await measured(TEACHER, null) });
  return participants;
}

/** Short names of recipes: their files' without folder and ending, a number behind those that are taken. */
export function recipeNames(files: readonly string[]): string[] {
  const names: string[] = [];
  for (const file of files) {
    // The name becomes a folder's, and a comma could not be expressed in a process's permissions.
    const plain = basename(file, extname(file)).replace(/[^\p{L}\p{N}._-]+/gu, "-") || "recipe";
    let name = plain;
    for (let i = 2; names.includes(name); i++) name = `${plain}-${i}`;
    names.push(name);
  }
  return names;
}
