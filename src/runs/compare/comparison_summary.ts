/**
 * What a comparison comes to: each recipe's figures over its seeds, and its paired differences to the first recipe.
 *
 * @module
 */
import { type ComparedRun, type ComparisonPlan, type Measurement, setKey } from "./comparison.ts";
import { type ComparedTask, comparedTasks, type TaskParticipant } from "./compared_tasks.ts";
import { meanLoss } from "./sequences.ts";
import { type Participant, type SetVerdict, verdicts } from "./verdicts.ts";
import {
  type Direction,
  type PairedSummary,
  type SampleSummary,
  summarisePairs,
  summariseSample,
} from "./paired_statistics.ts";

/**
 * Measurements that mean the same whatever the objective, with which values are the better ones. A loss of the objective may have
 * another temperature or other options in another recipe.
 */
const DIRECTIONS: Readonly<Record<string, Direction>> = {
  "cross-entropy": "lower",
  "bits-per-byte": "lower",
  "forward-kl": "lower",
  "reverse-kl": "lower",
  "top-1-agreement": "higher",
  "top-1-accuracy": "higher",
  "top-5-overlap": "higher",
  "expected-calibration-error": "lower",
};

/** How the key of each of several sets' loss ends. */
const SET_LOSS = setKey("", "cross-entropy");

/** One recipe of a comparison. */
export interface RecipeSummary {
  recipe: string;
  /** Runs that are done. */
  n: number;
  metrics: Record<string, SampleSummary>;
  /** What each of several teachers taught in the first run: its share of the tokens, and the objective over them at the end. */
  taught?: { name: string; share: number | null; loss: number | null }[];
}

/** One recipe, or one model that was made for each seed, against the first recipe. */
export interface DifferenceSummary {
  recipe: string;
  /** The first recipe's name. */
  to: string;
  /** Seeds with which both are done. */
  n: number;
  metrics: Record<string, PairedSummary>;
}

/** A model that is only measured. */
export interface ModelSummary {
  model: string;
  /** Of a model that there is one of for each seed, the means. */
  metrics: Measurement;
  /** Of such a model, how many have been measured, and their spread; else absent. */
  n?: number;
  samples?: Record<string, SampleSummary>;
}

/** All that a comparison says. */
export interface ComparisonSummary {
  /**
   * Supervised held-out tokens that every figure is a mean over, of several sets those of the first; null where nothing was measured.
   */
  tokens: number | null;
  teacher: Measurement | null;
  /** Recipes with one and the same start, and its measurements: means over their runs. */
  before: { recipes: string[]; metrics: Measurement }[];
  recipes: RecipeSummary[];
  differences: DifferenceSummary[];
  /** Names of several held-out sets, the first of which plain keys are of; absent where there is one. */
  sets?: string[];
  /** Models that are only measured, as far as they have been; absent where there is none. */
  models?: ModelSummary[];
  /** Which is the best on each held-out set, as far as sequences have been measured. */
  verdicts: SetVerdict[];
  /** What they come to on tasks, as far as they have been measured; absent where there are none. */
  tasks?: ComparedTask[];
}

/** Sums up what the runs measured. Runs that are not done take no part. @param participants Recipes, then models, sequence by sequence @param onTasks The same on tasks, and the teacher and the student before */
export function summariseComparison(
  plan: ComparisonPlan,
  runs: readonly ComparedRun[],
  participants: readonly Participant[] = [],
  onTasks: readonly TaskParticipant[] = [],
): ComparisonSummary {
  const done = runs.filter((run) => run.after !== null);
  const keys = [...new Set(done.flatMap((run) => Object.keys(run.after!)))];
  const [first, ...others] = plan.recipes.map(({ name }) => name) as [string, ...string[]];
  /** A recipe's values in the order of the seeds; null where a run is not done or the value not finite. */
  const values = (name: string, key: string) =>
    plan.seeds.map((seed) =>
      runs.find((run) => run.recipe === name && run.seed === seed)?.after?.[key] ?? null
    );
  const sets = keys.flatMap((key) => key.endsWith(SET_LOSS) ? [key.slice(0, -SET_LOSS.length)] : []);
  const models = modelLosses(plan, participants);
  const seedsOf = (name: string) => done.filter((run) => run.recipe === name).map((run) => run.seed);
  return {
    tokens: done[0]?.tokens ?? null,
    teacher: done[0]?.teacher ?? null,
    before: starts(plan, done),
    recipes: [first, ...others].map((recipe) => ({
      recipe,
      n: seedsOf(recipe).length,
      metrics: Object.fromEntries(keys.map((key) => [key, summariseSample(values(recipe, key))])),
      ...taughtIn(done.find((run) => run.recipe === recipe)),
    })),
    differences: [
      ...others.map((recipe) => ({
        recipe,
        to: first,
        n: seedsOf(recipe).filter((seed) => seedsOf(first).includes(seed)).length,
        metrics: Object.fromEntries(
          keys.flatMap((key) => {
            const metric = key.slice(key.indexOf(":") + 1).trimStart();
            if (!Object.hasOwn(DIRECTIONS, metric)) return [];
            return [[key, summarisePairs(values(recipe, key), values(first, key), DIRECTIONS[metric]!)]];
          }),
        ),
      })),
      ...models.filter(({ seeds }) => seeds).map(({ model, seeds, losses }) => ({
        recipe: model,
        to: first,
        n: seeds!.filter((seed) => seedsOf(first).includes(seed)).length,
        metrics: Object.fromEntries(
          losses.map(([key, ofSeeds]) => [key, summarisePairs(ofSeeds, values(first, key), "lower")]),
        ),
      })),
    ],
    ...(sets.length > 1 ? { sets } : {}),
    ...(plan.models ? { models: models.map(modelSummary) } : {}),
    verdicts: verdicts(participants),
    ...(plan.tasks ? { tasks: comparedTasks(plan.tasks, onTasks) } : {}),
  };
}

