/**
 * The kernels that make attention and its gradients, which of them a device can run, and the bytes that each moves.
 *
 * A workgroup makes a tile of rows (queries; keys where their gradients are made) of one head from the other side's rows, a block at a
 * time. Both sides' rows come from memory again for every block: nothing that workgroups must have holds a whole head of a tile. So bytes
 * fall with the rows of a tile and of a block, which workgroup memory and registers bound.
 *
 * @module
 */
import type { DeviceDescription } from "../../../gpu/description.ts";
import type { Variants } from "../../graph.ts";
import { sizeClass } from "../../variants.ts";

/** Attributes of `attentionOp`. */
export interface AttentionAttributes {
  /** Heads of queries. */
  readonly heads: number;
  /** Heads of keys and values; each serves `heads / keyValueHeads` heads of queries. */
  readonly keyValueHeads: number;
  /** Width of a head, at most 256. Multiples of 4 are fastest: others are made so on the way in, and `attentionOp` wants them. */
  readonly headDim: number;
  /** Factor of the scores, usually `headDim ** -0.5`. */
  readonly scale: number;
  /** Scores s become softCap * tanh(s / softCap) before the softmax (Gemma 2, arXiv 2408.00118); no cap when absent. */
  readonly softCap?: number | undefined;
  /** Whether neighbouring queries have ranges of keys that have nothing to do with each other, as where several sequences are written. */
  readonly apart?: boolean | undefined;
}

/** What the choice of a kernel for attention depends on. */
export interface AttentionShape {
  readonly queries: number;
  readonly keys: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  /** A multiple of 4. */
  readonly headDim: number;
  readonly capped: boolean;
}

/** A kernel for attention or one of its gradients. */
export type AttentionVariant =
  /**
   * Tiles in workgroup memory. Each thread makes 4 rows of `4 * block / threads` scores, and 4 rows of some of the columns. `parts`: workgroups that
   * share the columns of a head, each of which makes the scores anew. `apart`: each head of a group makes its own gradients of the keys and
   * values that the group shares, and they are summed afterwards: more bytes, but as many more workgroups.
   */
  | {
    readonly family: "tiled";
    readonly rows: number;
    readonly block: number;
    readonly threads: number;
    readonly parts: number;
    readonly apart?: true;
  }
  /** One subgroup of 8 lanes, each with `own` rows, over which it spreads the other side's `spread` at a time. */
  | { readonly family: "subgroup8"; readonly own: 1 | 4; readonly spread: 8 | 16 | 32 };

/** What is made: the output, the gradient of the queries, or those of keys and values. */
export type AttentionPart = "attention" | "attention dq" | "attention dk dv";

/** What the parts differ in. */
interface Part {
  /** Matrices that each row of a tile has in products over a head's width, and each of a block. */
  readonly own: number;
  readonly other: number;
  /** Sums over a block, each the size of the tile's rows. */
  readonly sums: number;
  /** Numbers that a row of a tile, or (`keyed`) of a block, is known by. */
  readonly words: number;
}

const PARTS: Readonly<Record<AttentionPart, Part>> = {
  "attention": { own: 1, other: 1, sums: 1, words: 2 },
  "attention dq": { own: 2, other: 2, sums: 1, words: 4 },
  "attention dk dv": { own: 2, other: 2, sums: 2, words: 4 },
};

/** Rows of queries that {@linkcode attentionVariants} "attention dk dv" may skip together. */
export const QUERY_BLOCK = 16;

/** What the kernels have in their workgroup's memory, and how much of a head's width they hold at a time. */
export interface TiledLayout {
  /** Threads side by side along a block, and vectors of four scores that each makes of a row. */
  readonly across: number;
  readonly vectors: number;
  /** Dimensions that a slice of both sides has: 16, or 8 where memory is short. */
  readonly slice: 8 | 16;
  /** Rows of a block whose columns lie in memory at once, for the sums. */
  readonly held: number;
  /** Vectors of four columns that a thread owns of each of its rows. */
  readonly columns: number;
  /** Vectors of four that slices, or columns of the rows held, take. */
  readonly values: number;
  /** Bytes of workgroup memory in all. */
  readonly bytes: number;
}

type Tiled = Extract<AttentionVariant, { family: "tiled" }>;

/** The workgroup memory that a layout goes by. WebGPU guarantees as much everywhere, and larger tiles take what they need. */
const SMALL_MEMORY = 16_384;

