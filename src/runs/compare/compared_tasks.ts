/**
 * What the models of a comparison come to on tasks: means over seeds, and differences to the first recipe over the same items.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { isObject } from "../../base/json.ts";
import type { Figure, Measurement } from "../../evaluation/results/measurement.ts";
import { type Bootstrap, pairedBootstrap } from "../../evaluation/scores/bootstrap.ts";
import type { EvaluationTask, TaskKind } from "../../evaluation/tasks/task.ts";
import { exists } from "../../formats/files.ts";
import { type Interval, meanInterval } from "./intervals.ts";
import { type SampleSummary, summariseSample } from "./paired_statistics.ts";

/** The folder of what was measured on tasks, in a comparison's. */
const TASKS_FOLDER = "tasks";

/** Who takes part: a recipe with its runs, or a model. */
export interface TaskParticipant {
  readonly name: string;
  /** Of each run by its seed; under null of a model that is not one for each seed. */
  readonly measured: readonly {
    readonly seed: number | null;
    readonly measurements: readonly Measurement[];
  }[];
}

/** One figure of all participants. */
export interface ComparedTaskFigure extends Pick<Figure, "key" | "title" | "better"> {
  /** By participant, over seeds. */
  values: Record<string, SampleSummary>;
  /** Each other participant against the first. */
  differences: TaskDifference[];
}

/** A participant less the first one. */
export interface TaskDifference {
  other: string;
  /** Pairs of runs. */
  runs: number;
  /** Over the same items, of each the mean over the pairs; null where a figure is no mean over items. */
  overItems: Bootstrap | null;
  /** 95 % over seeds; null below two pairs. */
  overSeeds: Interval | null;
}

/** One task. */
export interface ComparedTask {
  name: string;
  kind: TaskKind;
  items: number;
  unit: string;
  figures: ComparedTaskFigure[];
}

/** The file of what a model came to. */
export function taskFile(folder: string, name: string): string {
  return join(folder, TASKS_FOLDER, `${name}.json`);
}

/** What has been measured of a model on tasks; undefined where nothing has, or it is damaged. */
export async function readTaskMeasurements(
  folder: string,
  name: string,
): Promise<readonly Measurement[] | undefined> {
  const path = taskFile(folder, name);
  if (!await exists(path)) return undefined;
  try {
    const value: unknown = JSON.parse(await Deno.readTextFile(path));
    return isObject(value) && Array.isArray(value.measurements)
      ? value.measurements as Measurement[]
      : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Arranges what there is. @param participants The one first that others are compared with; without measurements one takes no part */
export function comparedTasks(
  tasks: readonly Pick<EvaluationTask, "name" | "kind">[],
  participants: readonly TaskParticipant[],
): ComparedTask[] {
  const there = participants.filter(({ measured }) => measured.length > 0);
  const [first] = there;
  if (!first) return [];
  return tasks.map(({ name, kind }, t) => {
    const { items, unit, figures } = first.measured[0]!.measurements[t]!;
    return {
      ...{ name, kind, items, unit },
      figures: figures.map(({ key, title, better }) => {
        const of = ({ measured }: TaskParticipant) =>
          measured.map(({ seed, measurements }) => ({
            seed,
            figure: measurements[t]!.figures.find((figure) => figure.key === key),
          }));
        return {
          ...{ key, title, better },
          values: Object.fromEntries(
            there.map((
              one,
            ) => [one.name, summariseSample(of(one).map(({ figure }) => figure?.value ?? null))]),
          ),
          differences: there.slice(1).map((other) => ({
            other: other.name,
            ...difference(of(other), of(first)),
          })),
        };
      }),
    };
  });
}

type OfSeed = { readonly seed: number | null; readonly figure: Figure | undefined };

function difference(mine: readonly OfSeed[], firsts: readonly OfSeed[]): Omit<TaskDifference, "other"> {
  const pairs = mine.flatMap((a) =>
    firsts.filter(({ seed }) => seed === null || a.seed === null || seed === a.seed)
      .flatMap((b) => (a.figure && b.figure ? [[a.figure, b.figure] as const] : []))
  );
  const bySeed = pairs.flatMap(([a, b]) => (a.value === null || b.value === null ? [] : [a.value - b.value]));
  return { runs: pairs.length, overItems: overItems(pairs), overSeeds: meanInterval(bySeed) };
}

/** Seeds are no further items: of each item the mean over the pairs is what is drawn. */
function overItems(pairs: readonly (readonly [Figure, Figure])[]): Bootstrap | null {
  const [first] = pairs;
  const values = first?.[0].values;
  if (!first || !values) return null;
  const { sizes } = first[0];
  const same = pairs.flat().every((figure) =>
    figure.values?.length === values.length && String(figure.sizes) === String(sizes)
  );
  if (!same) return null;
  const mean = (side: 0 | 1) =>
    values.map((_, i) => pairs.reduce((sum, pair) => sum + pair[side].values![i]!, 0) / pairs.length);
  return pairedBootstrap(mean(0), mean(1), sizes ? { sizes } : {}) ?? null;
}
