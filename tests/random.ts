/**
 * Random numbers of tests whose point is that chance plays a part, such as kills at any moment: each run has a seed of its own, which is
 * printed, and can be given.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../src/base/random.ts";

/** Set to a printed seed, it repeats what that run drew. */
const VARIABLE = "LIMBECK_TEST_SEED";

/** Numbers in [0, 1), and a line that says how to have them again. */
export function seededRandom(what: string): () => number {
  const given = Deno.env.get(VARIABLE);
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given);
  console.log(`${what}: ${VARIABLE}=${seed}`);
  let drawn = 0;
  return () => philox4x32([drawn++, 0, 0, 0], splitSeed(seed))[0] / 2 ** 32;
}
