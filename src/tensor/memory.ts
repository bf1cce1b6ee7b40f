/**
 * Packs the intermediates of a block into arenas by liveness. Pure arithmetic: no GPU is needed to know the bytes.
 *
 * @module
 */
import { DeviceError } from "../base/errors.ts";

/** A piece of memory needed from step `first` to step `last` of the schedule, both included. */
export interface Demand {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/** Where a demand lies. */
export interface Placement {
  readonly arena: number;
  readonly offset: number;
}

/** The result of packing: one placement for each demand, and the size of each arena. */
export interface Packing {
  readonly placements: readonly Placement[];
  readonly arenaBytes: readonly number[];
  /** The most bytes alive at once: no packing can do with less. */
  readonly lowerBound: number;
}

/** Every offset is a multiple of this, so that any placement can be bound. */
export const ALIGNMENT = 256;

/** Rounds up to {@linkcode ALIGNMENT}. */
export function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/**
 * Places demands at offsets such that no two that are alive at once overlap, one after another, each at the lowest offset that is
 * free during its whole life: largest first (greedy by size, as in Pisarchyk and Lee, arXiv 2001.03288), then, until one comes
 * within half a percent of the least possible, longest-lived first, what lives at the fullest moment first, and orders near these.
 * The smallest packing is kept.
 *
 * @param arenaLimit The most bytes one arena may hold
 * @throws {DeviceError} if a single demand is larger than an arena may be
 */
export function pack(demands: readonly Demand[], arenaLimit: number): Packing {
  const bySize = demands.map((_, i) => i).sort((a, b) =>
    demands[b]!.bytes - demands[a]!.bytes || demands[a]!.first - demands[b]!.first || a - b
  );
  const life = (i: number) => demands[i]!.last - demands[i]!.first;
  const byLife = demands.map((_, i) => i).sort((a, b) =>
    life(b) - life(a) || demands[b]!.bytes - demands[a]!.bytes || a - b
  );
  const total = (p: Omit<Packing, "lowerBound">) => p.arenaBytes.reduce((a, b) => a + b, 0);
  const lowerBound = mostAlive(demands);
  let best = packInOrder(demands, bySize, arenaLimit);
  const alive = fullestStep(demands);
  const isThere = (i: number) => Number(demands[i]!.first <= alive && alive <= demands[i]!.last);
  // What lives at the fullest moment is placed first: together it fills exactly the least possible.
  const byCrowd = [...byLife].sort((a, b) => isThere(b) - isThere(a));
  for (const order of [byLife, byCrowd, ...disturbed([byLife, byCrowd, bySize])]) {
    if (total(best) <= GOOD_ENOUGH * lowerBound) break;
    const candidate = packInOrder(demands, order, arenaLimit);
    if (total(candidate) < total(best)) best = candidate;
  }
  verifyPacking(demands, best.placements);
  return { ...best, lowerBound };
}

/** A packing this close to the least possible is taken without a further look. */
const GOOD_ENOUGH = 1.005;

/** Orders near the given ones, for small programs where both leave a gap: each element moves by chance, the same chance every time. */
function* disturbed(orders: readonly (readonly number[])[]): Generator<number[]> {
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  for (let attempt = 0; attempt < 60; attempt++) {
    const order = orders[attempt % orders.length]!;
    const reach = order.length * [0.02, 0.05, 0.15, 0.4][Math.floor(attempt / orders.length) % 4]!;
    const key = new Map(order.map((i, place) => [i, place + reach * random()]));
    yield [...order].sort((a, b) => key.get(a)! - key.get(b)! || a - b);
  }
}

function packInOrder(
  demands: readonly Demand[],
  order: readonly number[],
  limit: number,
): Omit<Packing, "lowerBound"> {
  const placements: Placement[] = new Array(demands.length);
  const arenas: { placed: number[]; bytes: number }[] = [];
  for (const index of order) {
    const demand = demands[index]!;
    const bytes = align(demand.bytes);
    if (bytes > limit) {
      throw new DeviceError(
        `one intermediate needs ${bytes} bytes; this device allows ${limit} in one buffer`,
        {
          hint: "lower tokensPerMicroBatch or headChunk",
        },
      );
    }
    for (let a = 0;; a++) {
      const arena = arenas[a] ??= { placed: [], bytes: 0 };
      const offset = lowestGap(demands, placements, arena.placed, demand, bytes);
      if (offset + bytes > limit) continue;
      placements[index] = { arena: a, offset };
      // Sorted by offset, so that the next search is one walk.
      const at = arena.placed.findIndex((i) => placements[i]!.offset > offset);
      arena.placed.splice(at < 0 ? arena.placed.length : at, 0, index);
      arena.bytes = Math.max(arena.bytes, offset + bytes);
      break;
    }
  }
  return { placements, arenaBytes: arenas.map((a) => a.bytes) };
}

function lowestGap(
  demands: readonly Demand[],
  placements: readonly Placement[],
  placed: readonly number[],
  demand: Demand,
  bytes: number,
): number {
  let offset = 0;
  for (const i of placed) {
    const other = demands[i]!;
    if (other.last < demand.first || other.first > demand.last) continue;
    const start = placements[i]!.offset;
    if (start >= offset + bytes) break;
    offset = Math.max(offset, start + align(other.bytes));
  }
  return offset;
}

/** The step at which the most bytes are alive. */
function fullestStep(demands: readonly Demand[]): number {
  const steps = [...new Set(demands.map((d) => d.first))];
  const bytesAt = (step: number) =>
    demands.reduce((sum, d) => (d.first <= step && step <= d.last ? sum + align(d.bytes) : sum), 0);
  return steps.reduce((a, b) => (bytesAt(b) > bytesAt(a) ? b : a), 0);
}

/** The most bytes alive at once, in whole units of {@linkcode ALIGNMENT}. */
export function mostAlive(demands: readonly Demand[]): number {
  const change = new Map<number, number>();
  for (const { bytes, first, last } of demands) {
    change.set(first, (change.get(first) ?? 0) + align(bytes));
    change.set(last + 1, (change.get(last + 1) ?? 0) - align(bytes));
  }
  let alive = 0;
  let most = 0;
  for (const [, delta] of [...change].sort((a, b) => a[0] - b[0])) most = Math.max(most, alive += delta);
  return most;
}

/**
 * wgpu accepts overlapping writable bindings without a word, so the planner proves for itself that there are none.
 *
 * @throws {DeviceError} if two demands that are alive at once lie on each other
 */
export function verifyPacking(demands: readonly Demand[], placements: readonly Placement[]): void {
  const order = demands.map((_, i) => i).sort((a, b) => demands[a]!.first - demands[b]!.first);
  let alive: number[] = [];
  for (const i of order) {
    const d = demands[i]!;
    const p = placements[i]!;
    alive = alive.filter((j) => demands[j]!.last >= d.first);
    for (const j of alive) {
      const q = placements[j]!;
      if (p.arena !== q.arena) continue;
      if (p.offset < q.offset + align(demands[j]!.bytes) && q.offset < p.offset + align(d.bytes)) {
        throw new DeviceError(
          `the memory planner placed two live intermediates (${j}, ${i}) on each other; this is a bug`,
        );
      }
    }
    alive.push(i);
  }
}
