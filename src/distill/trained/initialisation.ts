/**
 * Random initial values, a pure function of (seed, parameter name).
 *
 * @module
 */
import { philox4x32, splitSeed } from "../../base/random.ts";

/** Distinguishes initial values from other users of a seed. */
const SITE = 0x696e6974;

/** Four random words for position `i` of a parameter. */
function draw(i: number, key: number, seed: number): [number, number, number, number] {
  return philox4x32([i, key, 0, SITE], splitSeed(seed));
}

/** Fills with numbers that are uniform in [-bound, bound). */
export function fillUniform(target: Float32Array, seed: number, name: string, bound: number): void {
  const key = hashName(name);
  for (let i = 0; i < target.length; i += 4) {
    draw(i / 4, key, seed).forEach((word, j) => {
      if (i + j < target.length) target[i + j] = ((word + 0.5) / 2 ** 32 * 2 - 1) * bound;
    });
  }
}

/** Fills with normal numbers of mean 0. */
export function fillNormal(target: Float32Array, seed: number, name: string, deviation: number): void {
  const key = hashName(name);
  for (let i = 0; i < target.length; i += 2) {
    const [a, b] = draw(i / 2, key, seed);
    // Box-Muller.
    const radius = deviation * Math.sqrt(-2 * Math.log((a + 0.5) / 2 ** 32));
    const angle = 2 * Math.PI * ((b + 0.5) / 2 ** 32);
    target[i] = radius * Math.cos(angle);
    if (i + 1 < target.length) target[i + 1] = radius * Math.sin(angle);
  }
}

/** FNV-1a over UTF-16 code units. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
