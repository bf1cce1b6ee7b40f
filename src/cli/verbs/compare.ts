/**
 * `limbeck compare`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { checkComparable, type ComparedRecipe, comparedRecipe } from "../../distill/run/comparability.ts";
import type { RunEvent } from "../../distill/run/events.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { type ExitCode, LimbeckError, UsageError } from "../../base/errors.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import {
  addModels,
  beginRun,
  type ComparedRun,
  type Comparison,
  COMPARISON_FILE,
  createComparison,
  openComparison,
  type PlannedRun,
  plannedRuns,
  readParticipants,
  readRuns,
  readTaskParticipants,
  recipeNames,
} from "../../runs/compare/comparison.ts";
import { COMPARISON_PAGE, comparisonPage } from "../../runs/compare/comparison_page.ts";
import { summariseComparison } from "../../runs/compare/comparison_summary.ts";
import { fineTuningTwin } from "../../runs/compare/twin.ts";
import { openTasks } from "../../distill/run/task_evaluation.ts";
import { namedTask } from "../../evaluation/tasks/task.ts";
import { uniqueTasks } from "./compare_tasks.ts";
import { shellQuoted } from "../../base/quoting.ts";
import { WAITING } from "../../runs/child/training.ts";
import { openStore, openStoreOf } from "../../runs/store/data_folder.ts";
import type { Store } from "../../runs/store/store.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { type RunOutcome, type SupervisedRun, superviseRun } from "../../runs/supervise/supervisor.ts";
import { stepsOf } from "../../runs/task/run_recipe.ts";
import type { Command, FlagReader, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { checkModels, type MeasureComparison, measureSequences, readModels } from "./compare_models.ts";
import { comparisonMarkdown, comparisonTables, tableLines } from "./comparison_table.ts";
import { openRecipe } from "../../distill/run/open_recipe.ts";
import { restoredModels } from "../hub_models.ts";
import { readRecipe, RECIPE_FLAGS } from "./distill.ts";
import { isDebug } from "../terminal/output.ts";
import { registryWith } from "../setup/registry.ts";
import { duration, number3 } from "../../base/units.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { handleSignals, prepareMachine, RUN_FLAGS, tuneMode } from "../terminal/watch_run.ts";

/** Seconds between two lines about the steps of a run. */
const LINE_SECONDS = 15;
const MOST_SEEDS = 1000;
const LARGEST_SEED = 0xffff_ffff;

const { watchdog, tune, "no-tune": noTune, "no-setup": noSetup } = RUN_FLAGS;

/** Compares recipes on paired seeds, and models with them. */
export const compare: Command = {
  name: "compare",
  usage: "RECIPE ... [--task TASK ...] [--model NAME=PATH ...] | --resume FOLDER",
  positional: [0, 100],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Runs each recipe with each seed, one run after another, and prints held-out figures with their spread over the seeds and " +
    "the differences to the first recipe, seed by seed. A seed decides initialisation, order of the data and dropout. Recipes " +
    "must share teacher, held-out data and context length. Models that are only measured, such as a merge or a base, stand beside " +
    "them with --model, also later, with --resume; {seed} in a path stands for each seed, so that a merge of each seed's runs is " +
    "paired with them. For each held-out set, the best is told by paired differences with intervals of 95 %, over texts and over " +
    "seeds. Where no recipe learns by cross-entropy alone, a twin of the first that does is run too: what distilling gives is what it " +
    "gives beyond that. Tasks of --task and of the first recipe are measured of all. Samples and merged models are left out. Ctrl-C saves and stops; --resume continues and repeats nothing that is done.",
  flags: {
    ...RECIPE_FLAGS,
    seeds: { value: "COUNT|LIST", help: "3 means 1,2,3; a list such as 11,12 means these (default 3)" },
    model: {
      value: "NAME=PATH",
      many: true,
      help:
        "A model that is measured on the same held-out data, by path or hf:ORG/NAME; {seed} in a path stands for each seed",
    },
    resume: { value: "FOLDER", help: "Continue a comparison" },
    ...DATA_FLAG,
    task: { value: "TASK", many: true, help: "Measure all on a task too, as limbeck eval takes them" },
    "no-twin": { help: "Leave out the plain fine-tuning twin of the first recipe" },
    merged: { help: "Write merged models too" },
    ...{ watchdog: watchdog!, tune: tune!, "no-tune": noTune!, ...PROVIDER_FLAG, "no-setup": noSetup! },
  },
  examples: [
    "limbeck compare lora.yaml llm-neo.yaml --seeds 3",
    "limbeck compare llm-neo.yaml --task mmlu=./mmlu-val --task agreement=heldout.jsonl",
    "limbeck compare lora.yaml llm-neo.yaml --seeds 11,12,13 --set train.steps=100 --json",
    "limbeck compare mixture.yaml --model merge=./merged --model base=./base",
    "limbeck compare --resume limbeck-data/runs/compare-20260724-153012-k7wq",
    "limbeck compare --resume limbeck-data/runs/compare-20260724-153012-k7wq --model 'ties=./ties-seed{seed}'",
  ],
  run: (invocation) => runComparison(invocation),
};

