/**
 * The training and held-out sets of a recipe, read and encoded.
 *
 * @module
 */
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import type { BatchStreamOptions } from "../../text/batch_stream.ts";
import { DatasetError, type DatasetRow, Duplicates, openDataset, splitHeldOut } from "../../text/dataset.ts";
import {
  encodeDataset,
  type EncodedSample,
  type EncodeOptions,
  type EncodeReport,
  SampleEncoder,
} from "../../text/encode.ts";
import { type Look, LOOK_BYTES, lookAt } from "../../text/stream/look.ts";
import { NumberSet } from "../../text/stream/number_list.ts";
import { RowFile, shortHash } from "../../text/stream/row_file.ts";
import { RowAligner } from "../../text/alignment/row_aligner.ts";
import { heldOutSets, trainingSets } from "../recipe/data_sets.ts";
import type { AlignRecipe, DataRecipe, HeldOutSet } from "../recipe/recipe.ts";

/** A set of samples under its name. */
export interface SampleSet {
  readonly name: string;
  readonly rows: readonly DatasetRow[];
  readonly samples: EncodedSample[];
  /** Of all its rows: estimated, where only some of them were encoded. */
  readonly report: EncodeReport;
  /** Rows left out because they say the same as others, where that is asked for. */
  readonly duplicates?: number;
  /** Where rows and samples are only some of the file's: what is known of all. */
  readonly looked?: Omit<Look, "rows">;
}

/** One of which batches are drawn. */
export interface TrainingSamples extends SampleSet {
  readonly weight: number;
  /** All of its rows, where they stay on the disk. */
  readonly streamed?: RowFile;
}

/** All data of a recipe, in the order of its lists. */
export interface SampleSets {
  readonly train: readonly TrainingSamples[];
  /** The first one decides what is best. */
  readonly heldOut: readonly SampleSet[];
  close(): void;
}

/** How the files of a recipe are read. */
export interface DataAccess {
  /** Whether large files are only looked at, for who wants to know of them within seconds. */
  readonly reading?: "whole" | "look";
  /** A folder for rows of other formats than JSON Lines, where they are streamed; the system's when absent. */
  readonly scratch?: string;
  /** Called now and then while a large file is read. */
  readonly onProgress?: () => void;
}

/** Rows of a file, and what is known of it where they are not all. */
interface ReadSet {
  readonly rows: readonly DatasetRow[];
  readonly part: Pick<TrainingSamples, "looked" | "streamed" | "duplicates">;
  /** Rows of it that are held out. */
  readonly heldOut?: readonly DatasetRow[];
}

/** Bytes of a file; 0 where there is none, of which is told by who opens it. */
async function bytesOf(path: string): Promise<number> {
  return await system.stat(path).then(({ size }) => size, () => 0);
}

/** Milliseconds in which rows are encoded for a look, all sets together. */
const LOOK_MS = 700;
/** Rows of a set that are encoded for a look, however long it takes. */
const LOOK_ROWS = 64;

/** Encodes as many rows as it can within a time, spread over all of them. */
function encodeSome(
  rows: readonly DatasetRow[],
  options: EncodeOptions,
  milliseconds: number,
): Pick<SampleSet, "rows" | "samples" | "report"> {
  const encoder = new SampleEncoder(options);
  const end = performance.now() + milliseconds;
  const found: (readonly EncodedSample[] | undefined)[] = [];
  for (const [i, place] of spreadOrder(rows.length).entries()) {
    if (i >= LOOK_ROWS && performance.now() > end) break;
    found[place] = encoder.encode(rows[place]!);
  }
  const encoded = rows.filter((_, i) => found[i]);
  return { rows: encoded, samples: found.flatMap((some) => some ?? []), report: encoder.finish() };
}

/** An order in which the first few of a list are spread over all of it, however few they are: steps of the golden ratio. */
function spreadOrder(count: number): number[] {
  let step = Math.max(1, Math.round(count * 0.618034));
  while (greatestDivisor(step, count) > 1) step++;
  return Array.from({ length: count }, (_, i) => i * step % count);
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}

/** Bytes of training files from which on their rows stay on the disk. */
const STREAMED_BYTES = 2 ** 30;
/** Rows of a streamed file that stand for all in figures that are told of it. */
const STREAMED_ROWS = 1024;
/** Rows that are split off a streamed file to be measured, about. */
const STREAMED_HELD_OUT = 1000;

/** Whether training rows stay on the disk. */
async function isStreamed(data: DataRecipe): Promise<boolean> {
  if (data.streaming !== undefined) return data.streaming;
  const sizes = await Promise.all(trainingSets(data).map(({ path }) => bytesOf(path)));
  return sizes.reduce((sum, size) => sum + size, 0) > STREAMED_BYTES;
}

