/**
 * The picture of a model's shapes: what each loses against what it costs, with the frontier and, in grey, the shapes that others beat.
 *
 * @module
 */
import { frontier } from "../../base/frontier.ts";
import { count, number3, short } from "../../base/units.ts";
import { axesOf, HEIGHT, pixel, WIDTH } from "./axes.ts";
import { escape } from "./chart.ts";

/** A shape of a model as the picture shows it. */
export interface PicturedShape {
  /** Such as `layers 0, 1, 3, 5`. */
  readonly name: string;
  /** The figure; null where it is no finite number, which leaves the shape out. */
  readonly value: number | null;
  readonly parameters: number;
  /** Absent where it was not measured: such shapes are in the chart of parameters alone. */
  readonly tokensPerSecond?: number;
  /** Whether it is the one that was chosen. */
  readonly chosen?: boolean;
}

/** What shapes are compared by. */
export interface PicturedFigure {
  /** In words, such as `held-out loss`. */
  readonly name: string;
  readonly higherIsBetter?: boolean;
}

/** How a shape's cost is drawn. */
interface CostAxis {
  readonly name: string;
  /** Along the axis; undefined where it is not known. */
  readonly of: (shape: PicturedShape) => number | undefined;
  readonly higherIsBetter: boolean;
  readonly label: (value: number) => string;
}

const COSTS: readonly CostAxis[] = [
  { name: "parameters", of: ({ parameters }) => parameters, higherIsBetter: false, label: count },
  {
    name: "tokens a second",
    of: ({ tokensPerSecond }) => tokensPerSecond,
    higherIsBetter: true,
    label: short,
  },
];

/**
 * A `figure` with its heading for each cost that is known of two shapes at the least: against parameters, and against measured tokens a
 * second.
 */
export function frontierCharts(shapes: readonly PicturedShape[], figure: PicturedFigure): string[] {
  return COSTS.flatMap((cost) => {
    const points = shapes.flatMap((shape) => {
      const [x, y] = [cost.of(shape), shape.value];
      return x === undefined || y === null || !Number.isFinite(x) || !Number.isFinite(y)
        ? []
        : [{ shape, x, y }];
    });
    return points.length < 2 ? [] : [drawn(points, figure, cost)];
  });
}

interface Point {
  readonly shape: PicturedShape;
  readonly x: number;
  readonly y: number;
}

function drawn(points: readonly Point[], figure: PicturedFigure, cost: CostAxis): string {
  const lowerIsBetter = (value: number, higher = false) => (higher ? -value : value);
  const best = frontier(points, ({ x, y }) => [
    lowerIsBetter(x, cost.higherIsBetter),
    lowerIsBetter(y, figure.higherIsBetter),
  ]);
  const isBest = new Set(best);
  const { x, y, grid } = axesOf(points.map((point) => [point.x, point.y]), {
    label: cost.label,
    padded: true,
  });
  const place = (point: Point) => [pixel(x(point.x)), pixel(y(point.y))] as const;
  const circle = (point: Point, kind: string) => {
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
