/**
 * Dropping changes at random, and what makes up for those that are gone.
 *
 * @module
 */
import { z } from "zod";

/** Options of merges that drop at random. */
export const rescale = z.boolean().default(true).describe("Make up for what is dropped");

/** What dropping leaves unchanged on the whole. */
export type Rescaling = "none" | "expectation" | "l1";

/** Keeps each entry with probability `density`. Yu et al., DARE, arXiv 2311.03099: what stays is divided by it. */
export function dropAtRandom(
  values: Float32Array,
  uniform: Float32Array,
  density: number,
  rescaling: Rescaling,
): void {
  if (density >= 1) return;
  const before = rescaling === "l1" ? absoluteSum(values) : 0;
  const factor = rescaling === "expectation" && density > 0 ? 1 / density : 1;
  keepBelow(values, uniform, density);
  if (factor !== 1) { for (let i = 0; i < values.length; i++) values[i]! *= factor; }
  if (rescaling === "l1") restoreAbsoluteSum(values, before);
}

/**
 * Sets entries to 0 whose number is not below `density`. Numbers in [0, 1) are ordered as their bits are, and half of the branches on
 * random numbers would be mispredicted.
 */
function keepBelow(values: Float32Array, uniform: Float32Array, density: number): void {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length);
  const drawn = new Int32Array(uniform.buffer, uniform.byteOffset, uniform.length);
  const limit = bitsNotBelow(density);
  for (let i = 0; i < bits.length; i++) bits[i]! &= (drawn[i]! - limit) >> 31;
}

/** The bits of the smallest f32 from 0 on that is not below x. */
function bitsNotBelow(x: number): number {
  const nearest = Math.fround(x);
  const bits = new Int32Array(Float32Array.of(nearest).buffer)[0]!;
  return nearest < x ? bits + 1 : bits;
}

/** Scales what is left so that its absolute values add up to `before` again. */
export function restoreAbsoluteSum(values: Float32Array, before: number): void {
  const after = absoluteSum(values);
  if (!(after > 1e-7)) return;
  const factor = before / after;
  for (let i = 0; i < values.length; i++) values[i]! *= factor;
}

/** sum |x|, in f64. */
export function absoluteSum(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.abs(values[i]!);
  return sum;
}
