/**
 * Caches of format 1, which earlier versions wrote: one file with the rows of all samples of a run, in the order of its data. They are
 * read where they are there, so that runs that began with one go on; none is written any more.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { canonicalJson } from "../../base/json.ts";
import { openFile } from "../../formats/files.ts";
import { SafetensorsFile } from "../../formats/safetensors/safetensors.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { type MeasuredSet, TeacherCache, type WrittenTexts } from "./cache.ts";
import { RowCodec, type RowFormat } from "./cached_rows.ts";
import { cachePath, type SampleKey } from "./origin.ts";

const FORMAT = 1;
const ROWS = "rows.safetensors";
const ABOUT = "teacher.json";

/** Everything that the numbers of such a cache follow from. */
export interface EarlierOrigin {
  readonly teacher: string;
  /** Hash of the tokens of all samples, and of their positions that have a row. */
  readonly samples: string;
  readonly format: RowFormat;
  readonly seed: number | null;
  /** Samples of each held-out set; absent in the earliest, which do not say which of the samples are held out. */
  readonly heldOutSets?: readonly number[];
}

/** `teacher.json` */
interface About {
  readonly format: number;
  readonly key: string;
  readonly origin: EarlierOrigin;
  readonly heldOut: MeasuredSet & { readonly sets?: readonly MeasuredSet[] };
  readonly texts: WrittenTexts | null;
  readonly rows: { readonly count: number; readonly bytes: number; readonly sha256: string };
}

/** Hash under which such a cache is found. */
export function earlierKey(origin: EarlierOrigin): string {
  return createHash("sha256").update(`${FORMAT} ${canonicalJson(origin)}`).digest("hex");
}

/** Samples in the order of their rows, with the positions that have one. */
export interface EarlierSamples {
  /** See {@linkcode EarlierOrigin.samples}. */
  readonly identity: string;
  /** Number of the first row of each sample, then of all rows. */
  readonly offsets: Float64Array;
}

/** Finds the rows of samples. */
export function earlierSamples(keys: ReadonlyMap<EncodedSample, SampleKey>): EarlierSamples {
  const offsets = new Float64Array(keys.size + 1);
  const hash = createHash("sha256");
  [...keys].forEach(([{ ids }, { positions }], i) => {
    hash.update(Int32Array.of(ids.length, positions.length)).update(ids);
    hash.update(Int32Array.from(positions));
    offsets[i + 1] = offsets[i]! + positions.length;
  });
  return { offsets, identity: hash.digest("hex") };
}

/**
 * Opens the cache of an origin, if there is one, and checks every byte of it.
 *
 * @param keys of all samples that it was made of, in order
 * @param heldOutTokens Supervised tokens of the held-out samples: where a cache does not say which samples were held out, as many tokens
 * tell that they were these, since they come last
 * @throws {InputError} if what lies there is damaged, or is another cache
 */
export async function openEarlierCache(
  folder: string,
  origin: EarlierOrigin,
  keys: ReadonlyMap<EncodedSample, SampleKey>,
  heldOutTokens: number,
): Promise<TeacherCache | undefined> {
  const { heldOutSets, ...earliest } = origin;
  const found = await open(folder, origin, keys);
  if (found) return found.cache;
  if (heldOutSets!.length > 1) return undefined;
  const before = await open(folder, earliest, keys);
  if (!before || before.tokens === heldOutTokens) return before?.cache;
  before.cache.close();
  return undefined;
}

async function open(
  folder: string,
  origin: EarlierOrigin,
  keys: ReadonlyMap<EncodedSample, SampleKey>,
): Promise<{ cache: TeacherCache; tokens: number } | undefined> {
  const key = earlierKey(origin);
  const path = cachePath(folder, key);
  const there = await system.stat(path).then((info) => info.isDirectory, () => false);
  if (!there) return undefined;
  const refuse = (what: string, cause?: unknown): never => {
    throw new InputError(`is not the teacher's cache it should be: ${what}`, {
      where: path,
      hint: "Remove this folder, and the cache is made again.",
      ...(cause === undefined ? {} : { cause }),
    });
  };
  let about: About;
  try {
    about = JSON.parse(await system.readTextFile(join(path, ABOUT)));
  } catch (cause) {
    return refuse(`${ABOUT} cannot be read`, cause);
  }
  if (about.format !== FORMAT) refuse(`it has format ${about.format}, where ${FORMAT} should be`);
  if (about.key !== key) {
    refuse(
      `it was made for another teacher, other samples or other settings: its hash is ${about.key}, not ${key}`,
    );
  }
  const codec = new RowCodec(origin.format);
  const file = await SafetensorsFile.open(await openFile(join(path, ROWS)));
  try {
    const { offsets } = earlierSamples(keys);
    const shape = [offsets.at(-1)!, codec.bytes];
    if (file.metadata.get("key") !== key) {
      refuse(`${ROWS} was made for another teacher, or other samples: its hash is not ${key}`);
    }
    if (file.tensors.size !== 2 || String(file.tensors.get("rows")?.shape) !== String(shape)) {
      refuse(`${ROWS} does not have rows of shape [${shape}]`);
    }
    const stored = (await file.readArray("offsets")).data;
    if (stored.length !== offsets.length || offsets.some((x, i) => stored[i] !== x)) {
      refuse(`${ROWS} has rows of samples of other lengths`);
    }
    const hash = createHash("sha256");
    const { begin, end } = file.entry("rows");
    for (let at = begin; at < end; at += PIECE) {
      hash.update(await file.source.read(at, Math.min(PIECE, end - at)));
    }
    if (hash.digest("hex") !== about.rows.sha256) refuse(`the rows are not those that ${ABOUT} describes`);
    const places = new Map(
      [...keys.keys()].map((sample, i) => [sample, [offsets[i]!, offsets[i + 1]!] as const]),
    );
    const { heldOut, texts, rows: { sha256: identity } } = about;
    const cache = new TeacherCache({
      ...{ path, storage: codec, identity, findings: { heldOut: heldOut.sets ?? [heldOut], texts } },
      read: async (sample) => {
        const [first, last] = places.get(sample)!;
        return await file.source.read(begin + first * codec.bytes, (last - first) * codec.bytes);
      },
      close: () => file.close(),
    });
    return { cache, tokens: heldOut.tokens };
  } catch (error) {
    file.close();
    throw error;
  }
}

const PIECE = 8 * 2 ** 20;
