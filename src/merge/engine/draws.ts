/**
 * The random numbers of a merge. Each is a pure function of the merge's seed, the tensor's name, the parent's number and the entry's
 * place, so it does not matter in which order or in what pieces tensors are merged.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { splitSeed, uniformNumbers } from "../../base/random.ts";

/** Last counter word of these numbers; other users of the same seed take another one. */
const SITE_MERGE = 0x6d657267;

/**
 * `count` uniform numbers in [0, 1) with 24 bits, from entry `first` of a tensor on.
 *
 * @param seed Whole number from 0 to 2^53 - 1
 */
export function uniformDraws(
  seed: number,
  tensor: string,
  parent: number,
  first: number,
  count: number,
): Float32Array<ArrayBuffer> {
  const digest = createHash("sha256").update(`${parent} ${tensor}`).digest();
  // A tensor has fewer than 2^34 entries, so a block's number fits the one word that is left.
  return uniformNumbers(
    first,
    count,
    [digest.readUInt32LE(0), digest.readUInt32LE(4), SITE_MERGE],
    splitSeed(seed),
  );
}
