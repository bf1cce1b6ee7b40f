/**
 * Kernels of matrix products for hardware GPUs: which tiles there are, which to take where nothing was measured, and what they should cost.
 *
 * @module
 */
import type { DeviceDescription } from "../../../gpu/description.ts";
import { sizeClass } from "../../variants.ts";
import {
  bytesOfValue,
  FEW_ROWS_COLUMNS,
  type MatmulShape,
  type MatmulVariant,
  MATRIX_TILE,
  partsOf,
  type SubgroupMatrixVariant,
  type TiledVariant,
  tileOf,
  traffic,
} from "./shapes.ts";

/** Rows and columns of a tile, and of a thread. */
type Tile = readonly [rows: number, columns: number, rowsEach: 4 | 8, columnsEach: 4 | 8];

const TILES: readonly Tile[] = [
  [128, 128, 8, 8],
  [128, 64, 8, 8],
  [64, 128, 8, 8],
  [128, 64, 8, 4],
  [64, 128, 4, 8],
  [64, 64, 8, 8],
  [64, 64, 8, 4],
  [64, 64, 4, 4],
  [32, 64, 4, 4],
  [32, 32, 4, 4],
  [64, 16, 4, 4],
  [16, 64, 4, 4],
];

/** Workgroups that fill a large device: fewer leave parts of it idle, so a larger tile must still give as many. */
const FILLING = 128;

/** The least depth that is worth a workgroup of its own. */
const LEAST_PART = 512;

/** Bytes that the outputs of parts may take together. */
const MOST_OF_PARTS = 32 * 2 ** 20;

/** The longest sum that is made in one go where nothing limits it: longer ones are made of blocks, for precision. */
export const LONGEST_SUM = 1024;

/** So few rows are made by the kernel for them. */
const FEW_ROWS = 8;

/** All that fit the device, the one to take where nothing was measured first. */
export function hardwareProducts(shape: MatmulShape, device: DeviceDescription): MatmulVariant[] {
  const first = parted(shape, firstTile(shape, device), device);
  // Software devices have kernels of their own for all but odd sizes, and take seconds to compile one of these.
  if (device.family !== "tiled") return [{ ...first, parts: 1 }];
  const tiles = [
    ...TILES.flatMap((tile) => slices(shape, tile, device)),
    ...shape.compute ? [] : subgroupTiles(device),
  ];
  const all = [first, ...tiles.flatMap((v) => [parted(shape, v, device), v])];
  const keys = all.map((v) => tiledName(v));
  return [
    ...fewRows(shape, device),
    ...all.filter((_, i) => keys.indexOf(keys[i]!) === i),
    ...matrixUnits(shape, device),
  ];
}

/** The device's units for small matrices, of those whose factors are what the product wants and whose sizes divide a tile. */
function matrixUnits(shape: MatmulShape, device: DeviceDescription): SubgroupMatrixVariant[] {
  const { subgroupSize: lanes, subgroupMatrices = [], maxInvocations } = device;
  const [rows, columns, depth] = [shape.m, shape.n, shape.k].map(sizeClass) as [number, number, number];
  const component = shape.compute ?? "f32";
  // A unit's sums are not made of blocks, so no part is deeper than what is exact enough.
  const parts = Math.ceil(depth / LONGEST_SUM);
  const bytes = Math.min(MOST_OF_PARTS, device.maxBindingSize);
  if (lanes < 8 || 4 * lanes > maxInvocations) return [];
  if (parts > 1 && 4 * rows * columns * parts > bytes) return [];
  return subgroupMatrices.flatMap(({ m, n, k, componentType, resultComponentType }) =>
    componentType === component && resultComponentType === "f32" &&
      32 % m === 0 && 32 % n === 0 && 16 % k === 0
      ? [{ family: "subgroup-matrix" as const, m, n, k, component, lanes, parts }]
      : []
  );
}

export function matrixName({ m, n, k, component, lanes, parts }: SubgroupMatrixVariant): string {
  return `subgroup matrix ${m}x${n}x${k} ${component}, ${lanes} lanes${
    parts > 1 ? `, in ${parts} parts` : ""
  }`;
}

