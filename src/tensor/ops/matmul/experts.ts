/**
 * The kernels of products of rows with the weights of their experts: those of matrix products whose tiles hold no more rows than have an
 * expert in common for certain.
 *
 * @module
 */
import type { DeviceDescription } from "../../../gpu/description.ts";
import type { DType, Variants } from "../../graph.ts";
import { sizeClass } from "../../variants.ts";
import { type MatmulShape, type MatmulVariant, type TiledVariant } from "./shapes.ts";
import { matmulVariants, SHORT_DEPTH, WHOLE_DEPTH } from "./variants.ts";

/** Rows that have one expert in common; stands in the kernels too. */
export const EXPERT_TILE = 32;

/** What the choice of a kernel for experts depends on. */
export interface ExpertShape {
  readonly orientation: "NT" | "NN";
  readonly experts: number;
  /** About how many rows are used, of all experts. */
  readonly pairs: number;
  /** Sizes of one expert's product. */
  readonly n: number;
  readonly k: number;
  readonly weight: DType;
}

/** See {@linkcode Variants}; what is missing of it is a trial. */
export const expertVariants: Omit<Variants<ExpertShape, MatmulVariant>, "trial"> = {
  kind: "experts",
  shapeClass({ orientation, experts, pairs, n, k, weight }) {
    const [rows, columns, depth] = [Math.ceil(pairs / experts), n, k].map(sizeClass);
    return `${orientation} ${experts} of ${rows}x${columns}x${depth} ${weight}`;
  },
  candidates(shape, device) {
    const { n, k } = shape;
    const software = device.family === "subgroup8" && k % 4 === 0 && n % 4 === 0 ? subgroup8(shape) : [];
    return [...software, ...tiles(device)];
  },
  name: matmulVariants.name,
  cost: (shape, v, device) => matmulVariants.cost(asProduct(shape), v, device),
  traffic: (shape, v) => matmulVariants.traffic(asProduct(shape), v),
};

/** All rows with one weight: what differs between variants is the same. */
function asProduct({ orientation, pairs, n, k, weight }: ExpertShape): MatmulShape {
  return { orientation, m: pairs, n, k, k2: 0, weight };
}

function subgroup8({ experts, pairs, n, k }: ExpertShape): MatmulVariant[] {
  const depth = k > WHOLE_DEPTH ? SHORT_DEPTH : Infinity;
  const variant = (rows: 8 | 16 | 32, columns: 1 | 4) =>
    ({ family: "subgroup8", rows, columns, depth }) as const;
  const first = variant(pairs / experts > 8 ? 16 : 8, n > 16 ? 4 : 1);
  const others = ([32, 16, 8] as const).flatMap((rows) =>
    ([4, 1] as const).map((columns) => variant(rows, columns))
  );
  return [first, ...others.filter((v) => v.rows !== first.rows || v.columns !== first.columns)];
}

/** Tiles of as many rows; on software adapters, which have better, the first of them. */
function tiles({ family, maxInvocations }: DeviceDescription): TiledVariant[] {
  const tile = (columns: number, panels: 1 | 2): TiledVariant => ({
    ...{ family: "tiled", rows: EXPERT_TILE, columns, rowsEach: 4, columnsEach: 4 },
    ...{ depth: 16, panels, lanes: 0, parts: 1 },
  });
  const all = [tile(32, 2), tile(32, 1), tile(64, 2), tile(64, 1)];
  return family === "tiled" ? all.filter(({ columns }) => 2 * columns <= maxInvocations) : [all[0]!];
}
