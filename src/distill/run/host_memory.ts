/**
 * Whether the machine itself has the memory that a run takes on its GPU.
 *
 * @module
 */
import { system } from "../../base/system.ts";
import { memoryError, type RunMemory } from "../program/memory.ts";
import type { Recipe } from "../recipe/recipe.ts";

/** Bytes that the machine has free; undefined where the system does not tell. */
export function hostMemory(): number | undefined {
  try {
    return system.systemMemoryInfo().available || undefined;
  } catch {
    return undefined;
  }
}

/**
 * Refuses a run whose buffers the machine cannot hold, where a CPU plays the GPU: its memory is the machine's own, and the system would
 * end some process, not necessarily this one. Does nothing where the system does not tell what is free.
 *
 * @throws {DeviceError} with the numbers and what can be turned
 */
export function checkHostMemory(memory: RunMemory, recipe: Recipe, recompute: boolean): void {
  const available = hostMemory();
  if (available === undefined || memory.total <= available) return;
  throw memoryError(memory, { bytes: available, name: "the machine's free memory" }, recipe, recompute);
}
