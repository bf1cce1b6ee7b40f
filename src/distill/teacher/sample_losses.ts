/**
 * What a teacher that was asked of a server loses on each sample: kept beside the rows of its cache, since of the largest
 * log-probabilities alone it cannot be known.
 *
 * @module
 */
import type { EncodedSample } from "../../text/encode.ts";
import { sha256 } from "../inputs/identity.ts";
import type { CacheFolder } from "./cache_folder.ts";
import { sampleKey } from "./origin.ts";

/** The kind of records that hold them. */
const LOSSES = "losses";

/** Tokens of a sample whose loss is counted where a teacher is measured: those that are learnt, but the first, which nothing predicts. */
export function measuredTokens({ ids, supervised }: Pick<EncodedSample, "ids" | "supervised">): number[] {
  return Array.from(ids.keys()).filter((i) => i > 0 && supervised[i] === 1);
}

/** Under which the loss on some tokens of a sample is kept. */
export function lossKey(ids: ArrayLike<number>, measured: readonly number[]): string {
  return sampleKey({ ids: Int32Array.from(ids) }, measured).hash;
}

/** Sums of the cross-entropy over the measured tokens of samples, nats, by {@linkcode lossKey}: all that the cache has. */
export async function keptLosses(folder: CacheFolder): Promise<Map<string, number>> {
  const records = await folder.records<Record<string, number>>(LOSSES);
  return new Map(records.flatMap((record) => Object.entries(record)));
}

/** Keeps more of them. */
export async function keepLosses(folder: CacheFolder, losses: ReadonlyMap<string, number>): Promise<void> {
  if (losses.size === 0) return;
  await folder.keep(LOSSES, sha256([...losses.keys()].join(" ")), Object.fromEntries(losses));
}

/** The losses of samples, in their order; undefined of one that the cache does not have. */
export function lossesOf(
  kept: ReadonlyMap<string, number>,
  samples: readonly EncodedSample[],
): (number | undefined)[] {
  return samples.map((sample) => {
    const measured = measuredTokens(sample);
    return measured.length === 0 ? 0 : kept.get(lossKey(sample.ids, measured));
  });
}
