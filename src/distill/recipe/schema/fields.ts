/**
 * Kinds of values that sections of a recipe share.
 *
 * @module
 */
import { z } from "zod";
import { isObject } from "../../../base/json.ts";

export const path = z.string().min(1);
export const count = z.number().int().min(1);
export const countOrNone = z.number().int().min(0);
export const positive = z.number().gt(0);
export const share = z.number().min(0).lt(1);
export const seed = z.number().int().min(0).max(0xffff_ffff);
export const options = z.record(z.string(), z.unknown()).default({});

export const quantize = z.enum(["nf4", "nf4-double", "q8_0", "q4_0"]);
export const QUANTIZES =
  "Keeps the weights of linear layers but the head, and of experts, in 4 or 8 bits on the GPU, quantised while they are loaded, or as they " +
  "are where the file has them in blocks that kernels read; embedding, norms, biases and head stay. ";

/** Rules between fields are checked where those fields are numbers, whatever else is wrong, so that one reading finds all. */
export function haveNumbers(value: unknown, ...names: string[]): boolean {
  return isObject(value) && names.every((name) => Number.isFinite(value[name]));
}
