/**
 * Line charts as SVG text.
 *
 * @module
 */
import { short } from "../../base/units.ts";

/** A line of a chart. */
export interface Series {
  name: string;
  /** x and y; null where there is no value, which leaves a gap. */
  points: (readonly [x: number, y: number | null])[];
  /** Circles at the points. */
  marks?: boolean;
  dashed?: boolean;
}

const WIDTH = 720;
const HEIGHT = 260;
const MARGIN = { left: 56, right: 12, top: 12, bottom: 28 };
/** More points than this are thinned: there are no more pixels to show them. */
const MOST_POINTS = 720;
const COLOURS = 6;

/** A chart with its title and legend, as a `figure`. */
export function chart(title: string, series: readonly Series[]): string {
  const finite = series.flatMap((line) => line.points.filter((point) => point[1] !== null)) as [
    number,
    number,
  ][];
  if (finite.length === 0) return "";
  const [x0, x1] = range(finite.map((point) => point[0]));
  const [y0, y1] = padded(range(finite.map((point) => point[1])));
  const x = (value: number) =>
    MARGIN.left + (value - x0) / (x1 - x0 || 1) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value: number) =>
    HEIGHT - MARGIN.bottom - (value - y0) / (y1 - y0 || 1) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const parts = [
    ...ticks(y0, y1, 5).map((value) =>
      `<line class="grid" x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${pixel(y(value))}" y2="${
        pixel(y(value))
      }"/>` +
      `<text x="${MARGIN.left - 8}" y="${pixel(y(value) + 4)}" text-anchor="end">${short(value)}</text>`
    ),
    ...ticks(x0, x1, 8).filter(Number.isInteger).map((value) =>
      `<text x="${pixel(x(value))}" y="${HEIGHT - 8}" text-anchor="middle">${value}</text>`
    ),
    ...series.map((line, i) => drawn(line, i, x, y)),
  ];
  const legend = series.map((line, i) =>
    `<svg viewBox="0 0 18 8" style="width:18px;height:8px" aria-hidden="true"><line class="line c${
      i % COLOURS
    }${line.dashed ? " dashed" : ""}" x1="0" x2="18" y1="4" y2="4"/></svg> ${escape(line.name)}`
  ).join(" &nbsp; ");
  return `<h2>${escape(title)}</h2>
<figure><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escape(title)} by step">${
    parts.join("")
  }</svg>
<figcaption class="note">${legend} &nbsp; by step</figcaption></figure>`;
}

function drawn(
  line: Series,
  index: number,
  x: (value: number) => number,
  y: (value: number) => number,
): string {
  const stride = Math.ceil(line.points.length / MOST_POINTS);
  const kept = line.points.filter((_, i) => i % stride === 0 || i === line.points.length - 1);
  let path = "";
  let pen = "M";
  let circles = "";
  for (const [px, py] of kept) {
    if (py === null) {
      pen = "M";
      continue;
    }
    path += `${pen}${pixel(x(px))} ${pixel(y(py))}`;
    pen = "L";
    if (line.marks) {
      circles += `<circle class="c${index % COLOURS}" cx="${pixel(x(px))}" cy="${pixel(y(py))}" r="3.5"/>`;
    }
  }
  return `<path class="line c${index % COLOURS}${line.dashed ? " dashed" : ""}" d="${path}"/>${circles}`;
}

/** Round values in a range, at most `most` of them. */
function ticks(low: number, high: number, most: number): number[] {
  const rough = (high - low) / most;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough)!;
  const first = Math.ceil(low / step);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function range(values: readonly number[]): [number, number] {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [
    Infinity,
    -Infinity,
  ]);
}

function padded([low, high]: [number, number]): [number, number] {
  const room = high > low ? (high - low) * 0.05 : Math.abs(high) * 0.05 || 1;
  return [low - room, high + room];
}

function pixel(value: number): string {
  return value.toFixed(1);
}

/** Text as HTML, also inside a quoted attribute. */
export function escape(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character]);
}