/** How rows of a recipe become samples. */
export function encodeOptions(
  data: DataRecipe,
  models: Pick<EncodeOptions, "tokenizer" | "template" | "privileged">,
): EncodeOptions {
  const { contextLength, mask, tooLong, endToken, template: promptsAsChat, overlap, specialTokens, turns } =
    data;
  return {
    ...models,
    ...{ contextLength, mask, tooLong, endToken, promptsAsChat },
    ...(overlap === undefined ? {} : { overlap }),
    ...(turns === undefined ? {} : { turns }),
    specialInText: specialTokens === "parse",
  };
}

/** A teacher with a tokenizer of its own, which encodes every row too. */
export interface OtherTokenizer extends Pick<EncodeOptions, "tokenizer" | "template"> {
  readonly align: AlignRecipe;
  /** Positions that the teacher was trained for. */
  readonly contextLength: number;
}

/**
 * Reads and encodes all sets. Without held-out sets, each training set gives a part of its rows to one of its name.
 *
 * @throws {InputError} a set that cannot be read, is empty, or has nothing to learn; where it is one of a list, with its place in the recipe
 */
export async function openSampleSets(
  data: DataRecipe,
  models: Pick<EncodeOptions, "tokenizer" | "template" | "privileged">,
  access: DataAccess = {},
  other?: OtherTokenizer,
): Promise<SampleSets> {
  const options = encodeOptions(data, models);
  const encodeWhole = (rows: readonly DatasetRow[]) => {
    const aligner = other && alignerOf(data, options, other);
    try {
      return encodeDataset(rows, { ...options, ...(aligner ? { align: aligner } : {}) });
    } finally {
      // What it has to say goes before that nothing is left.
      aligner?.check();
    }
  };
  /** @param total Rows that these stand for */
  const encode = (rows: readonly DatasetRow[], looked?: SampleSet["looked"], total = rows.length) => {
    // A teacher that reads something else wants all rows: its sizes are planned from them.
    if (!isLook || other || models.privileged) {
      const { samples, report } = encodeWhole(rows);
      return {
        rows,
        samples,
        report: scaledReport(report, total / rows.length),
        ...(looked ? { looked } : {}),
      };
    }
    const some = encodeSome(
      rows,
      options,
      LOOK_MS / (trainingSets(data).length + (heldOutSets(data)?.length ?? 1)),
    );
    const isAll = some.rows.length === rows.length;
    const { length: checked } = rows;
    const seen = looked ?? (isAll ? undefined : { checked, total, isCounted: true });
    return {
      ...some,
      report: scaledReport(some.report, total / some.rows.length),
      ...(seen ? { looked: seen } : {}),
    };
  };
  const isLook = access.reading === "look";
  const streams = !isLook && await isStreamed(data);
  const [train, heldOut]: [TrainingSamples[], SampleSet[]] = [[], []];
  const close = () => train.forEach(({ streamed }) => streamed?.close());
  const openHeldOut = async () => {
    for (const [i, set] of (heldOutSets(data) ?? []).entries()) {
      await within(data, "heldOut", i, async () => {
        const { rows, part } = await readSet(set, data, isLook);
        heldOut.push({ name: set.name, ...encode(rows, part.looked, part.looked?.total) });
      });
    }
  };
  try {
    if (data.deduplicate || streams) await openHeldOut();
    const seen = new SeenRows(data, heldOut, streams);
    for (const [i, set] of trainingSets(data).entries()) {
      await within(data, "train", i, async () => {
        const read = streams
          ? await streamSet(set, data, seen, access)
          : seen.without(await readSet(set, data, isLook, data.limit), set.path);
        const split = data.heldOut
          ? { train: read.rows, heldOut: [] }
          : read.heldOut
          ? { train: read.rows, heldOut: read.heldOut }
          : splitHeldOut(read.rows);
        const { name, weight } = set;
        try {
          const part = read.part.looked ? read.part.looked.total / read.rows.length : 1;
          const encoded = encode(split.train, read.part.looked, split.train.length * part);
          train.push({ name, weight, ...read.part, ...encoded });
        } catch (error) {
          read.part.streamed?.close();
          throw error;
        }
        if (data.heldOut) return;
        // Of a streamed file all that is held out was read.
        const { looked } = streams ? {} as ReadSet["part"] : read.part;
        const total = looked ? split.heldOut.length * looked.total / read.rows.length : undefined;
        heldOut.push({ name, ...encode(split.heldOut, looked, total) });
      });
    }
    if (!data.deduplicate && !streams) await openHeldOut();
  } catch (error) {
    close();
    throw error;
  }
  return { train, heldOut, close };
}