/** How a tiled kernel is laid out, or undefined where its parts do not fit each other. */
export function tiledLayout(
  part: AttentionPart,
  { rows, block, threads, parts }: Pick<Tiled, "rows" | "block" | "threads" | "parts">,
  headDim: number,
): TiledLayout | undefined {
  const across = threads / (rows / 4);
  const vectors = block / across / 4;
  if (![across, vectors].every(Number.isInteger) || vectors < 1 || vectors > 2) return undefined;
  // One thread a row tells the others its range.
  if (threads < Math.max(rows, block)) return undefined;
  const columns = Math.ceil(headDim / 4 / across / parts);
  if ((parts - 1) * columns * across >= headDim / 4) return undefined;
  const [own, other] = [rows / 4 + 1, block / 4 + 1];
  const held = Math.min(block, 256 / across);
  // Rows that are known; partial maxima, or the blocks of queries that each thread has found.
  const rest = part === "attention"
    ? 16 * threads + 8 * (rows + 1)
    : part === "attention dq"
    ? 16 * rows + 8
    : 16 * block + 8 * threads + 8;
  const layout = (slice: 8 | 16) => {
    const values = Math.max(slice * (own + other), held * across);
    return { across, vectors, slice, held, columns, values, bytes: 16 * (values + block * own) + rest };
  };
  const [wide, narrow] = [layout(16), layout(8)];
  return wide.bytes > SMALL_MEMORY && narrow.bytes <= SMALL_MEMORY ? narrow : wide;
}

/** Floats of the sums that a thread has in registers. */
function accumulators(part: AttentionPart, columns: number): number {
  return 16 * columns * PARTS[part].sums;
}

/** Beyond this, the sums of a thread leave no registers for the rest. */
const MOST_ACCUMULATORS = 128;

/** Bytes that gradients of the heads of a group apart may take: what a binding may have anywhere. */
const MOST_APART = 128 * 2 ** 20;

/** Whether heads share keys, and workgroups that make a whole group are too few to fill a device. */
function isGrouped(part: AttentionPart, shape: AttentionShape, { rows, threads, parts }: Tiled): boolean {
  const { keys, heads, keyValueHeads, headDim } = shape;
  return part === "attention dk dv" && heads > keyValueHeads && 4 * keys * heads * headDim <= MOST_APART &&
    Math.ceil(keys / rows) * keyValueHeads * parts * threads < THREADS_AT_WORK;
}

/** Threads of a large device that run at once: a hundred multiprocessors, each with 512. Registers may allow half of them. */
const THREADS_AT_WORK = 51_200;

function tiledCandidates(part: AttentionPart, shape: AttentionShape, device: DeviceDescription): Tiled[] {
  const found: Tiled[] = [];
  for (const threads of [64, 128, 256]) {
    if (threads > device.maxInvocations) continue;
    for (const rows of [32, 64, 128]) {
      for (const block of [32, 64]) {
        for (const parts of [1, 2, 4]) {
          const variant = { family: "tiled" as const, rows, block, threads, parts };
          const layout = tiledLayout(part, variant, shape.headDim);
          if (!layout || layout.bytes > Math.max(SMALL_MEMORY, device.maxWorkgroupMemory)) continue;
          const floats = accumulators(part, layout.columns);
          if (floats > MOST_ACCUMULATORS) continue;
          // Threads that own no column of so narrow a head would idle.
          if (layout.across > 8 && layout.across > shape.headDim / 4) continue;
          found.push(variant);
          if (isGrouped(part, shape, variant)) found.push({ ...variant, apart: true });
          // Half the columns, and registers for twice the threads at once, may win over making the scores once.
          if (floats <= MOST_ACCUMULATORS / 2) break;
        }
      }
    }
  }
  return found;
}

/** Keys (or queries) that are spread where nothing was measured: 32 take a fifth less time than 16, and twice as long to compile. */
function usualSpread({ queries, keys, heads, headDim }: AttentionShape): 16 | 32 {
  return queries * keys * heads * headDim > 1e8 ? 32 : 16;
}

function subgroupCandidates(part: AttentionPart, shape: AttentionShape): AttentionVariant[] {
  const usual = usualSpread(shape);
  const spreads = ([usual, 32, 16, 8] as const).filter((spread, i, all) =>
    all.indexOf(spread) === i && (part !== "attention dk dv" || spread % QUERY_BLOCK === 0)
  );
  const own = part === "attention" ? (shape.queries <= 8 ? [1, 4] as const : [4, 1] as const) : [4] as const;
  return own.flatMap((own) => spreads.map((spread) => ({ family: "subgroup8" as const, own, spread })));
}

