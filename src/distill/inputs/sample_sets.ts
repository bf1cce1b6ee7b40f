/**
 * The training and held-out sets of a recipe, read and encoded.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { BatchStreamOptions } from "../../text/batch_stream.ts";
import { DatasetError, type DatasetRow, openDataset, splitHeldOut } from "../../text/dataset.ts";
import {
  encodeDataset,
  type EncodedSample,
  type EncodeOptions,
  type EncodeReport,
} from "../../text/encode.ts";
import { heldOutSets, trainingSets } from "../recipe/data_sets.ts";
import type { DataRecipe } from "../recipe/recipe.ts";

/** A set of samples under its name. */
export interface SampleSet {
  readonly name: string;
  readonly rows: DatasetRow[];
  readonly samples: EncodedSample[];
  readonly report: EncodeReport;
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

/**
 * Reads and encodes all sets. Without held-out sets, each training set gives a part of its rows to one of its name.
 *
 * @throws {InputError} a set that cannot be read, is empty, or has nothing to learn; where it is one of a list, with its place in the recipe
 */
export async function openSampleSets(
  data: DataRecipe,
  options: Omit<EncodeOptions, "contextLength" | "mask" | "tooLong" | "endToken" | "promptsAsChat">,
): Promise<SampleSets> {
  const { contextLength, mask, tooLong, endToken, template: promptsAsChat, limit } = data;
  const encode = (rows: DatasetRow[]) => {
    const { samples, report } = encodeDataset(rows, {
      ...options,
      ...{ contextLength, mask, tooLong, endToken, promptsAsChat },
    });
    return { rows, samples, report };
  };
  /** Names the entry of a list where something is wrong with it; a file alone is named by its errors. */
  const within = async <T>(field: "train" | "heldOut", i: number, work: () => T | Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (typeof data[field] === "string" || !(error instanceof InputError)) throw error;
      if (error instanceof DatasetError) throw error;
      throw new InputError(error.message, {
        where: `data.${data[field] === undefined ? "train" : field}.${i}`,
        cause: error,
        ...(error.hint === undefined ? {} : { hint: error.hint }),
      });
    }
  };
  const [train, heldOut]: [TrainingSamples[], SampleSet[]] = [[], []];
  const measured = heldOutSets(data);
  for (const [i, { path, name, weight }] of trainingSets(data).entries()) {
    await within("train", i, async () => {
      const rows = (await openDataset(path)).slice(0, limit);
      const split = measured ? { train: rows, heldOut: [] } : splitHeldOut(rows);
      train.push({ name, weight, ...encode(split.train) });
      if (!measured) heldOut.push({ name, ...encode(split.heldOut) });
    });
  }
  for (const [i, { path, name }] of (measured ?? []).entries()) {
    await within("heldOut", i, async () => heldOut.push({ name, ...encode(await openDataset(path)) }));
  }
  return { train, heldOut };
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
    const { text, prompt, messages, pair } = report.rowsByShape;
    const pairs = (all.rowsByShape.pair ?? 0) + (pair ?? 0);
    return {
      ...sum,
      rowsByShape: {
        text: all.rowsByShape.text + text,
        prompt: all.rowsByShape.prompt + prompt,
        messages: all.rowsByShape.messages + messages,
        ...(pairs > 0 ? { pair: pairs } : {}),
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
] as const;
