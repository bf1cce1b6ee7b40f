/**
 * What a shrink found, for machines and for people.
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { count, short } from "../../base/units.ts";
import type { DepthFindings, DepthPlan, MeasuredSubset } from "../../shape/depth/depth_search.ts";
import type { SubsetValues } from "../../shape/depth/evaluation_cache.ts";
import type { MeasuredShape } from "../../shape/shapes.ts";
import type { ShrinkGridOptions, ShrinkOptions, Shrunk, ShrunkGrid } from "../../shape/shrunk.ts";
import type { WidthFindings } from "../../shape/width/measured_width.ts";
import { table } from "./table.ts";

/** The result for machines. */
export function toldOf(
  { goal, findings, width, shapes, ...shrunk }: Shrunk,
  { metric, output, shape }: Pick<ShrinkOptions, "metric" | "output" | "shape">,
) {
  return {
    ...shrunk,
    ...{ metric, ...goal },
    ...(findings ? depthTold(findings) : {}),
    ...(width ? { width: widthTold(width) } : {}),
    ...(output === undefined ? {} : { output }),
    ...(shape === undefined ? {} : { shape }),
    ...(shapes ? { shapes: worthTelling(shapes) } : {}),
  };
}

/** Those that have a name or a speed: there may be thousands of others. */
function worthTelling(shapes: readonly MeasuredShape[]): readonly MeasuredShape[] {
  return shapes.filter(({ by, chosen, tokensPerSecond }) =>
    by.length > 0 || chosen || tokensPerSecond !== undefined
  );
}

/** What several numbers of layers and widths came to, for machines. */
export function gridTold(
  { model, data, warnings, timedOn, cells, shapes }: ShrunkGrid,
  { metric, search }: Pick<ShrinkGridOptions, "metric" | "search">,
) {
  return {
    ...{ model, data, warnings, metric, ...search },
    cells: cells.map(({ parameters, goal, findings, width, cache }) => ({
      layers: goal?.layers ?? model.layers,
      parameters,
      ...(findings ? depthTold(findings) : {}),
      ...(width ? { width: widthTold(width) } : {}),
      ...(cache ? { cache } : {}),
    })),
    shapes: worthTelling(shapes),
    ...(timedOn === undefined ? {} : { timedOn }),
  };
}

function depthTold({ full, plan: found, others, evaluated, possible, cosines, byLayers }: DepthFindings) {
  const subset = ({ kept, values }: MeasuredSubset) => ({ kept, ...values });
  const plan = ({ by, rank, ...found }: DepthPlan) => ({ by, rank, ...subset(found) });
  return {
    ...plan(found),
    full: subset(full),
    others: others.map(plan),
    ...{ evaluated, possible, cosines },
    byLayers: byLayers.map(({ layers, kept }) => ({ layers, kept })),
  };
}

function widthTold({ cut, goal, full, values, threshold, calibrationTokens, parameters }: WidthFindings) {
  const { groups, channels } = cut;
  return {
    ...goal,
    ...values,
    full,
    parameters,
    ...(threshold === undefined ? {} : { threshold }),
    ...{ calibrationTokens, groups, channels },
  };
}

/** The result for people. */
export function textOf({ model, parameters, data, findings, cache, width }: Shrunk): string[] {
  const reused = cache?.reused ?? 0;
  return [
    ...(findings ? depthText(findings, model.parameters, parameters, width === undefined) : []),
    ...(findings && width ? [""] : []),
    ...(width ? widthText(width) : []),
    `Measured on ${measuredOn(data)}${reused > 0 ? `; ${reused} subsets had been measured before` : ""}.`,
  ];
}

function measuredOn({ questions, tokens, samples }: Shrunk["data"]): string {
  return questions === undefined ? `${count(tokens)} tokens of ${samples} samples` : `${questions} questions`;
}

/** What several numbers of layers and widths came to, for people. */
export function gridText({ data, shapes }: ShrunkGrid): string[] {
  const told = shapes.filter(({ by, chosen }) => chosen || by.includes("whole"))
    .sort((a, b) => b.parameters - a.parameters);
  const figures = [...new Set(told.flatMap(({ values }) => Object.keys(values)))];
  const isTimed = told.some(({ tokensPerSecond }) => tokensPerSecond !== undefined);
  const rows = told.map(({ by, layers, width, values, parameters, tokensPerSecond }) => [
    by[0] ?? "",
    layers.join(","),
    width === undefined ? "" : String(width),
    ...figures.map((figure) => shown(values[figure])),
    count(parameters),
    ...(isTimed ? [short(tokensPerSecond)] : []),
  ]);
  const head = ["", "kept", "width", ...figures, "parameters", ...(isTimed ? ["tokens/s"] : [])];
  return [...table(head, rows), "", `Measured on ${measuredOn(data)}.`];
}

/** @param isAll Whether the layers that stay are all that is left, so that their parameters are known */
function depthText(
  { full, plan, others, evaluated, possible }: DepthFindings,
  whole: number,
  left: number,
  isAll: boolean,
): string[] {
  const figures = Object.keys(plan.values);
  const cells = (name: string, { kept, values }: MeasuredSubset, size: string, rank: string) => [
    name,
    kept.join(","),
    ...figures.map((figure) => shown(values[figure])),
    size,
    rank,
  ];
  const ranked = (p: DepthPlan) => cells(p.by, p, isAll ? count(left) : "", `${p.rank} of ${evaluated}`);
  return [
    ...table(["", "kept", ...figures, "parameters", "place"], [
      cells("whole", full, count(whole), ""),
      ranked(plan),
      ...others.map(ranked),
    ]),
    "",
    `${
      bold(`Layers ${plan.kept.join(", ")}`)
    } are place ${plan.rank} of the ${evaluated} subsets of ${plan.kept.length} layers that were evaluated; ` +
    (evaluated < possible ? `there are ${possible}.` : "there are no others."),
  ];
}

function widthText({ goal, cut, full, values, parameters }: WidthFindings): string[] {
  const figures = Object.keys(values);
  const cells = (name: string, found: SubsetValues, size: number) => [
    name,
    ...figures.map((figure) => shown(found[figure])),
    count(size),
  ];
  const each = (byLayer: readonly (readonly number[])[]) => byLayer.map(({ length }) => length).join(", ");
  return [
    ...table(["", ...figures, "parameters"], [
      cells("whole", full, parameters.full),
      cells(`width ${goal.ratio}`, values, parameters.kept),
    ]),
    "",
    `${bold(`Groups of heads by layer: ${each(cut.groups)}`)}; channels: ${each(cut.channels)}.`,
  ];
}

function shown(value: number | null | undefined): string {
  return (value ?? null) === null ? "-" : value!.toFixed(4);
}
