/**
 * Hashes that tell whether models and samples are still those that something was made of.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { hashSamples } from "../../text/batch_stream.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { canonicalJson } from "../../base/json.ts";
import type { Model } from "./models.ts";

/** Hash of weights and config: a rope base or an epsilon changes the model as much as a weight. */
export async function modelIdentity({ source }: Pick<Model, "source">): Promise<string> {
  return sha256(`${await source.fingerprint()} ${canonicalJson(source.config)}`);
}

/** {@linkcode modelIdentity} of what a run computes with: quantised, rounded or cut it is another than that of the files. */
export async function computedIdentity(
  model: Pick<
    Model,
    | "source"
    | "isQuantised"
    | "hasQuantisedExperts"
    | "isRounded"
    | "quantize"
    | "storage"
    | "keptLayers"
    | "sourceLayers"
  >,
): Promise<string> {
  const { isQuantised, quantize, isRounded, storage, keptLayers, sourceLayers } = model;
  const identity = await modelIdentity(model);
  const changes = [
    ...(isQuantised ? [`in ${quantize}${model.hasQuantisedExperts ? " with its experts" : ""}`] : []),
    ...(isRounded && storage !== "exact" ? [`as ${storage}`] : []),
    ...(keptLayers.length < sourceLayers ? [`of layers ${keptLayers}`] : []),
  ];
  return changes.length > 0 ? sha256(`${identity} ${changes.join(" ")}`) : identity;
}

/** Hash of the tokens of samples, of which of them are learnt, and of who wrote them. */
export function samplesIdentity(samples: readonly EncodedSample[]): string {
  const hash = createHash("sha256");
  hashSamples(hash, samples);
  return hash.digest("hex");
}

/** Hash (SHA-256, hex) of a text. */
export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
