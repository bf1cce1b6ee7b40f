/**
 * Training batches of rows that stay on the disk: a row is read and encoded when it is about to be drawn, so that memory does not grow
 * with the files.
 *
 * The order is that of {@linkcode BatchStream} where each row is one sample: the same permutation of rows, the same look ahead. Where rows
 * are left out or split it differs, since which ones are is not known before they are read. Of a mixture, each set has as its size the
 * mean over some of its rows.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../../base/errors.ts";
import { permutation } from "../../base/random.ts";
import { type Batches, type DataCursor, type DrawnShare, otherStream } from "../batch_stream.ts";
import type { DatasetRow } from "../dataset.ts";
import { type EncodedSample, sampleLength } from "../encode.ts";
import type { MixedBy } from "../mixture.ts";
import { checkFits, packBatch, type PackedBatch } from "../packing.ts";

/** Rows that can be read by number. */
export interface RowSet {
  readonly name: string;
  /** Share of what is drawn, against the other sets. */
  readonly weight: number;
  readonly count: number;
  /** Hash of all rows. */
  readonly identity: string;
  /** Tokens of a sample, about. */
  readonly meanLength: number;
  row(index: number): DatasetRow;
}

/** How rows become batches. */
export interface StreamedOptions {
  /** T: length of every batch. */
  readonly tokensPerBatch: number;
  readonly seed: number;
  /** What weights are shares of, where the sets are a mixture; without it there is one set. */
  readonly by?: MixedBy;
  /** The samples of a row: none, one or several. */
  readonly encode: (row: DatasetRow) => readonly EncodedSample[];
  /** Hash of all that decides what `encode` gives. */
  readonly encoding: string;
}

/** Waiting samples that are looked at to fill a batch. */
const LOOK_AHEAD = 64;

/** A sample that waits to be drawn: its row, and which piece of it. */
interface Waiting {
  readonly row: number;
  readonly piece: number;
  readonly sample: EncodedSample;
}

/** Where a set stands, as a cursor has it. */
interface SetCursor {
  readonly epoch: number;
  readonly at: number;
  readonly drawn: number;
  readonly waiting: readonly (readonly [row: number, piece: number])[];
}

/** Where the stream stands, beside epoch and index. */
interface StreamedCursor {
  readonly sets: readonly SetCursor[];
  readonly shares: readonly DrawnShare[];
  /** Samples drawn in this epoch of a mixture. */
  readonly samples: number;
}

/** The rows of a set in their order. */
class Drawing {
  readonly set: RowSet;
  /** Its number, which its orders depend on. */
  readonly #number: number;
  readonly #options: StreamedOptions;
  #order: { epoch: number; rows: Uint32Array } | undefined;
  epoch = 0;
  /** Place in the order of the next row that is not waiting. */
  at = 0;
  waiting: Waiting[] = [];
  /** Rows or tokens drawn. */
  drawn = 0;

  constructor(set: RowSet, number: number, options: StreamedOptions) {
    [this.set, this.#number, this.#options] = [set, number, options];
  }

  /** Whether all rows of this round have been drawn. */
  get isOver(): boolean {
    return this.waiting.length === 0 && this.at === this.set.count;
  }

  /** Lets samples wait, as long as there are rows. */
  refill(): void {
    while (this.waiting.length < LOOK_AHEAD && this.at < this.set.count) this.#take(this.#rowAt(this.at++));
  }

  begin(): void {
    this.at = 0;
    this.epoch++;
  }

  #rowAt(place: number): number {
    if (this.#order?.epoch !== this.epoch) {
      const { seed } = this.#options;
      this.#order = {
        epoch: this.epoch,
        rows: permutation(this.set.count, seed, this.epoch, this.#number),
      };
    }
    return this.#order.rows[place]!;
  }

  #take(row: number): void {
    this.#samplesOf(row).forEach((sample, piece) => this.waiting.push({ row, piece, sample }));
  }

  #samplesOf(row: number): readonly EncodedSample[] {
    const samples = this.#options.encode(this.set.row(row));
    if (samples.length > 0) checkFits(samples, this.#options.tokensPerBatch);
    return samples;
  }

  state(): SetCursor {
    const { epoch, at, drawn, waiting } = this;
    return { epoch, at, drawn, waiting: waiting.map(({ row, piece }) => [row, piece]) };
  }

  restore({ epoch, at, drawn, waiting }: SetCursor): void {
    [this.epoch, this.at, this.drawn] = [epoch, at, drawn];
    const read = new Map<number, readonly EncodedSample[]>();
    this.waiting = waiting.map(([row, piece]) => {
      if (!read.has(row)) read.set(row, this.#samplesOf(row));
      const sample = read.get(row)![piece];
      if (!sample) throw new InputError(`the data cursor is not valid: row ${row} has no piece ${piece}`);
      return { row, piece, sample };
    });
  }
}

/** See the module. */
export class StreamedBatches implements Batches {
  readonly #options: StreamedOptions;
  readonly #key: string;
  readonly #drawings: readonly Drawing[];
  readonly #weights: number;
  /** What a batch holds about, in rows or tokens: as much a set may get ahead. */
  readonly #batch: number;
  #shares: DrawnShare[];
  #epoch = 0;
  #index = 0;
  /** Rows of all sets. */
  readonly #rows: number;
  /** Samples drawn in this epoch of a mixture. */
  #epochSamples = 0;