/**
 * Runs or resumes a comparison, writes its files and prints its tables.
 *
 * @param entry module of the trainer; tests hand in their own, whose runs have no model that could be measured
 * @param measure measures what is done sequence by sequence
 * @returns the exit code
 * @throws {LimbeckError} runs failed, with the exit code of the first of them
 */
export async function runComparison(
  invocation: Invocation,
  entry?: string,
  measure: MeasureComparison | undefined = entry === undefined ? measureSequences : undefined,
): Promise<number> {
  const { comparison, store } = await openOrCreate(invocation);
  try {
    const stopped = await new Runner(comparison, store, invocation, entry).run();
    let failure: unknown;
    try {
      if (!stopped) await measure?.(comparison, await readRuns(comparison, store), invocation);
    } catch (error) {
      // What was trained is told first: it may have taken days.
      failure = error;
    }
    const code = await conclude(comparison, store, stopped, invocation);
    if (failure) throw failure;
    return code;
  } finally {
    comparison.release();
    store.close();
  }
}

/** A store is only opened, and perhaps made, once all that was given is right. */
async function openOrCreate(invocation: Invocation): Promise<{ comparison: Comparison; store: Store }> {
  const { args, flags } = invocation;
  const folder = flags.text("resume");
  if (folder !== undefined) {
    const given = ["set", "plugin"].filter((name) => flags.list(name).length > 0);
    for (const name of ["config", "seeds"]) if (flags.text(name) !== undefined) given.push(name);
    for (const name of ["merged", "no-twin"]) if (flags.on(name)) given.push(name);
    if (flags.list("task").length > 0) given.push("task");
    if (args.length > 0 || given.length > 0) {
      throw new UsageError(
        `--resume takes no ${args.length > 0 ? "recipes" : `--${given[0]}`}: the comparison has its own`,
        { hint: "To compare something else, begin a new comparison." },
      );
    }
    await prepareMachine(invocation);
    const comparison = await openComparison(folder);
    try {
      for (const { recipe } of comparison.plan.recipes) await restoredModels(recipe, invocation);
      await addGivenModels(comparison, invocation);
      return { comparison, store: await openStoreOf(folder, flags.text("data")) };
    } catch (error) {
      comparison.release();
      throw error;
    }
  }
  const seeds = readSeeds(flags);
  const models = await readModels(invocation, recipeNames(args), seeds);
  if (args.length < 1) {
    throw new UsageError("name a recipe, the one first that others are compared with", {
      hint: "See limbeck compare --help.",
    });
  }
  const { recipes, tasks, warnings } = await checkRecipes(invocation);
  if (recipes.length + models.length < 2) {
    throw new UsageError("there is nothing to compare with: name a second recipe, or a --model", {
      hint: flags.on("no-twin")
        ? "Without --no-twin, its plain fine-tuning twin is compared with it."
        : "It learns by cross-entropy alone, or trains several shapes, so it has no plain fine-tuning twin.",
    });
  }
  await checkModels({ seeds, models }, recipes[0]!.recipe, invocation);
  for (const warning of warnings) invocation.out.warn(warning);
  await prepareMachine(invocation);
  const store = openStore(flags.text("data"));
  const plugins = invocation.plugins?.map(({ path }) => path) ?? [];
  return {
    comparison: await createComparison({ recipes, models, tasks, seeds, warnings, plugins, store }),
    store,
  };
}

/** Adds what `--model` names to a comparison that there is. */
async function addGivenModels(comparison: Comparison, invocation: Invocation): Promise<void> {
  const { recipes, seeds } = comparison.plan;
  const models = await readModels(invocation, recipes.map(({ name }) => name), seeds);
  if (models.length === 0) return;
  await checkModels({ seeds, models }, recipes[0]!.recipe, invocation);
  await addModels(comparison, models);
}

/**
 * The seeds that `--seeds` means.
 *
 * @throws {UsageError} something that is no count and no list of different seeds
 */
