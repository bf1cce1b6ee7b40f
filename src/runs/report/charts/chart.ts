/**
 * Line charts as SVG text.
 *
 * @module
 */
import { axesOf, HEIGHT, pixel, WIDTH } from "./axes.ts";

/** A line of a chart. */
export interface Series {
  name: string;
  /** x and y; null where there is no value, which leaves a gap. */
  points: (readonly [x: number, y: number | null])[];
  /** Circles at the points. */
  marks?: boolean;
  dashed?: boolean;
}

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
  const { x, y, grid } = axesOf(finite, {
    label: (value) => (Number.isInteger(value) ? String(value) : undefined),
  });
  const lines = series.map((line, i) => drawn(line, i, x, y)).join("");
  const legend = series.map((line, i) =>
    `<svg viewBox="0 0 18 8" style="width:18px;height:8px" aria-hidden="true"><line class="line c${
      i % COLOURS
    }${line.dashed ? " dashed" : ""}" x1="0" x2="18" y1="4" y2="4"/></svg> ${escape(line.name)}`
  ).join(" &nbsp; ");
  return `<h2>${escape(title)}</h2>
<figure><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${
    escape(title)
  } by step">${grid}${lines}</svg>
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