/** Columns of a head of which a software device keeps a lane's rows in registers: more would take long to compile. */
export const WIDEST_HELD = 8;

/** Rows of a tile, and of a block. */
function tileOf(variant: AttentionVariant): { rows: number; block: number } {
  return variant.family === "tiled" ? variant : { rows: 8 * variant.own, block: variant.spread };
}

/** Blocks that all tiles of one head go through: causal attention over one sample is meant where queries and keys are as many. */
function blocksOfTiles(part: AttentionPart, shape: AttentionShape, variant: AttentionVariant): number {
  const { queries, keys } = shape;
  const { rows, block } = tileOf(variant);
  const causal = queries === keys;
  let blocks = 0;
  if (part === "attention dk dv") {
    const all = Math.ceil(queries / QUERY_BLOCK) * QUERY_BLOCK;
    for (let row = 0; row < keys; row += rows) {
      const first = causal ? Math.floor(row / QUERY_BLOCK) * QUERY_BLOCK : 0;
      blocks += Math.ceil((all - first) / block);
    }
  } else {
    for (let row = 0; row < queries; row += rows) {
      blocks += Math.ceil((causal ? Math.min(row + rows, queries) : keys) / block);
    }
  }
  return blocks;
}

/** Heads that have workgroups of their own, and whose results are as many. */
function headsOf(part: AttentionPart, { heads, keyValueHeads }: AttentionShape, variant: AttentionVariant) {
  return part !== "attention dk dv" || (variant.family === "tiled" && variant.apart) ? heads : keyValueHeads;
}

/**
 * Bytes that a variant's tiling moves: both sides' rows for every product of every block, the rows once more for every sum, what the rows are
 * known by, and the result.
 *
 * @param parts Workgroups that share the columns of a head
 */
export function attentionTraffic(
  part: AttentionPart,
  shape: AttentionShape,
  variant: AttentionVariant,
  parts: number,
): number {
  const { queries, keys, heads, headDim } = shape;
  const { own, other, sums, words } = PARTS[part];
  const { rows, block } = tileOf(variant);
  const keyed = part === "attention dk dv";
  const blocks = blocksOfTiles(part, shape, variant) * heads;
  // So narrow a head of a software device's own rows stays in registers, and what is spread serves the sums too.
  const held = variant.family === "subgroup8" && headDim <= WIDEST_HELD;
  const ownRows = held ? Math.ceil((keyed ? keys : queries) / rows) * heads * rows : blocks * rows;
  const products = parts * (own * ownRows + other * blocks * block) * headDim;
  const summed = held && part !== "attention" ? 0 : blocks * sums * block * headDim;
  const madeHeads = headsOf(part, shape, variant);
  const tiles = Math.ceil((keyed ? keys : queries) / rows) * madeHeads * parts;
  const known = keyed
    ? blocks * parts * words * block + tiles * 2 * Math.ceil(queries / QUERY_BLOCK)
    : words * queries * heads * parts;
  const results = keyed
    ? 2 * keys * madeHeads * headDim
    : queries * heads * headDim + (part === "attention" ? queries * heads : 0);
  return 4 * (products + summed + known + results);
}

/** Bytes that summing the gradients of a group's heads moves, where they are made apart. */
export function groupSumTraffic(shape: AttentionShape, variant: AttentionVariant): number {
  const { keys, heads, keyValueHeads, headDim } = shape;
  return variant.family === "tiled" && variant.apart ? 8 * keys * headDim * (heads + keyValueHeads) : 0;
}

/** Seconds by a model of hardware: the longest of arithmetic, workgroup memory and memory, where there are tiles enough to fill it. */
function tiledCost(part: AttentionPart, shape: AttentionShape, variant: Tiled): number {
  const layout = tiledLayout(part, variant, shape.headDim)!;
  const { own, sums } = PARTS[part];
  const { rows, block, threads, parts } = variant;
  const keyed = part === "attention dk dv";
  const blocks = blocksOfTiles(part, shape, variant) * shape.heads * parts;
  const pairs = blocks * rows * block;
  const wide = 4 * layout.columns * layout.across;
  const { vectors } = layout;
  // Multiply-adds, and the floats that they read from workgroup memory.
  const [products, summed] = [own * pairs * shape.headDim, sums * pairs * wide];
  const read = products * (1 + vectors) / (4 * vectors) + summed / 2;
  const arithmetic = (products + summed) / 10e12;
  const workgroup = 4 * read / 20e12;
  const memory = (attentionTraffic(part, shape, variant, parts) + groupSumTraffic(shape, variant)) / 2e12;
  const waits = blocks * (2 * Math.ceil(shape.headDim / layout.slice) * own + 3) * threads / 64 * 2e-10;
  const tiles = Math.ceil((keyed ? shape.keys : shape.queries) / rows) * headsOf(part, shape, variant) *
    parts;
  const filled = Math.min(1, tiles * threads / THREADS_AT_WORK);
  const crowded = accumulators(part, layout.columns) > MOST_ACCUMULATORS / 2 ? 1.3 : 1;
  const times = [arithmetic, workgroup, memory, waits];
  // They overlap, but not wholly.
  return crowded * (0.9 * Math.max(...times) + 0.1 * times.reduce((a, b) => a + b)) / filled;
}