export function readSeeds(flags: FlagReader): number[] {
  const text = flags.text("seeds") ?? "3";
  const numbers = text.split(",").map((part) => /^\d+$/.test(part.trim()) ? Number(part) : NaN);
  const isList = text.includes(",");
  const fits = isList
    ? numbers.every((seed) => seed <= LARGEST_SEED) && new Set(numbers).size === numbers.length
    : numbers[0]! >= 1 && numbers[0]! <= MOST_SEEDS;
  if (!fits) {
    throw new UsageError(`--seeds must be a count or a list of different seeds, not "${text}"`, {
      hint: "--seeds 3 means the seeds 1, 2 and 3; --seeds 11,12,13 means these.",
    });
  }
  return isList ? numbers : Array.from({ length: numbers[0]! }, (_, i) => i + 1);
}

/** Opens every recipe once, so that all that is wrong with one is said before the first run. */
async function checkRecipes(invocation: Invocation) {
  const { args, flags, out, plugins } = invocation;
  const registry = await registryWith(plugins);
  const names = recipeNames(args);
  const recipes: { name: string; file: string; recipe: Recipe }[] = [];
  const compared: ComparedRecipe[] = [];
  const said = new Set<string>();
  const given = [];
  for (const [i, file] of args.entries()) {
    given.push({ name: names[i]!, file, recipe: await readRecipe(file, invocation) });
  }
  const twin = flags.on("no-twin") || given.length === 0 ? undefined : fineTuningTwin(given);
  const named = await Promise.all(flags.list("task").map(namedTask));
  const tasks = uniqueTasks([...named, ...given[0]!.recipe.evaluate?.tasks ?? []]);
  await openTasks(tasks);
  for (const { name, file, recipe: read } of twin ? [...given, twin] : given) {
    // What is asked of all is measured here, of each model once.
    const { evaluate: _, ...asked } = read;
    const recipe = {
      ...asked,
      samples: { ...read.samples, tokens: 0 },
      // Without an adapter, the merged model is all that a run leaves.
      output: { merged: flags.on("merged") || read.adapter === "none" },
    };
    await openRecipe(recipe, registry, ({ prepared, warnings }) => {
      compared.push(comparedRecipe(name, prepared));
      for (const { message } of warnings) {
        if (!said.has(message)) out.warn(message);
        said.add(message);
      }
    });
    recipes.push({ name, file, recipe });
  }
  return { recipes, tasks, warnings: await checkComparable(compared) };
}

/** Runs what is not done, one run after another. */
class Runner {
  readonly #comparison: Comparison;
  readonly #store: Store;
  readonly #invocation: Invocation;
  readonly #entry: string | undefined;
  #current: SupervisedRun | undefined;
  #stopped = false;

  constructor(comparison: Comparison, store: Store, invocation: Invocation, entry: string | undefined) {
    this.#comparison = comparison;
    this.#store = store;
    this.#invocation = invocation;
    this.#entry = entry;
  }