function fewRows({ orientation, m, compute }: MatmulShape, device: DeviceDescription): MatmulVariant[] {
  if (orientation !== "NT" || m > FEW_ROWS || compute) return [];
  // Four sums of each thread, for each row, fit what WebGPU guarantees of workgroup memory.
  return [[64, 8], [32, 16], [32, 8], [16, 16]].flatMap(([lanes, columns]) =>
    lanes! * columns! / FEW_ROWS_COLUMNS <= device.maxInvocations
      ? [{ family: "few-rows" as const, lanes: lanes!, columns: columns! }]
      : []
  );
}

/** Large tiles where there are enough of them, narrow ones where the output is long and narrow. */
function firstTile(shape: MatmulShape, device: DeviceDescription): TiledVariant {
  const [m, n] = [sizeClass(shape.m), sizeClass(shape.n)];
  const enough = ([rows, columns]: Tile, least: number) =>
    Math.ceil(m / rows) * Math.ceil(n / columns) >= least;
  const wanted: Tile[] = device.family !== "tiled" ? [] : [
    ...n <= 16 && m >= 256 ? [[64, 16, 4, 4] as const] : [],
    ...m <= 16 && n >= 256 ? [[16, 64, 4, 4] as const] : [],
    ...([[128, 64, 8, 4]] as const).filter((tile) => enough(tile, 4 * FILLING)),
    ...([[64, 64, 8, 4]] as const).filter((tile) => enough(tile, FILLING)),
  ];
  // 32 x 32 fits the least that WebGPU allows.
  return [...wanted, [32, 32, 4, 4] as const].flatMap((tile) => slices(shape, tile, device))[0]!;
}

/** A tile with slices as deep as fit twice, and once. */
function slices(
  { compute }: MatmulShape,
  [rows, columns, rowsEach, columnsEach]: Tile,
  device: DeviceDescription,
): TiledVariant[] {
  const bytes = compute ? 2 : 4;
  const threads = rows / rowsEach * (columns / columnsEach);
  if (threads > device.maxInvocations) return [];
  return ([2, 1] as const).flatMap((panels) => {
    const depth = ([16, 8] as const).find((depth) =>
      panels * (rows + columns) * depth * bytes <= device.maxWorkgroupMemory &&
      rows * depth / 4 % threads === 0 && columns * depth / 4 % threads === 0
    );
    const tile = { rows, columns, rowsEach, columnsEach, panels, lanes: 0, parts: 1 };
    return depth ? [{ family: "tiled" as const, ...tile, depth }] : [];
  });
}

/** Tiles that need no panel of x: each subgroup makes eight rows. */
function subgroupTiles(device: DeviceDescription): TiledVariant[] {
  const { subgroupSize: lanes, maxInvocations, maxWorkgroupMemory } = device;
  if (lanes < 8 || lanes > 64) return [];
  const depth = lanes > 16 ? 16 : 8;
  return [4, 8].flatMap((subgroups) => {
    const [rows, columns] = [8 * subgroups, 4 * lanes];
    const panels = ([2, 1] as const).find((panels) => panels * columns * depth * 4 <= maxWorkgroupMemory);
    if (!panels || subgroups * lanes > maxInvocations) return [];
    if (columns * depth / 4 % (subgroups * lanes) !== 0) return [];
    const tile = { rows, columns, rowsEach: 8, columnsEach: 4, depth, panels, lanes, parts: 1 } as const;
    return [{ family: "tiled" as const, ...tile }];
  });
}

/** With K split, where its tiles alone do not fill the device: in as many parts for all shapes of a class. */
function parted(shape: MatmulShape, v: TiledVariant, device: DeviceDescription): TiledVariant {
  const [m, n, k] = [shape.m, shape.n, shape.k].map(sizeClass) as [number, number, number];
  const tiles = Math.ceil(m / v.rows) * Math.ceil(n / v.columns);
  const bytes = Math.min(MOST_OF_PARTS, device.maxBindingSize);
  const most = Math.min(Math.floor(k / LEAST_PART), Math.floor(bytes / (4 * m * n)));
  return { ...v, parts: Math.max(1, Math.min(most, Math.ceil(FILLING / tiles))) };
}

