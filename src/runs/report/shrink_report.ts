/**
 * The page of a shrink: what each shape of a model loses against what it costs.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename } from "@std/path";
import { count, number3, short } from "../../base/units.ts";
import type { DepthMetric } from "../../shape/depth/metrics.ts";
import type { MeasuredShape } from "../../shape/shapes.ts";
import type { Shrunk } from "../../shape/shrunk.ts";
import { escape } from "./charts/chart.ts";
import { frontierCharts } from "./charts/frontier_chart.ts";
import { htmlPage } from "./html_page.ts";
import { searchedShapes } from "./run_shapes.ts";

/** What the page shows. */
export interface ShrinkReport extends Pick<Shrunk, "model" | "data" | "timedOn"> {
  readonly metric: DepthMetric;
  readonly shapes: readonly MeasuredShape[];
}

/** The page as HTML. Names that someone else chose are escaped. */
export function shrinkReportHtml({ model, data, metric, shapes, timedOn }: ShrinkReport): string {
  const files = data.files.map((file) => basename(file)).join(", ");
  const amount = data.questions === undefined
    ? `${count(data.tokens)} supervised tokens of ${data.samples} samples`
    : `${data.questions} questions`;
  return htmlPage(`Shapes of ${basename(model.path)}`, [
    `<p class="note">${
      escape(
        `${model.layers} layers, ${count(model.parameters)} parameters; ${
          count(shapes.length)
        } shapes measured on ${amount} of ${files}.`,
      )
    }</p>`,
    ...shrinkPicture({ metric, shapes, ...(timedOn === undefined ? {} : { timedOn }) }),
  ]);
}

/** The charts of the frontier, and a table of what is worth telling. */
export function shrinkPicture(
  { metric, shapes, timedOn }: Pick<ShrinkReport, "metric" | "shapes" | "timedOn">,
): string[] {
  const { figure, shapes: pictured } = searchedShapes(shapes, metric);
  const value = new Map(shapes.map((shape, i) => [shape, pictured[i]!.value ?? 0]));
  const shown = shapes.filter(({ by, chosen, tokensPerSecond }) =>
    by.length > 0 || chosen || tokensPerSecond !== undefined
  ).sort((a, b) => b.parameters - a.parameters || value.get(a)! - value.get(b)!);
  return [
    ...frontierCharts(pictured, figure),
    "<h2>Shapes</h2>",
    shapeTable(shown),
    `<p class="note">${escape(notes(shapes, shown, timedOn).join(" "))}</p>`,
  ];
}

function shapeTable(shapes: readonly MeasuredShape[]): string {
  const has = (is: (shape: MeasuredShape) => unknown) => shapes.some((shape) => is(shape) !== undefined);
  const columns: [string, (shape: MeasuredShape) => string][] = [
    ["layers kept", ({ layers }) => layers.join(", ")],
    ...(has(({ width }) => width)
      ? [["width", ({ width }) => String(width ?? 1)] as [string, (s: MeasuredShape) => string]]
      : []),
    ...([["loss", "loss"], ["KL", "kl"], ["accuracy", "accuracy"]] as const)
      .filter(([, figure]) => has(({ values }) => values[figure]))
      .map(([title, figure]): [string, (shape: MeasuredShape) => string] => [
        title,
        ({ values }) => number3(values[figure]),
      ]),
    [
      "parameters",
      ({ parameters, stored }) =>
        count(parameters) + (stored === undefined ? "" : ` (${count(stored)} in a folder)`),
    ],
    [
      "tokens a second",
      ({ tokensPerSecond }) => tokensPerSecond === undefined ? "not measured" : short(tokensPerSecond),
    ],
    ["place", ({ rank }) => (rank === undefined ? "" : String(rank))],
    ["found by", ({ by, chosen }) => [...by, ...(chosen ? ["chosen"] : [])].join(", ")],
  ];
  const cells = (shape: MeasuredShape) =>
    columns.map(([, of]) => {
      const text = escape(of(shape));
      return `<td>${shape.chosen ? `<strong>${text}</strong>` : text}</td>`;
    }).join("");
  return `<table><thead><tr>${columns.map(([title]) => `<th>${title}</th>`).join("")}</tr></thead>
<tbody>${shapes.map((shape) => `<tr>${cells(shape)}</tr>`).join("\n")}</tbody></table>`;
}

function notes(
  shapes: readonly MeasuredShape[],
  shown: readonly MeasuredShape[],
  timedOn?: string,
): string[] {
  const timed = shapes.filter(({ tokensPerSecond }) => tokensPerSecond !== undefined).length;
  const left = shapes.length - shown.length;
  return [
    "Nothing was trained. KL is to the whole model. Places are among the measured shapes of as many layers and the whole width.",
    ...(timed === 0 ? [] : [
      `Tokens a second: the forward pass with the head over one full batch${
        timedOn === undefined ? "" : ` on ${timedOn}`
      }, the median of several turns of at least a tenth of a second each, after some to warm up. ${
        timed < shapes.length
          ? `Measured of ${timed} shapes, those on the frontier of loss and parameters or near it, those with a name and those cut in width; not of the other ${
            shapes.length - timed
          }.`
          : "Measured of all shapes."
      }`,
    ]),
    ...(left === 0 ? [] : [`${left} more ${left === 1 ? "shape is" : "shapes are"} in the charts alone.`]),
  ];
}
