/**
 * Which shapes an optimiser step trains: the whole model, some at random, the smallest (the sandwich rule).
 *
 * @module
 */
import { philox4x32, splitSeed } from "../../../base/random.ts";
import {
  allShapes,
  fullShape,
  type ShapeSpace,
  smallestShape,
  type StudentShape,
} from "../../inputs/shape_space.ts";

/** Shapes that a step trains: no more than there are. */
export function sandwichSize(space: ShapeSpace, random: number): number {
  return 2 + Math.min(random, allShapes(space).length - 2);
}

/**
 * The shapes of a step, in the order in which they are run. Those at random are different ones, each as likely as any other; they are a pure
 * function of the seed and the step.
 *
 * @param random How many are chosen at random
 * @param step Steps done before
 */
export function sandwich(space: ShapeSpace, random: number, seed: number, step: number): StudentShape[] {
  const [full, smallest] = [fullShape(space), smallestShape(space)];
  const left = allShapes(space).filter((s) => !isSame(s, full) && !isSame(s, smallest));
  const chosen: StudentShape[] = [];
  const count = sandwichSize(space, random) - 2;
  for (let i = 0; i < count; i++) {
    const [word] = philox4x32([step, i, 0, SITE], splitSeed(seed));
    chosen.push(...left.splice(Math.floor(word / 2 ** 32 * left.length), 1));
  }
  return [full, ...chosen, smallest];
}

function isSame(a: StudentShape, b: StudentShape): boolean {
  return a.layers === b.layers && a.width === b.width;
}

/** Distinguishes the choice of shapes from other users of a seed. */
const SITE = 0x73686170;