export function tiledName(v: TiledVariant): string {
  const tile = `${v.rows}x${v.columns} by ${v.depth}, ${v.rowsEach}x${v.columnsEach} each`;
  return `${v.lanes > 0 ? `subgroups of ${v.lanes}` : "tiled"} ${tile}` +
    `${v.panels === 1 ? ", one panel" : ""}${v.parts > 1 ? `, in ${v.parts} parts` : ""}`;
}

/** A device in the middle of the field; only the order that comes of it counts. */
const NOMINAL = {
  cores: 64,
  multiplyAddsPerCycle: 128, // of a core
  unitsPerCycle: 512, // the same, by units for small matrices
  floatsPerCycle: 32, // from workgroup memory to a core
  cyclesPerSecond: 1.5e9,
  threads: 1024, // of a core at a time
  workgroupMemory: 65_536, // of a core
  bytesPerSecond: 500e9,
  cachedBytesPerSecond: 2e12,
  secondsPerDispatch: 4e-6,
};

/** Threads a core needs to hide what it waits for. */
const HIDING = 384;

/**
 * Seconds on that device: the slower of arithmetic, in rounds of workgroups over its cores, and of memory. A thread that makes R x C values
 * reads R + C for R C products from workgroup memory; rows are read by many threads at once, so they count half.
 */
export function hardwareCost(shape: MatmulShape, v: MatmulVariant): number {
  const { m, n, k, k2, weight } = shape;
  const once = 4 * (m * (k + k2) + n * k2 + m * n) + n * k * bytesOfValue(weight);
  const memory = once / NOMINAL.bytesPerSecond + traffic(shape, v) / NOMINAL.cachedBytesPerSecond;
  const [rows, columns] = tileOf(v, m);
  const tiles = Math.ceil(m / rows) * Math.ceil(n / columns);
  const dispatches = partsOf(v) > 1 ? 2 : 1;
  if (v.family === "subgroup-matrix") {
    const rounds = Math.ceil(tiles * v.parts / NOMINAL.cores);
    const cycles = rounds * MATRIX_TILE ** 2 * (k / v.parts + k2) / NOMINAL.unitsPerCycle;
    return Math.max(cycles / NOMINAL.cyclesPerSecond, memory) + dispatches * NOMINAL.secondsPerDispatch;
  }
  if (v.family !== "tiled") {
    const threads = v.family === "few-rows" ? tiles * v.lanes * v.columns / FEW_ROWS_COLUMNS : tiles * 8;
    return memory * Math.max(1, NOMINAL.cores * HIDING / threads) + NOMINAL.secondsPerDispatch;
  }
  const threads = v.rows / v.rowsEach * (v.columns / v.columnsEach);
  const bytes = 4 * v.panels * v.depth * (v.columns + (v.lanes ? 0 : v.rows));
  // Registers: the sums, what is on its way, and what is being multiplied.
  const registers = v.rowsEach * v.columnsEach * 1.5 + 40;
  const resident = Math.max(
    1,
    Math.min(
      Math.floor(NOMINAL.threads / threads),
      Math.floor(NOMINAL.workgroupMemory / bytes),
      Math.floor(65_536 / registers / threads),
    ),
  );
  const rounds = Math.ceil(tiles * v.parts / NOMINAL.cores);
  const busy = Math.min(1, Math.min(resident, rounds) * threads / HIDING) * (v.panels === 1 ? 0.85 : 1);
  const x = v.lanes ? 1 : 0.5; // of a spread value, an instruction; of a unit that is read, a share
  const perProduct = Math.max(
    1 / NOMINAL.multiplyAddsPerCycle,
    (1 / v.rowsEach + x / v.columnsEach) / NOMINAL.floatsPerCycle,
  );
  const cycles = rounds * v.rows * v.columns * (k / v.parts + k2) * perProduct / busy;
  return Math.max(cycles / NOMINAL.cyclesPerSecond, memory) + dispatches * NOMINAL.secondsPerDispatch;
}
