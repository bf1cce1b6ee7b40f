/**
 * The picture of a model's shapes: what each loses against what it costs, with the frontier and, in grey, the shapes that others beat.
 *
 * @module
 */
import { number3 } from "../../../base/units.ts";
import { axesOf, HEIGHT, pixel, WIDTH } from "./axes.ts";
import { escape } from "./chart.ts";
import {
  type FrontierPoint,
  type FrontierPoints,
  frontierPoints,
  type PicturedFigure,
  type PicturedShape,
} from "./frontier_points.ts";

/**
 * A `figure` with its heading for each cost that is known of two shapes at the least: against parameters, and against measured tokens a
 * second.
 */
export function frontierCharts(shapes: readonly PicturedShape[], figure: PicturedFigure): string[] {
  return frontierPoints(shapes, figure).map((points) => drawn(points, figure));
}

function drawn({ points, best, cost }: FrontierPoints, figure: PicturedFigure): string {
  const isBest = new Set(best);
  const { x, y, grid } = axesOf(points.map((point) => [point.x, point.y]), {
    label: cost.label,
    padded: true,
  });
  const place = (point: FrontierPoint) => [pixel(x(point.x)), pixel(y(point.y))] as const;
  const circle = (point: FrontierPoint, kind: string) => {
    const [cx, cy] = place(point);
    const told = `${point.shape.name}: ${number3(point.y)}, ${cost.label(point.x)} ${cost.name}`;
    return `<circle class="${kind}${
      point.shape.chosen ? " chosen" : ""
    }" cx="${cx}" cy="${cy}" r="3.5"><title>${escape(told)}</title></circle>`;
  };
  // Thousands of subsets may lie on one spot.
  const beaten = new Map(points.flatMap((point) => isBest.has(point) ? [] : [[String(place(point)), point]]));
  for (const point of points) if (point.shape.chosen) beaten.delete(String(place(point)));
  const chosen = points.filter((point) => point.shape.chosen && !isBest.has(point));
  const path = best.map((point, i) => `${i === 0 ? "M" : "L"}${place(point).join(" ")}`).join("");
  const title = `${capital(figure.name)} against ${cost.name}`;
  return `<h2>${escape(title)}</h2>
<figure><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escape(title)}">${grid}${
    [...beaten.values()].map((point) => circle(point, "dominated")).join("")
  }<path class="line c0" d="${path}"/>${best.map((point) => circle(point, "c0")).join("")}${
    chosen.map((point) => circle(point, "c0")).join("")
  }</svg>
<figcaption class="note">${key("c0")} on the frontier &nbsp; ${key("dominated")} beaten by another${
    points.some(({ shape }) => shape.chosen) ? ` &nbsp; ${key("c0 chosen")} chosen` : ""
  } &nbsp; ${points.length} shapes</figcaption></figure>`;
}

function key(kind: string): string {
  return `<svg viewBox="0 0 10 10" style="width:10px;height:10px" aria-hidden="true"><circle class="${kind}" cx="5" cy="5" r="3.5"/></svg>`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
