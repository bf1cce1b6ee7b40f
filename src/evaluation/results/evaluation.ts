/**
 * Models beside each other on some tasks, with paired differences to the first of them.
 *
 * @module
 */
import { type Bootstrap, pairedBootstrap } from "../scores/bootstrap.ts";
import type { Calibration } from "../scores/calibration.ts";
import type { EvaluationTask, TaskKind } from "../tasks/task.ts";
import type { Figure, Measurement } from "./measurement.ts";

/** A figure of every model. */
export interface ComparedFigure extends Pick<Figure, "key" | "title" | "better"> {
  /** In the order of the models; null where one has none. */
  readonly values: readonly (number | null)[];
  /**
   * Of each model less the first one over the same items, with its interval; null for the first one, and where a figure is no mean over
   * items or the two have other items.
   */
  readonly differences: readonly (Bootstrap | null)[];
}

/** One task. */
export interface EvaluatedTask {
  readonly name: string;
  readonly kind: TaskKind;
  readonly items: number;
  /** What an item is, in the plural. */
  readonly unit: string;
  /** The first one decides. */
  readonly figures: readonly ComparedFigure[];
  /** What happened on the way, of each model. */
  readonly counts: readonly Readonly<Record<string, number>>[];
  /** Of each model; absent where the task has none. */
  readonly calibration?: readonly (Calibration | null)[];
  /** Some texts of each model; absent where none are written. */
  readonly texts?: readonly NonNullable<Measurement["texts"]>[];
}

/** What some models came to. */
export interface Evaluation {
  /** Names; differences are to the first one. */
  readonly models: readonly string[];
  readonly tasks: readonly EvaluatedTask[];
  /** How intervals are drawn. */
  readonly bootstrap: { readonly resamples: number; readonly level: number; readonly seed: number };
}

/** A model with what it came to on each task, in their order. */
export interface MeasuredModel {
  readonly name: string;
  readonly measurements: readonly Measurement[];
}

const BOOTSTRAP = { resamples: 10_000, level: 0.95, seed: 0 } as const;

/** Arranges measurements of the same tasks. @param models The one first that others are compared with */
export function evaluationOf(
  tasks: readonly Pick<EvaluationTask, "name" | "kind">[],
  models: readonly MeasuredModel[],
): Evaluation {
  return {
    models: models.map(({ name }) => name),
    tasks: tasks.map(({ name, kind }, t) => {
      const found = models.map(({ measurements }) => measurements[t]!);
      const { items, unit, figures } = found[0]!;
      return {
        ...{ name, kind, items, unit },
        figures: figures.map((figure) => comparedFigure(figure, found)),
        counts: found.map(({ counts }) => counts),
        ...(found.some(({ calibration }) => calibration)
          ? { calibration: found.map(({ calibration }) => calibration ?? null) }
          : {}),
        ...(found.some(({ texts }) => texts) ? { texts: found.map(({ texts = [] }) => texts) } : {}),
      };
    }),
    bootstrap: BOOTSTRAP,
  };
}

function comparedFigure(
  { key, title, better, values, sizes }: Figure,
  found: readonly Measurement[],
): ComparedFigure {
  const ofAll = found.map(({ figures }) => figures.find((figure) => figure.key === key));
  return {
    ...{ key, title, better },
    values: ofAll.map((figure) => figure?.value ?? null),
    differences: ofAll.map((figure, i) => {
      const same = figure?.values?.length === values?.length && String(figure?.sizes) === String(sizes);
      if (i === 0 || !values || !figure?.values || !same) return null;
      return pairedBootstrap(figure.values, values, { ...BOOTSTRAP, ...(sizes ? { sizes } : {}) }) ?? null;
    }),
  };
}

/** What a paired difference says: whether its interval leaves out 0, and on which side. */
export function verdictOf(
  { better }: Pick<ComparedFigure, "better">,
  difference: Bootstrap | null,
): "better" | "worse" | "not told apart" | "" {
  if (!difference || difference.items < 2) return "";
  if (difference.low <= 0 && difference.high >= 0) return "not told apart";
  return (difference.high < 0) === (better === "lower") ? "better" : "worse";
}
