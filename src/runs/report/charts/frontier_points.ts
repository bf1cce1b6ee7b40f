/**
 * What shapes of a model lose against what they cost, and which of them no other beats: the data of every picture of them.
 *
 * @module
 */
import { frontier } from "../../../base/frontier.ts";
import { count, short } from "../../../base/units.ts";

/** A shape of a model as pictures show it. */
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

/** What a shape costs, and how that is drawn. */
export interface CostAxis {
  /** Its field of a shape. */
  readonly field: "parameters" | "tokensPerSecond";
  readonly name: string;
  readonly higherIsBetter: boolean;
  readonly label: (value: number) => string;
}

const COSTS: readonly CostAxis[] = [
  { field: "parameters", name: "parameters", higherIsBetter: false, label: count },
  { field: "tokensPerSecond", name: "tokens a second", higherIsBetter: true, label: short },
];

/** A shape in a picture. */
export interface FrontierPoint<S extends PicturedShape = PicturedShape> {
  readonly shape: S;
  /** What it costs. */
  readonly x: number;
  /** Its figure. */
  readonly y: number;
}

/** What shapes lose against one of their costs. */
export interface FrontierPoints<S extends PicturedShape = PicturedShape> {
  readonly cost: CostAxis;
  /** All that have both, in the order in which they came. */
  readonly points: readonly FrontierPoint<S>[];
  /** Those of them that no other beats, from the cheapest on. */
  readonly best: readonly FrontierPoint<S>[];
}

/** The pictures that there are: against each cost that is known of two shapes at the least. */
export function frontierPoints<S extends PicturedShape>(
  shapes: readonly S[],
  figure: PicturedFigure,
): FrontierPoints<S>[] {
  const lowerIsBetter = (value: number, higher = false) => (higher ? -value : value);
  return COSTS.flatMap((cost) => {
    const points = shapes.flatMap((shape) => {
      const [x, y] = [shape[cost.field], shape.value];
      return x === undefined || y === null || !Number.isFinite(x) || !Number.isFinite(y)
        ? []
        : [{ shape, x, y }];
    });
    if (points.length < 2) return [];
    const best = frontier(points, ({ x, y }) => [
      lowerIsBetter(x, cost.higherIsBetter),
      lowerIsBetter(y, figure.higherIsBetter),
    ]);
    return [{ cost, points, best }];
  });
}
