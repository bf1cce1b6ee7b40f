/**
 * What the numbers of a cache follow from, and under which names it is found.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { canonicalJson } from "../../base/json.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { TokenMasks } from "../objective/token_masks.ts";
import type { PayloadFormat } from "./payload.ts";

/** Of what is written today. */
export const CACHE_FORMAT = 2;

/** Everything that the rows of a cache follow from, beside the tokens of a sample. */
export interface CacheOrigin {
  /** Identity of the teacher: of its weights and config, or of whatever stands for them. */
  readonly teacher: string;
  /** Fingerprint of its tokenizer. */
  readonly tokenizer: string;
  /** Hash of its chat template; null where it has none. */
  readonly template: string | null;
  readonly format: PayloadFormat;
  /** Of the draws; null where nothing is drawn. */
  readonly seed: number | null;
}

/** Hash (SHA-256, hex) under which a cache is found. */
export function cacheKey(origin: CacheOrigin): string {
  return createHash("sha256").update(`${CACHE_FORMAT} ${canonicalJson(origin)}`).digest("hex");
}

/** Where the cache of a key lies in a folder of caches. */
export function cachePath(folder: string, key: string): string {
  return join(folder, key.slice(0, 16));
}

/** A sample as a cache knows it. */
export interface SampleKey {
  /** Hash (SHA-256, hex) of its tokens and of its positions that have a row. */
  readonly hash: string;
  /** Positions that have a row, from 0, rising. */
  readonly positions: readonly number[];
}

/** Names a sample by its content: wherever it lies in the data, and in whatever data. */
export function sampleKey({ ids }: Pick<EncodedSample, "ids">, positions: readonly number[]): SampleKey {
  const hash = createHash("sha256").update(Int32Array.of(ids.length, positions.length))
    .update(ids).update(Int32Array.from(positions)).digest("hex");
  return { hash, positions };
}

/** The keys of samples, for the positions that some loss counts. */
export function sampleKeys(
  samples: readonly EncodedSample[],
  masks: TokenMasks,
): Map<EncodedSample, SampleKey> {
  return new Map(samples.map((sample) => [sample, sampleKey(sample, masks.positions(sample))]));
}