/** What was measured of one model. */
interface ModelLosses {
  readonly model: string;
  /** Seeds that it has been measured for; undefined of a model that is not one for each seed. */
  readonly seeds: readonly number[] | undefined;
  /** Under the same keys as of runs: in the order of the comparison's seeds, or one alone. Null where there is none. */
  readonly losses: readonly (readonly [key: string, losses: readonly (number | null)[]])[];
}

function modelLosses(
  { models = [], seeds }: ComparisonPlan,
  participants: readonly Participant[],
): ModelLosses[] {
  return models.flatMap(({ name: model }): ModelLosses[] => {
    const measured = participants.find(({ name }) => name === model)?.measured ?? [];
    if (measured.length === 0) return [];
    const single = measured.find(({ seed }) => seed === null);
    const ordered = single ? [single] : seeds.map((seed) => measured.find((one) => one.seed === seed));
    const names = measured[0]!.sets.map(({ name }) => name);
    const lossesOf = (set: number) => ordered.map((one) => one ? meanLoss(one.sets[set]!) : null);
    const keys = names.length > 1 ? names.map((name) => setKey(name, "cross-entropy")) : [];
    return [{
      model,
      seeds: single ? undefined : measured.map(({ seed }) => seed!),
      losses: [
        ["cross-entropy", lossesOf(0)] as const,
        ...keys.map((key, set) => [key, lossesOf(set)] as const),
      ],
    }];
  });
}

function modelSummary({ model, seeds, losses }: ModelLosses): ModelSummary {
  const samples = Object.fromEntries(losses.map(([key, values]) => [key, summariseSample(values)]));
  const metrics = Object.fromEntries(losses.map(([key]) => [key, samples[key]!.mean]));
  return { model, metrics, ...(seeds ? { n: seeds.length, samples } : {}) };
}

/** Students before training, those of one base together. */
/** What each teacher taught in a run: which samples a teacher has does not depend on the seed. */
function taughtIn(run: ComparedRun | undefined): Pick<RecipeSummary, "taught"> {
  if (!run?.taught) return {};
  return { taught: run.taught.map(({ name, share, last }) => ({ name, share, loss: last })) };
}

function starts(plan: ComparisonPlan, done: readonly ComparedRun[]): ComparisonSummary["before"] {
  const groups = new Map<string, string[]>();
  for (const { name, recipe: { teacher, student } } of plan.recipes) {
    const path = student.model === "teacher" ? teacher.model : student.model;
    const base = `${path} ${student.layers?.join() ?? student.shape ?? "all"}`;
    groups.set(base, [...groups.get(base) ?? [], name]);
  }
  return [...groups.values()].flatMap((recipes) => {
    const measured = done.filter((run) => recipes.includes(run.recipe)).flatMap((run) =>
      run.before ? [run.before] : []
    );
    if (measured.length === 0) return [];
    const keys = [...new Set(measured.flatMap((before) => Object.keys(before)))];
    const metrics = keys.map((key) =>
      [key, summariseSample(measured.map((before) => before[key] ?? null)).mean] as const
    );
    return [{ recipes, metrics: Object.fromEntries(metrics) }];
  });
}
