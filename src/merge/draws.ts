/**
 * The random numbers of a merge. Each is a pure function of the merge's seed, the tensor's name, the parent's number and the entry's
 * place, so it does not matter in which order or in what pieces tensors are merged.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { philox4x32, splitSeed } from "../base/random.ts";

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
  const key = splitSeed(seed);
  const digest = createHash("sha256").update(`${parent} ${tensor}`).digest();
  const name = digest.readUInt32LE(0);
  const high = digest.readUInt32LE(4);
  const drawn = new Float32Array(count);
  const end = first + count;
  for (let block = Math.floor(first / 4); 4 * block < end; block++) {
    // A tensor has fewer than 2^34 entries, so the block's number fits one word.
    const words = philox4x32([block, name, high, SITE_MERGE], key);
    for (let word = 0; word < 4; word++) {
      const entry = 4 * block + word;
      if (entry >= first && entry < end) drawn[entry - first] = (words[word]! >>> 8) / 2 ** 24;
    }
  }
  return drawn;
}