/** What encodes rows for the teacher too. An end token given by its id is one of the student's; the teacher's ends as it does. */
function alignerOf(
  data: DataRecipe,
  own: EncodeOptions,
  { tokenizer, template, align, contextLength }: OtherTokenizer,
): RowAligner {
  const { endToken } = data;
  const second = encodeOptions(data, { tokenizer, ...(template ? { template } : {}) });
  return new RowAligner(
    own,
    { ...second, endToken: typeof endToken === "number" ? "auto" : endToken },
    { ...align, limit: contextLength },
  );
}

/** The rows of a file, or some of those of a large one. */
async function readSet(
  { path, columns }: HeldOutSet,
  data: DataRecipe,
  isLook: boolean,
  limit?: number,
): Promise<ReadSet> {
  const used = columns ?? data.columns;
  const named = used ? { columns: used } : {};
  if (isLook && await bytesOf(path) > LOOK_BYTES) {
    const { rows, ...looked } = await lookAt(path, { ...named, ...(limit === undefined ? {} : { limit }) });
    return { rows, part: { looked } };
  }
  return { rows: (await openDataset(path, named)).slice(0, limit), part: {} };
}

/** Some of the rows of a file that stays on the disk. */
async function streamSet(
  { path, columns }: HeldOutSet,
  data: DataRecipe,
  { numbers, heldOut }: SeenRows,
  { scratch, onProgress }: DataAccess,
): Promise<ReadSet> {
  const used = columns ?? data.columns;
  const streamed = await RowFile.open(path, {
    heldOut,
    ...(used ? { columns: used } : {}),
    ...(data.limit === undefined ? {} : { limit: data.limit }),
    ...(data.deduplicate ? { seen: numbers } : {}),
    ...(data.heldOut ? {} : { heldOutShare: (rows: number) => Math.min(0.05, STREAMED_HELD_OUT / rows) }),
    ...(scratch === undefined ? {} : { scratch }),
    ...(onProgress ? { onProgress } : {}),
  });
  const { count, duplicates } = streamed;
  const some = Math.min(count, STREAMED_ROWS);
  return {
    rows: Array.from({ length: some }, (_, i) => streamed.row(Math.floor(i * count / some))),
    part: {
      streamed,
      looked: { checked: count, total: count, isCounted: true },
      ...(data.deduplicate ? { duplicates } : {}),
    },
    heldOut: streamed.heldOut,
  };
}

/** What is held out, and, where copies are left out, which rows there were. */
class SeenRows {
  /** Hashes of rows that are held out by a file of their own. */
  readonly heldOut: NumberSet = new NumberSet();
  /** Hashes of rows that are left out when they come again, where they are streamed. */
  readonly numbers: NumberSet = new NumberSet();
  readonly #duplicates: Duplicates | undefined;

  constructor({ deduplicate }: DataRecipe, sets: readonly SampleSet[], streams: boolean) {
    const rows = deduplicate || streams ? sets.flatMap((set) => set.rows) : [];
    if (deduplicate && !streams) this.#duplicates = new Duplicates(rows);
    if (!streams) return;
    for (const row of rows) {
      const hash = shortHash(row);
      this.heldOut.add(hash);
      this.numbers.add(hash);
    }
  }

  /** A set without the rows that came before. */
  without({ rows, part }: ReadSet, path: string): ReadSet {
    if (!this.#duplicates) return { rows, part };
    const kept = rows.filter((row) => this.#duplicates!.isNew(row));
    if (kept.length === 0) throw new InputError("all of its rows are copies of others", { where: path });
    // Of some of the rows nothing is told of all.
    return {
      rows: kept,
      part: { ...part, ...(part.looked ? {} : { duplicates: rows.length - kept.length }) },
    };
  }
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

/** What counts of some rows say of more of them. */
function scaledReport(report: EncodeReport, factor: number): EncodeReport {
  if (factor === 1) return report;
  const { text, prompt, messages, pair } = report.rowsByShape;
  const all = (count: number) => Math.round(count * factor);
  return {
    ...Object.fromEntries(COUNTS.map((name) => [name, all(report[name])])) as Record<
      typeof COUNTS[number],
      number
    >,
    rowsByShape: {
      ...{ text: all(text), prompt: all(prompt), messages: all(messages) },
      ...(pair === undefined ? {} : { pair: all(pair) }),
    },
    longest: report.longest,
    ...(report.unlike === undefined ? {} : { unlike: all(report.unlike) }),
  };
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
      ...(all.unlike === undefined ? {} : { unlike: all.unlike + (report.unlike ?? 0) }),
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
