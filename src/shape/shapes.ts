/**
 * All shapes of a model that were measured, as a picture of them needs them.
 *
 * @module
 */
import { nearFrontier, type Tradeoff } from "../base/frontier.ts";
import type { Architecture } from "../models/architecture.ts";
import type { DepthFindings } from "./depth/depth_search.ts";
import type { SubsetValues } from "./depth/evaluation_cache.ts";
import { type DepthMetric, valueOf } from "./depth/metrics.ts";
import { subsetKey, without } from "./depth/subsets.ts";
import type { WidthFindings } from "./width/measured_width.ts";

/** A shape that was measured. */
export interface MeasuredShape {
  /** Those that stay, rising. */
  readonly layers: readonly number[];
  /** Part of the width that stays; absent where none was cut. */
  readonly width?: number;
  readonly values: SubsetValues;
  /** Parameters that compute. */
  readonly parameters: number;
  /** What a folder holds, narrower layers filled up, where that is more. */
  readonly stored?: number;
  /** `whole`, and the searches and rules that give it. */
  readonly by: readonly string[];
  /** Whether it is what a shrink ended with. */
  readonly chosen: boolean;
  /** Place among the measured shapes of as many layers that are not narrower, from 1; equal values share a place. */
  readonly rank?: number;
  /** Absent where it was not measured. */
  readonly tokensPerSecond?: number;
}

/** What one shrink of the model found. */
export interface ShapeSource {
  readonly findings?: DepthFindings;
  readonly width?: WidthFindings;
}

/** The layers that a shrink keeps. */
export function keptLayers({ findings }: ShapeSource, layers: number): readonly number[] {
  return findings?.plan.kept ?? without(layers, []);
}

/** What tells a shape from others of its model. */
export function shapeKey(
  { layers, width }: { layers: readonly number[]; width?: number | undefined },
): string {
  return `${subsetKey(layers)} ${width ?? 1}`;
}

/** The shapes that several shrinks of one model measured, each once, in the order in which they came. */
export function measuredShapes(
  sources: readonly ShapeSource[],
  architecture: Architecture,
  metric: DepthMetric,
): MeasuredShape[] {
  const { layers } = architecture.config;
  const parametersOf = parametersBySubset(architecture);
  const found = new Map<string, MeasuredShape>();
  const add = (shape: Omit<MeasuredShape, "by" | "chosen">, by?: string, chosen = false) => {
    const key = shapeKey(shape);
    const known = found.get(key);
    found.set(key, {
      ...shape,
      values: { ...known?.values, ...shape.values },
      by: [...new Set([...known?.by ?? [], ...by === undefined ? [] : [by]])],
      chosen: chosen || (known?.chosen ?? false),
    });
  };
  const subset = (kept: readonly number[], values: SubsetValues, by?: string, chosen = false) =>
    add({ layers: kept, values, parameters: parametersOf(kept) }, by, chosen);
  for (const source of sources) {
    const { findings, width } = source;
    if (findings) {
      const { full, plan, others, subsets } = findings;
      subset(full.kept, full.values, "whole");
      for (const { kept, values } of subsets) subset(kept, values);
      subset(plan.kept, plan.values, plan.by, !width);
      for (const { kept, values, by } of others) subset(kept, values, by);
    }
    if (width) {
      const { goal, parameters: { kept, stored }, values } = width;
      subset(without(layers, []), width.full, "whole");
      add(
        {
          ...{ layers: keptLayers(source, layers), width: goal.ratio, values, parameters: kept },
          ...(stored > kept ? { stored } : {}),
        },
        findings?.plan.by,
        true,
      );
    }
  }
  return ranked([...found.values()], layers, metric);
}

/** Parameters of a subset of the layers. */
function parametersBySubset({ tensors, family, config, parameterCount }: Architecture) {
  const sizes = Array.from({ length: config.layers }, (_, layer) => {
    const own = `${family.names.layers}.${layer}.`;
    return [...tensors].reduce(
      (sum, [name, shape]) => sum + (name.startsWith(own) ? shape.reduce((a, b) => a * b, 1) : 0),
      0,
    );
  });
  return (kept: readonly number[]) =>
    parameterCount - without(config.layers, kept).reduce((sum, layer) => sum + sizes[layer]!, 0);
}

function ranked(shapes: readonly MeasuredShape[], layers: number, metric: DepthMetric): MeasuredShape[] {
  const values = new Map<number, number[]>();
  const isRanked = ({ width, layers: kept }: MeasuredShape) => width === undefined && kept.length < layers;
  for (const shape of shapes.filter(isRanked)) {
    const { length } = shape.layers;
    values.set(length, [...values.get(length) ?? [], valueOf(shape.values, metric)]);
  }
  const places = new Map([...values].map(([length, of]) => {
    const first = new Map<number, number>();
    of.sort((a, b) => a - b).forEach((value, i) => first.has(value) || first.set(value, i + 1));
    return [length, first];
  }));
  return shapes.map((shape) =>
    isRanked(shape)
      ? { ...shape, rank: places.get(shape.layers.length)!.get(valueOf(shape.values, metric))! }
      : shape
  );
}

/** What a shape costs and loses. */
function tradeoffOf({ parameters, values }: MeasuredShape, metric: DepthMetric): Tradeoff {
  return [parameters, valueOf(values, metric)];
}

/** Part of the frontier's value within which a shape is near it. */
const NEAR = 0.02;
/** Most shapes of a whole width that are timed. */
const MOST = 32;

/**
 * The shapes that are worth more time: those that have a name, those that were cut in width, and those on the frontier or near it,
 * the best ones where they are many.
 */
export function shapesToTime(shapes: readonly MeasuredShape[], metric: DepthMetric): MeasuredShape[] {
  const of = (shape: MeasuredShape) => tradeoffOf(shape, metric);
  const isNamed = ({ by, chosen, width }: MeasuredShape) => by.length > 0 || chosen || width !== undefined;
  const near = [0, NEAR].flatMap((tolerance) => nearFrontier(shapes, of, tolerance));
  return [...new Set([...shapes.filter(isNamed), ...near])].slice(
    0,
    Math.max(MOST, shapes.filter(isNamed).length),
  );
}