  /** @param sets At least one has a row and a weight above 0 */
  constructor(sets: readonly RowSet[], options: StreamedOptions) {
    this.#options = options;
    const { tokensPerBatch, seed, by, encoding } = options;
    const names = sets.map(({ name }) => name).sort();
    const used = sets.filter(({ weight, count }) => weight > 0 && count > 0);
    this.#drawings = used
      .map((set) => ({ set, number: by ? names.indexOf(set.name) : 0 }))
      .sort((a, b) => a.number - b.number)
      .map(({ set, number }) => new Drawing(set, number, options));
    this.#weights = used.reduce((sum, { weight }) => sum + weight, 0);
    this.#rows = used.reduce((sum, { count }) => sum + count, 0);
    const mean = used.reduce((sum, { weight, meanLength }) => sum + weight / this.#weights * meanLength, 0);
    this.#batch = tokensPerBatch / (by === "tokens" ? 1 : mean);
    this.#shares = by ? sets.map(({ name }) => ({ name, samples: 0, tokens: 0, supervisedTokens: 0 })) : [];
    const what = sets.map(({ name, weight, count, identity }) => [name, by ? weight : 1, count, identity]);
    this.#key = createHash("sha256")
      .update(JSON.stringify(["streamed", tokensPerBatch, seed, by ?? null, what, encoding]))
      .digest("hex");
  }

  drawn(): DrawnShare[] {
    return this.#shares.map((share) => ({ ...share }));
  }

  next(): PackedBatch {
    const batch = this.#options.by ? this.#nextMixed() : this.#nextOf(this.#drawings[0]!);
    this.#index++;
    return packBatch(batch, this.#options.tokensPerBatch);
  }

  /** The next batch of one set: its first waiting sample, and those that still fit, in their order. */
  #nextOf(drawing: Drawing): EncodedSample[] {
    for (let rounds = 0;; rounds++) {
      drawing.refill();
      if (drawing.waiting.length > 0) break;
      if (rounds > 0) throw noSample(drawing);
      drawing.begin();
      this.#epoch = drawing.epoch;
      this.#index = 0;
    }
    const batch: EncodedSample[] = [];
    let room = this.#options.tokensPerBatch;
    for (let i = 0; i < drawing.waiting.length && room > 0;) {
      const { sample } = drawing.waiting[i]!;
      if (sampleLength(sample) > room) i++;
      else {
        room -= sampleLength(sample);
        batch.push(sample);
        drawing.waiting.splice(i, 1);
        drawing.refill();
      }
    }
    return batch;
  }

  #nextMixed(): EncodedSample[] {
    if (this.#epochSamples >= this.#rows) {
      this.#epoch++;
      this.#index = this.#epochSamples = 0;
    }
    const batch: EncodedSample[] = [];
    let room = this.#options.tokensPerBatch;
    for (let sample = this.#take(room); sample; sample = this.#take(room)) {
      batch.push(sample);
      room -= sampleLength(sample);
    }
    this.#epochSamples += batch.length;
    return batch;
  }

  /** As `Mixture` does: of the set that is furthest behind its share, or the next one where nothing of it fits. */
  #take(room: number): EncodedSample | undefined {
    for (const drawing of this.#drawings) refillRound(drawing);
    const behind = this.#drawings
      .map((drawing) => ({ drawing, lag: this.#lag(drawing) }))
      .sort((a, b) => a.lag - b.lag);
    for (const { drawing, lag } of behind) {
      if (lag - behind[0]!.lag > this.#batch) return undefined;
      const place = drawing.waiting.findIndex(({ sample }) => sampleLength(sample) <= room);
      if (place < 0) continue;
      const [{ sample }] = drawing.waiting.splice(place, 1) as [Waiting];
      drawing.drawn += this.#sizeOf(sample);
      this.#count(drawing.set.name, sample);
      return sample;
    }
    return undefined;
  }

  #lag({ drawn, waiting, set }: Drawing): number {
    return (drawn + this.#sizeOf(waiting[0]!.sample) / 2) / (set.weight / this.#weights);
  }

  #sizeOf(sample: EncodedSample): number {
    return this.#options.by === "rows" ? 1 : sampleLength(sample);
  }

  #count(name: string, sample: EncodedSample): void {
    const share = this.#shares.find((share) => share.name === name)!;
    share.samples++;
    share.tokens += sampleLength(sample);
    share.supervisedTokens += sample.supervised.reduce((sum, flag) => sum + flag, 0);
  }

  state(): DataCursor {
    const streamed: StreamedCursor = {
      sets: this.#drawings.map((drawing) => drawing.state()),
      shares: this.drawn(),
      samples: this.#epochSamples,
    };
    return { epoch: this.#epoch, index: this.#index, key: this.#key, streamed };
  }

  restore(state: DataCursor): void {
    const streamed = state.streamed as StreamedCursor | undefined;
    if (state.key !== this.#key || !streamed) throw otherStream();
    [this.#epoch, this.#index, this.#epochSamples] = [state.epoch, state.index, streamed.samples];
    this.#shares = streamed.shares.map((share) => ({ ...share }));
    this.#drawings.forEach((drawing, i) => drawing.restore(streamed.sets[i]!));
  }
}

/** A new round of a set begins when the one before is over, so that nothing is drawn twice before all is once. */
function refillRound(drawing: Drawing): void {
  if (drawing.isOver) drawing.begin();
  drawing.refill();
  if (drawing.waiting.length > 0) return;
  drawing.begin();
  drawing.refill();
  if (drawing.waiting.length === 0) throw noSample(drawing);
}

function noSample({ set: { name, count } }: Drawing): InputError {
  return new InputError(`no sample is left of the ${count} rows of ${name}: none has a token to predict`, {
    hint: "Raise data.contextLength, or look at the rows with `limbeck preview`.",
  });
}
