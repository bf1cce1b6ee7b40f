/**
 * Caches of teachers on disk: `rows.safetensors` with what is kept at each position that a loss counts, and `teacher.json`, which says of what.
 *
 * A cache is a folder named by its key, a hash of everything its numbers follow from; it is written whole or not at all. Caches of
 * different keys lie side by side, so a folder can be shared by runs of different recipes.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { openFile, writeFolderAtomically, writeTextAtomically } from "../../formats/files.ts";
import { SafetensorsFile } from "../../formats/safetensors/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors/write.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { PackedBatch } from "../../text/packing.ts";
import { canonicalJson } from "../../base/json.ts";
import { type RowArrays, rowInputs, type TargetFeed, type TargetSource } from "../program/teacher_rows.ts";
import { RowCodec, type RowFormat } from "./cached_rows.ts";
import type { Evaluation } from "../objective/monitors.ts";
import { countedPositions, type MarkedBatch, type TokenMasks } from "../objective/token_masks.ts";

const FORMAT = 1;
const ROWS = "rows.safetensors";
const ABOUT = "teacher.json";

/** Everything that the numbers of a cache follow from. */
export interface CacheOrigin {
  /** Identity of the teacher's weights and config. */
  readonly teacher: string;
  /** Hash of the tokens of all samples, and of their positions that have a row. */
  readonly samples: string;
  readonly format: RowFormat;
  /** Of the draws; null where nothing is drawn. */
  readonly seed: number | null;
  /**
   * Samples of each held-out set, since {@linkcode TeacherFindings} are of each. Absent in caches of one set that earlier versions made:
   * they do not say which of the samples are held out.
   */
  readonly heldOutSets?: readonly number[];
}

/** Cross-entropy on a held-out set, in nats a token, and its supervised tokens. */
export interface MeasuredSet {
  readonly loss: number;
  readonly tokens: number;
}

/** What the teacher itself is found to be in the pass that makes the cache. */
export interface TeacherFindings {
  /** Cross-entropy on each held-out set, and its supervised tokens: on the first, and on all where there are several. */
  readonly heldOut: MeasuredSet & { readonly sets?: readonly MeasuredSet[] };
  /** Its sample texts, with a hash of the settings they were written with; null where none were wanted. */
  readonly texts: {
    readonly settings: string;
    readonly samples: readonly { readonly prompt: string; readonly text: string }[];
  } | null;
}

/** `teacher.json` */
interface About extends TeacherFindings {
  readonly format: number;
  readonly key: string;
  readonly origin: CacheOrigin;
  readonly rows: { readonly count: number; readonly bytes: number; readonly sha256: string };
}

/** What a cache says of held-out set number `i`. */
export function cachedEvaluation({ heldOut }: TeacherFindings, i: number): Evaluation {
  const { loss, tokens } = heldOut.sets?.[i] ?? heldOut;
  return { losses: { "cross-entropy": loss }, tokens };
}

/** Hash under which a cache is found. */
export function cacheKey(origin: CacheOrigin): string {
  return createHash("sha256").update(`${FORMAT} ${canonicalJson(origin)}`).digest("hex");
}

/** Where the cache of a key lies in a folder of caches. */
export function cachePath(folder: string, key: string): string {
  return join(folder, key.slice(0, 16));
}

/** Samples in the order of their rows, with the positions that have one. */
export interface CachedSamples {
  readonly samples: readonly EncodedSample[];
  /** Number of the first row of each sample, then of all rows. */
  readonly offsets: Float64Array<ArrayBuffer>;
  /** See {@linkcode CacheOrigin.samples}. */
  readonly identity: string;
}

/** Finds the rows of samples. */
export function cachedSamples(samples: readonly EncodedSample[], masks: TokenMasks): CachedSamples {
  const offsets = new Float64Array(samples.length + 1);
  const hash = createHash("sha256");
  samples.forEach((sample, i) => {
    const positions = masks.positions(sample);
    hash.update(Int32Array.of(sample.ids.length, positions.length)).update(sample.ids);
    hash.update(Int32Array.from(positions));
    offsets[i + 1] = offsets[i]! + positions.length;
  });
  return { samples, offsets, identity: hash.digest("hex") };
}

/**
 * Writes a cache, whole or not at all.
 *
 * @param rows bytes of the rows of all samples, in order, in pieces
 * @param findings asked once all rows have come
 */