/**
 * Seconds by a model of a processor that plays threads eight at a time: what it does are instructions, most of them to bring vectors to
 * and from workgroup memory, of which every lane's numbers are moved one by one. The numbers of nanoseconds are a fit to 52 timings of kernels on
 * Mesa's llvmpipe, which it is off by 4 % on average; docs/tuning.md says how.
 */
function processorCost(part: AttentionPart, shape: AttentionShape, variant: Tiled): number {
  const { slice, across, vectors, columns } = tiledLayout(part, variant, shape.headDim)!;
  const { own, sums } = PARTS[part];
  const { rows, block, threads, parts } = variant;
  const slices = own * Math.ceil(shape.headDim / slice);
  const pieces = Math.ceil((rows + block) * slice / 16 / threads);
  const scores = 4 * vectors;
  const perThread = 58 * slices * slice * (1 + vectors) + 330 * slices * pieces +
    82 * sums * columns * block +
    (294 + 72 * sums) * scores + (part === "attention" ? 4 * across : 0);
  return blocksOfTiles(part, shape, variant) * shape.heads * parts * threads / 8 * perThread * 1e-9;
}

/** Seconds by a model of a processor's 8 lanes. */
function subgroupCost(
  part: AttentionPart,
  shape: AttentionShape,
  variant: Extract<AttentionVariant, { family: "subgroup8" }>,
): number {
  const { own, other, sums } = PARTS[part];
  const blocks = blocksOfTiles(part, shape, variant) * shape.heads;
  const { spread } = variant;
  // Each vector of a head's width: the loads of both sides, and a broadcast with `own` multiply-adds for every row that is spread.
  const load = 8e-9;
  const turn = own * variant.own * load + other * spread / 8 * load +
    4 * spread * own * (0.6 + variant.own * 0.25) * 1e-9;
  const sum = sums *
    (spread / 8 * load + 4 * spread * (0.6 + variant.own * 0.25) * 1e-9 + 6 * variant.own * 1e-9);
  return blocks * (shape.headDim / 4 * (turn + sum) + spread * variant.own * 4e-9);
}

/** See {@linkcode Variants}; what is missing of it is a trial. */
export function attentionVariants(
  part: AttentionPart,
): Omit<Variants<AttentionShape, AttentionVariant>, "trial"> {
  const cost = (shape: AttentionShape, variant: AttentionVariant, device?: DeviceDescription) => {
    if (variant.family !== "tiled") return subgroupCost(part, shape, variant);
    return (device?.software ? processorCost : tiledCost)(part, shape, variant);
  };
  return {
    kind: part,
    shapeClass({ queries, keys, heads, keyValueHeads, headDim, capped }) {
      return `${sizeClass(queries)}x${sizeClass(keys)} ${heads}/${keyValueHeads}x${headDim}${
        capped ? " capped" : ""
      }`;
    },
    candidates(shape, device) {
      if (device.family === "subgroup8") return subgroupCandidates(part, shape);
      const found = tiledCandidates(part, shape, device).sort((a, b) => cost(shape, a) - cost(shape, b));
      // Making the scores of a head twice may pay where there are few tiles, but that is for a measurement to say.
      const fewest = Math.min(...found.map((v) => v.parts));
      const first = found.find((v) => v.parts === fewest)!;
      return [first, ...found.filter((v) => v !== first)];
    },
    name: (v) =>
      v.family === "tiled"
        ? `tiled ${v.rows}x${v.block} by ${v.threads}${v.parts > 1 ? ` in ${v.parts} parts` : ""}${
          v.apart ? ", heads apart" : ""
        }`
        : `subgroup8 ${8 * v.own}x${v.spread}`,
    cost,
    traffic: (shape, v) =>
      attentionTraffic(part, shape, v, v.family === "tiled" ? v.parts : 1) + groupSumTraffic(shape, v),
  };
}
