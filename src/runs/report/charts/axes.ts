/**
 * The frame of a chart: where values lie in its box, and the marks along its axes.
 *
 * @module
 */
import { short } from "../../../base/units.ts";

/** Size of a chart, in units of its own. */
export const WIDTH = 720;
export const HEIGHT = 260;
const MARGIN = { left: 56, right: 12, top: 12, bottom: 28 };

/** Where values lie, and the grid with its numbers as SVG. */
export interface Axes {
  readonly x: (value: number) => number;
  readonly y: (value: number) => number;
  readonly grid: string;
}

/** How an axis along the bottom is drawn. */
export interface BottomAxis {
  /** A value as it is written; nothing where it has no mark. */
  readonly label: (value: number) => string | undefined;
  /** Whether marks keep off the edges. */
  readonly padded?: boolean;
}

/**
 * Axes that hold all points.
 *
 * @param points At least one
 */
export function axesOf(points: readonly (readonly [x: number, y: number])[], bottom: BottomAxis): Axes {
  const across = range(points.map((point) => point[0]));
  const [x0, x1] = bottom.padded ? padded(across) : across;
  const [y0, y1] = padded(range(points.map((point) => point[1])));
  const x = (value: number) =>
    MARGIN.left + (value - x0) / (x1 - x0 || 1) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value: number) =>
    HEIGHT - MARGIN.bottom - (value - y0) / (y1 - y0 || 1) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const marks = [
    ...ticks(y0, y1, 5).map((value) =>
      `<line class="grid" x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${pixel(y(value))}" y2="${
        pixel(y(value))
      }"/>` +
      `<text x="${MARGIN.left - 8}" y="${pixel(y(value) + 4)}" text-anchor="end">${short(value)}</text>`
    ),
    ...ticks(x0, x1, 8).flatMap((value) => {
      const label = bottom.label(value);
      return label === undefined
        ? []
        : [`<text x="${pixel(x(value))}" y="${HEIGHT - 8}" text-anchor="middle">${label}</text>`];
    }),
  ];
  return { x, y, grid: marks.join("") };
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

function padded([low, high]: readonly [number, number]): [number, number] {
  const room = high > low ? (high - low) * 0.05 : Math.abs(high) * 0.05 || 1;
  return [low - room, high + room];
}

/** A coordinate as it is written. */
export function pixel(value: number): string {
  return value.toFixed(1);
}