  /** @returns whether it was asked to stop before the end */
  async run(): Promise<boolean> {
    const { out } = this.#invocation;
    const runs = plannedRuns(this.#comparison.plan);
    out.line(`Comparison of ${runs.length} runs in ${shownPath(this.#comparison.folder)}`);
    using _signals = handleSignals({
      first: () => {
        out.line("Saving a checkpoint and stopping; Ctrl-C again stops at once.");
        this.#stopped = true;
        this.#current?.request("pause");
      },
      second: () => this.#current?.kill(),
    });
    const begun = performance.now();
    let done = 0;
    for (const [i, planned] of runs.entries()) {
      if (this.#stopped) return true;
      const title = bold(`[${i + 1}/${runs.length}] ${planned.recipe}, seed ${planned.seed}`);
      const outcome = await this.#one(planned, title);
      if (outcome === undefined) continue;
      done++;
      // A run that was killed is not the comparison's end unless the user wanted it.
      if (this.#stopped && outcome.state !== "succeeded") return true;
      const left = (performance.now() - begun) / 1000 / done * (runs.length - i - 1);
      out.line(`${title}: ${outcomeText(outcome)}${left > 0 ? `; about ${duration(left)} left` : ""}`);
      await write(this.#comparison, this.#store);
    }
    return false;
  }

  /** @returns undefined where the run was done before */
  async #one(planned: PlannedRun, title: string): Promise<RunOutcome | undefined> {
    const { out, flags } = this.#invocation;
    const begun = await beginRun(this.#comparison, planned, this.#store);
    if (!begun) {
      out.line(`${title}: done before`);
      return undefined;
    }
    const { run, resume } = begun;
    out.line(`${title}: ${resume ? "continues" : "begins"}`);
    try {
      this.#current = superviseRun({
        run,
        resume,
        entry: this.#entry,
        watchdogSeconds: flags.number("watchdog"),
        debug: isDebug(),
        tune: tuneMode(flags),
        onEvent: this.#follow(stepsOf(run.recipe)),
      });
      // It may have been asked while the run's folder was made.
      if (this.#stopped) this.#current.request("pause");
      return await this.#current.outcome;
    } finally {
      this.#current = undefined;
      run.release();
    }
  }

  /** Prints few lines of what a run says. */
  #follow(steps: number): (event: RunEvent) => void {
    const { out } = this.#invocation;
    let last = performance.now();
    return (event) => {
      if (event.type === "state" && event.state === "interrupted") {
        out.line(`  ${event.message ?? "the training process ended"}`);
      }
      if (event.type === "stage" && event.stage === WAITING) out.line(`  ${event.message}`);
      if (event.type !== "metrics" || performance.now() - last < LINE_SECONDS * 1000) return;
      last = performance.now();
      const left = (steps - event.step) * event.secondsPerStep;
      out.line(
        `  step ${event.step}/${steps}  loss ${number3(event.loss)}  ${duration(left)} left in this run`,
      );
    };
  }
}

function outcomeText({ state, result, error }: RunOutcome): string {
  if (state !== "succeeded" || !result) return `${state}${error ? `: ${error.message}` : ""}`;
  return `held-out loss ${number3(result.heldOut.after)} after ${result.steps} steps in ${
    duration(result.seconds)
  }`;
}

/** Writes `compare.json` and `compare.md` from what the runs' folders hold. */
async function write(comparison: Comparison, store: Store) {
  const { folder, plan } = comparison;
  const runs = await readRuns(comparison, store);
  const summary = summariseComparison(
    plan,
    runs,
    await readParticipants(comparison, runs),
    plan.tasks ? await readTaskParticipants(comparison, runs) : [],
  );
  const tables = comparisonTables(plan, summary);
  const all = { ...plan, runs, summary };
  await writeTextAtomically(join(folder, COMPARISON_FILE), JSON.stringify(all, null, 2) + "\n");
  await writeTextAtomically(join(folder, "compare.md"), comparisonMarkdown(plan, tables));
  const shown = [tables.figures, tables.differences, tables.verdicts, tables.tasks, tables.taskDifferences];
  await writeTextAtomically(
    join(folder, COMPARISON_PAGE),
    comparisonPage(plan, summary, shown.filter((table) => table !== undefined), tables.notes),
  );
  return { runs, tables, all };
}

async function conclude(
  comparison: Comparison,
  store: Store,
  stopped: boolean,
  { out }: Invocation,
): Promise<number> {
  const { runs, tables, all } = await write(comparison, store);
  const folder = shownPath(comparison.folder);
  const open = runs.filter((run) => run.after === null);
  out.value({ ...all, folder });
  if (open.length < runs.length) {
    for (
      const table of [
        tables.figures,
        tables.differences,
        tables.verdicts,
        tables.tasks,
        tables.taskDifferences,
      ]
    ) {
      if (!table) continue;
      const width = out.terminal.interactive ? out.terminal.columns() : undefined;
      for (const [head, ...lines] of tableLines(table, width)) {
        for (const line of ["", bold(head!), ...lines]) out.line(line);
      }
    }
    out.line();
    for (const note of tables.notes) out.line(note);
    out.line(
      `A page to look at is ${join(folder, COMPARISON_PAGE)}; the table is in ${
        join(folder, "compare.md")
      }, every number in ${join(folder, COMPARISON_FILE)}.`,
    );
  }
  const command = `\`limbeck compare --resume ${shellQuoted(folder)}\``;
  if (stopped) {
    out.line(`Stopped with ${open.length} of ${runs.length} runs to do. ${command} continues.`);
    return 130;
  }
  if (open.length > 0) throw new ComparisonError(open, runs.length, command);
  return 0;
}

/** Some runs of a comparison failed. */
class ComparisonError extends LimbeckError {
  override readonly exitCode: ExitCode;
  override readonly code = "comparison";

  constructor(failed: readonly ComparedRun[], all: number, command: string) {
    const lines = failed.map(({ recipe, seed, state, error }) =>
      `\n  ${recipe}, seed ${seed}: ${error?.message ?? state}`
    );
    super(`${failed.length} of ${all} runs failed${lines.join("")}`, {
      hint: `${command} tries them again.`,
    });
    this.exitCode = (failed.find((run) => run.error)?.error?.exitCode ?? 1) as ExitCode;
  }
}
