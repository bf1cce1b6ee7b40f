/**
 * Whether models compute alike, so that their weights can stand in for one another.
 *
 * What is compared is what their family has read from config.json, at any depth: numbers of the whole model against each other, and what
 * is said of each layer where layers are put in each other's place.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DecoderConfig } from "../../models/config.ts";
import type { Parent } from "./parents.ts";

/** What decides how weights are used, not which there are. Where it differs the result has the first model's. */
const SOFT_FIELDS: Readonly<Record<string, string>> = {
  normEpsilon: "rms_norm_eps",
  epsilon: "rms_norm_eps",
  contextLength: "max_position_embeddings",
  inverseFrequencies: "the rotary frequencies (rope_theta, rope_scaling)",
  long: "the rotary frequencies (rope_theta, rope_scaling)",
};

/** What models of one merge may differ in, or what is looked at elsewhere. */
const FREE_FIELDS = [
  "layers",
  "vocabularySize",
  "bosToken",
  "eosTokens",
  "ropeTheta",
  "theta",
  "attentionScaling",
];

/** Two values, as JSON, that stand at the same place of two configs. */
interface Difference {
  /** Such as `attentionBias`, or `attention.window`. */
  readonly path: string;
  /** The last part of the path. */
  readonly field: string;
  readonly left: string;
  readonly right: string;
}

/**
 * Checks that models are of one architecture.
 *
 * @returns What differs without forbidding the merge, in words
 * @throws {InputError} naming the first model that is unlike the first, and every field in which it is
 */
export function checkAlike(parents: Iterable<Parent>): string[] {
  const [first, ...others] = parents;
  const notes = new Set<string>();
  for (const other of others) {
    const [left, right] = [first!, other].map(({ architecture: { config } }) => config);
    const unlike = new Set<string>();
    for (const difference of differences(withoutLayers(left!), withoutLayers(right!))) {
      const soft = SOFT_FIELDS[difference.field];
      if (soft === undefined) unlike.add(inWords(difference));
      else notes.add(`${soft} of ${other.name} differ from those of ${first!.name}, which the result has`);
    }
    // Of another depth, layers are compared where they are placed.
    for (let layer = 0; left!.layers === right!.layers && layer < left!.layers; layer++) {
      for (const difference of layerDifferences(left!, layer, right!, layer)) unlike.add(difference);
    }
    if (unlike.size === 0) continue;
    throw new InputError(`is another kind of model than ${first!.name}: ${[...unlike].join("; ")}`, {
      where: other.name,
      hint:
        "Only models of one architecture and of the same sizes can be merged, such as those trained from one base.",
    });
  }
  return [...notes];
}

/**
 * In what a layer of one model computes otherwise than a layer of another, in words: another window, no rotary positions. Nothing where the
 * layers of a family are all alike.
 */
export function layerDifferences(
  one: DecoderConfig,
  layer: number,
  other: DecoderConfig,
  otherLayer: number,
): string[] {
  const [lists, others] = [layerLists(one), layerLists(other)];
  return [...lists].flatMap(([path, entries]) =>
    [...differences(entries[layer], others.get(path)?.[otherLayer], path)]
      .filter(({ field }) => SOFT_FIELDS[field] === undefined)
      .map(inWords)
  );
}

function inWords({ path, left, right }: Difference): string {
  return `${path} is ${right}, not ${left}`;
}

/** Where two values differ; parts of them that are missing are undefined. */
function* differences(left: unknown, right: unknown, path = "", field = ""): Generator<Difference> {
  if (isTree(left) && isTree(right) && SOFT_FIELDS[field] === undefined) {
    for (const key of new Set([...Object.keys(left), ...Object.keys(right)])) {
      if (FREE_FIELDS.includes(key)) continue;
      yield* differences(left[key], right[key], path === "" ? key : `${path}.${key}`, key);
    }
    return;
  }
  const [a, b] = [json(left), json(right)];
  if (a !== b) yield { path, field, left: a, right: b };
}

function json(value: unknown): string {
  return String(
    JSON.stringify(value, (_, part) => ArrayBuffer.isView(part) ? [...part as Float64Array] : part),
  );
}

/** An object of a config, which has named parts. */
function isTree(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/** The lists of a config that have an entry for each layer, by their paths. */
function layerLists(config: DecoderConfig): Map<string, readonly unknown[]> {
  const lists = new Map<string, readonly unknown[]>();
  const look = (tree: object, prefix: string) => {
    for (const [key, value] of Object.entries(tree)) {
      const path = prefix === "" ? key : `${prefix}.${key}`;
      if (isTree(value)) look(value, path);
      else if (isLayerList(config, key, value)) lists.set(path, value);
    }
  };
  look(config, "");
  return lists;
}

function isLayerList({ layers }: DecoderConfig, key: string, value: unknown): value is readonly unknown[] {
  const isFree = FREE_FIELDS.includes(key) && key !== "layers";
  return !isFree && Array.isArray(value) && value.length === layers;
}

/** A config without what is said of each layer. */
function withoutLayers(config: DecoderConfig): unknown {
  const strip = (tree: object): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(tree).filter(([key, value]) => !isLayerList(config, key, value))
        .map(([key, value]) => [key, isTree(value) ? strip(value) : value]),
    );
  return strip(config);
}
