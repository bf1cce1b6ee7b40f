/**
 * Whether the machine itself has the memory that a run takes on its GPU.
 *
 * @module
 */
import { memoryError, type RunMemory } from "../program/memory.ts";
import type { Recipe } from "../recipe/recipe.ts";

/**
 * Refuses a run whose buffers the machine cannot hold, where a CPU plays the GPU: its memory is the machine's own, and the system would
 * end some process, not necessarily this one. Does nothing where the system does not tell what is free.
 *
 * @throws {DeviceError} with the numbers and what can be turned
 */
export function checkHostMemory(memory: RunMemory, recipe: Recipe, recompute: boolean): void {
  let available: number;
  try {
    available = Deno.systemMemoryInfo().available;
  } catch {
    return;
  }
  if (available === 0 || memory.total <= available) return;
  throw memoryError(memory, { bytes: available, name: "the machine's free memory" }, recipe, recompute);
}
