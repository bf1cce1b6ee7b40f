/**
 * The shapes of a run as pictures show them: of one that trained several at once, and of one that looked for what a model can do without.
 *
 * @module
 */
import type { RunResult } from "../../distill/export/exports.ts";
import type { RewindEvent, RunEvent, ShapesEvent } from "../../distill/run/events.ts";
import type { DepthMetric } from "../../shape/depth/metrics.ts";
import type { MeasuredShape } from "../../shape/shapes.ts";
import type { Task } from "../task/task.ts";
import type { PicturedFigure, PicturedShape } from "./charts/frontier_points.ts";

/** A shape of a run. */
export interface RunShape extends PicturedShape {
  /** Those that stay, rising. */
  readonly layers: readonly number[];
  /** Part of the width that stays. */
  readonly width: number;
  /** Its figure before training, where it was trained. */
  readonly before?: number | null;
  /** Searches and rules that give it, where it was searched for. */
  readonly by?: readonly string[];
}

/** The shapes of a run, and what they are compared by. */
export interface RunShapes {
  readonly figure: PicturedFigure;
  /** Steps done when they were measured; absent where nothing is trained. */
  readonly step?: number;
  readonly shapes: readonly RunShape[];
}

/**
 * What shapes that are trained at once lose, as it was measured last; undefined where the run has one shape, or has measured none yet.
 *
 * @param events At least those of shapes and the rewinds, in their order
 */
export function trainedShapes(events: readonly RunEvent[]): RunShapes | undefined {
  const measured = measurementsOfShapes(events);
  const last = measured.at(-1);
  if (!last) return undefined;
  const [first] = measured;
  const before = new Map(first!.shapes.map(({ name, loss }) => [name, loss]));
  return {
    figure: { name: "held-out loss" },
    step: last.step,
    shapes: last.shapes.map(({ name, layers, width, parameters, loss, tokensPerSecond }) => ({
      ...{ name, layers, width, parameters, value: loss },
      ...(tokensPerSecond === null ? {} : { tokensPerSecond }),
      ...(last.step > first!.step ? { before: before.get(name) ?? null } : {}),
    })),
  };
}

/** What was measured of shapes and holds: a later attempt takes back what was said of steps that it does anew. */
export function measurementsOfShapes(events: readonly RunEvent[]): ShapesEvent[] {
  return events.filter((event): event is RunEvent & (ShapesEvent | RewindEvent) =>
    event.type === "shapes" || event.type === "rewind"
  ).reduce(
    (held: ShapesEvent[], event) =>
      event.type === "shapes" ? [...held, event] : held.filter(({ step }) => step <= event.step),
    [],
  );
}

/** What shapes are drawn by: the loss wherever it was measured, which is for all metrics of text. */
const FIGURES: Readonly<Record<DepthMetric, PicturedFigure & { readonly of: "loss" | "accuracy" }>> = {
  loss: { name: "loss", of: "loss" },
  kl: { name: "loss", of: "loss" },
  accuracy: { name: "accuracy", of: "accuracy", higherIsBetter: true },
};

/** What the shapes that a search measured lose. */
export function searchedShapes(shapes: readonly MeasuredShape[], metric: DepthMetric): RunShapes {
  const figure = FIGURES[metric];
  return {
    figure,
    shapes: shapes.map(({ layers, width, values, parameters, tokensPerSecond, chosen, by }) => ({
      ...{ name: nameOf({ layers, width }), layers, width: width ?? 1, by, parameters },
      value: values[figure.of] ?? null,
      ...(tokensPerSecond === undefined ? {} : { tokensPerSecond }),
      ...(chosen ? { chosen: true } : {}),
    })),
  };
}

/** The shapes that a task says it found; undefined where it looked for none. */
export function foundShapes(task: Task, findings: RunResult["findings"]): RunShapes | undefined {
  const { shapes } = (findings ?? {}) as { shapes?: readonly MeasuredShape[] };
  return task.task === "shrink" && shapes ? searchedShapes(shapes, task.metric) : undefined;
}

function nameOf({ layers, width }: { layers: readonly number[]; width: number | undefined }): string {
  return [`layers ${layers.join(", ")}`, ...(width === undefined ? [] : [`width ${width}`])].join("; ");
}
