/**
 * The training and held-out sets of a recipe, read and encoded.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { BatchStreamOptions } from "../../text/batch_stream.ts";
import { DatasetError, type DatasetRow, Duplicates, openDataset, splitHeldOut } from "../../text/dataset.ts";
import {
  encodeDataset,
  type EncodedSample,
  type EncodeOptions,
  type EncodeReport,
} from "../../text/encode.ts";
import { type Look, LOOK_BYTES, lookAt } from "../../text/stream/look.ts";
import { heldOutSets, trainingSets } from "../recipe/data_sets.ts";
import type { DataRecipe, HeldOutSet } from "../recipe/recipe.ts";

/** A set of samples under its name. */
export interface SampleSet {
  readonly name: string;
  readonly rows: DatasetRow[];
  readonly samples: EncodedSample[];
  readonly report: EncodeReport;
  /** Rows left out because they say the same as others, where that is asked for. */
  readonly duplicates?: number;
  /** Where the file was looked at only: what is known of all its rows. */
  readonly looked?: Omit<Look, "rows">;
}

/** One of which batches are drawn. */
export interface TrainingSamples extends SampleSet {
  readonly weight: number;
}

/** All data of a recipe, in the order of its lists. */
export interface SampleSets {
  readonly train: readonly TrainingSamples[];
  /** The first one decides what is best. */
  readonly heldOut: readonly SampleSet[];
}

/** Whether all rows are read, or large files are only looked at, for who wants to know of them within seconds. */
export type Reading = "whole" | "look";

/** Rows of a file, and what is known of it where they are not all. */
interface ReadSet {
  readonly rows: DatasetRow[];
  readonly part: Pick<SampleSet, "looked">;
}

/** Whether it takes long to read a file; one that is not there is told of by who opens it. */
async function isLarge(path: string): Promise<boolean> {
  return await Deno.stat(path).then(({ size }) => size > LOOK_BYTES, () => false);
}

/** How rows of a recipe become samples. */
export function encodeOptions(
  data: DataRecipe,
  models: Pick<EncodeOptions, "tokenizer" | "template">,
): EncodeOptions {
  const { contextLength, mask, tooLong, endToken, template: promptsAsChat, overlap, specialTokens } = data;
  return {
    ...models,
    ...{ contextLength, mask, tooLong, endToken, promptsAsChat },
    ...(overlap === undefined ? {} : { overlap }),
    specialInText: specialTokens === "parse",
  };
}

/**
 * Reads and encodes all sets. Without held-out sets, each training set gives a part of its rows to one of its name.
 *
 * @throws {InputError} a set that cannot be read, is empty, or has nothing to learn; where it is one of a list, with its place in the recipe
 */
export async function openSampleSets(
  data: DataRecipe,
  models: Pick<EncodeOptions, "tokenizer" | "template">,
  reading: Reading = "whole",
): Promise<SampleSets> {
  const options = encodeOptions(data, models);
  const encode = (rows: DatasetRow[]) => ({ rows, ...encodeDataset(rows, options) });
  const open = async ({ path, columns = data.columns }: HeldOutSet, limit?: number): Promise<ReadSet> => {
    const named = columns ? { columns } : {};
    if (reading === "look" && await isLarge(path)) {
      const { rows, ...looked } = await lookAt(path, { ...named, ...(limit === undefined ? {} : { limit }) });
      return { rows, part: { looked } };
    }
    return { rows: (await openDataset(path, named)).slice(0, limit), part: {} };
  };
  const [train, heldOut]: [TrainingSamples[], SampleSet[]] = [[], []];
  const openHeldOut = async () => {
    for (const [i, set] of (heldOutSets(data) ?? []).entries()) {
      await within(data, "heldOut", i, async () => {
        const { rows, part } = await open(set);
        heldOut.push({ name: set.name, ...part, ...encode(rows) });
      });
    }
  };
  if (data.deduplicate) await openHeldOut();
  const seen = data.deduplicate ? new Duplicates(heldOut.flatMap(({ rows }) => rows)) : undefined;
  for (const [i, set] of trainingSets(data).entries()) {
    await within(data, "train", i, async () => {
      const { name, weight } = set;
      const { rows, part } = await open(set, data.limit);
      const kept = seen ? rows.filter((row) => seen.isNew(row)) : rows;
      // Of some of the rows nothing is told of all.
      const duplicates = seen && !part.looked ? { duplicates: rows.length - kept.length } : {};
      if (kept.length === 0) {
        throw new InputError("all of its rows are copies of others", { where: set.path });
      }
      const split = data.heldOut ? { train: kept, heldOut: [] } : splitHeldOut(kept);
      train.push({ name, weight, ...part, ...duplicates, ...encode(split.train) });
      if (!data.heldOut) heldOut.push({ name, ...part, ...encode(split.heldOut) });
    });
  }
  if (!data.deduplicate) await openHeldOut();
  return { train, heldOut };
}

/** Names the entry of a list where something is wrong with it; a file alone is named by its errors. */
async function within(
  data: DataRecipe,
  field: "train" | "heldOut",
  i: number,
  work: () => Promise<unknown>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (typeof data[field] === "string" || !(error instanceof InputError)) throw error;
    if (error instanceof DatasetError) throw error;
    throw new InputError(error.message, {
      where: `data.${field}.${i}`,
      cause: error,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
  }
}

/** The training sets that have a weight. */
export function drawnSets(sets: readonly TrainingSamples[]): TrainingSamples[] {
  return sets.filter(({ weight }) => weight > 0);
}

/** How the batches of a recipe's training data are drawn: nothing where they are a single file. */
export function mixtureOf(
  { train, mix = "rows" }: DataRecipe,
  sets: readonly TrainingSamples[],
): Pick<BatchStreamOptions, "mixture"> {
  if (typeof train === "string") return {};
  const mixed = drawnSets(sets).map(({ name, weight, samples }) => ({ name, weight, count: samples.length }));
  return { mixture: { sets: mixed, by: mix } };
}

/** The counts of several datasets together. */
export function joinedReport(reports: readonly EncodeReport[]): EncodeReport {
  const [first, ...others] = reports as readonly [EncodeReport, ...EncodeReport[]];
  return others.reduce((all, report) => {
    const sum = Object.fromEntries(
      COUNTS.map((name) => [name, all[name] + report[name]]),
    ) as Record<typeof COUNTS[number], number>;
    const { text, prompt, messages } = report.rowsByShape;
    return {
      ...sum,
      rowsByShape: {
        text: all.rowsByShape.text + text,
        prompt: all.rowsByShape.prompt + prompt,
        messages: all.rowsByShape.messages + messages,
      },
      longest: Math.max(all.longest, report.longest),
    };
  }, first);
}

const COUNTS = [
  "rows",
  "samples",
  "tokens",
  "supervisedTokens",
  "cut",
  "dropped",
  "split",
  "withoutTarget",
  "lostTargets",
  "stopsLearnt",
] as const;