export async function writeTeacherCache(
  path: string,
  origin: CacheOrigin,
  { offsets }: CachedSamples,
  rows: () => AsyncIterable<Uint8Array>,
  findings: () => Promise<TeacherFindings>,
): Promise<void> {
  const codec = new RowCodec(origin.format);
  const count = offsets.at(-1)!;
  await writeFolderAtomically(path, async (temporary) => {
    const hash = createHash("sha256");
    async function* hashed() {
      for await (const piece of rows()) {
        hash.update(piece);
        yield piece;
      }
    }
    await writeSafetensors(
      join(temporary, ROWS),
      [
        { name: "offsets", dtype: "F64", shape: [offsets.length] },
        { name: "rows", dtype: "U8", shape: [count, codec.bytes] },
      ],
      ({ name }) => (name === "offsets" ? offsets : hashed()),
      { format: `limbeck teacher cache ${FORMAT}`, key: cacheKey(origin) },
    );
    const about: About = {
      ...{ format: FORMAT, key: cacheKey(origin), origin },
      ...await findings(),
      rows: { count, bytes: codec.bytes, sha256: hash.digest("hex") },
    };
    await writeTextAtomically(join(temporary, ABOUT), JSON.stringify(about, null, 1) + "\n");
  });
}

/** An open cache. */
export class TeacherCache implements TargetSource {
  readonly path: string;
  readonly codec: RowCodec;
  readonly findings: TeacherFindings;
  /** Hash (SHA-256, hex) of the rows. */
  readonly identity: string;
  readonly #file: SafetensorsFile;
  readonly #begin: number;
  readonly #offsets: ReadonlyMap<EncodedSample, number>;

  private constructor(
    path: string,
    about: About,
    codec: RowCodec,
    file: SafetensorsFile,
    { samples, offsets }: CachedSamples,
  ) {
    this.path = path;
    this.codec = codec;
    this.findings = about;
    this.identity = about.rows.sha256;
    this.#file = file;
    this.#begin = file.entry("rows").begin;
    this.#offsets = new Map(samples.map((sample, i) => [sample, offsets[i]!]));
  }

  /**
   * Opens the cache of an origin, if there is one, and checks every byte of it.
   *
   * @param samples all that it was made of, in order
   * @throws {InputError} if what lies there is damaged, or is another cache
   */
  static async open(
    folder: string,
    origin: CacheOrigin,
    samples: CachedSamples,
  ): Promise<TeacherCache | undefined> {
    const key = cacheKey(origin);
    const path = cachePath(folder, key);
    const there = await Deno.stat(path).then((info) => info.isDirectory, () => false);
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
      about = JSON.parse(await Deno.readTextFile(join(path, ABOUT)));
    } catch (cause) {
      return refuse(`${ABOUT} cannot be read`, cause);
    }
    if (about.format !== FORMAT) refuse(`it has format ${about.format}; this version reads ${FORMAT}`);
    if (about.key !== key) refuse("it was made for another teacher, other samples or other settings");
    const codec = new RowCodec(origin.format);
    const file = await SafetensorsFile.open(await openFile(join(path, ROWS)));
    try {
      const { offsets } = samples;
      const shape = [offsets.at(-1)!, codec.bytes];
      if (file.metadata.get("key") !== key) refuse(`${ROWS} was made for another teacher, or other samples`);
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
      return new TeacherCache(path, about, codec, file, samples);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  feed(positions: number): TargetFeed {
    const rows = this.codec.arrays(positions);
    return { inputs: rowInputs(rows), fill: (batch, marked) => this.#fill(batch, marked, rows) };
  }

  async #fill({ members }: PackedBatch, marked: MarkedBatch, to: RowArrays): Promise<void> {
    const { bytes } = this.codec;
    let start = 0;
    for (const sample of members) {
      const end = start + sample.ids.length;
      const positions = countedPositions(marked, start, end);
      // Of several caches each has some of the samples.
      if (positions.length === 0) {
        start = end;
        continue;
      }
      const first = this.#begin + this.#offsets.get(sample)! * bytes;
      const read = await this.#file.source.read(first, positions.length * bytes);
      positions.forEach((t, i) => this.codec.read(read.buffer, i * bytes, to, t));
      start = end;
    }
  }

  close(): void {
    this.#file.close();
  }
}

const PIECE = 8 * 2 ** 20;
