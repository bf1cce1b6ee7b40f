/**
 * The bytes of a cached row: what is kept of the teacher at one position.
 *
 * Of the largest logits: for each temperature what the other tokens weigh (f32); the K logits, how far below the largest, in f16 or
 * f32; their ids. Of samples: how often each token came up (u16), and the ids. Ids are u16 where the vocabulary allows, else u32.
 * A row is padded to a multiple of four bytes.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { float32ToHalf, halfToNumber } from "../../formats/dtype.ts";
import { type RowArrays, rowInputs } from "../program/fed/teacher_rows.ts";
import { EMPTY_TAIL, NO_TOKEN, type SparseTarget } from "../../losses/sparse_target.ts";
import type { RowFeed, RowStorage } from "./row_storage.ts";

/** How rows are stored. */
export interface RowFormat {
  readonly target: SparseTarget;
  /** Of the K logits. */
  readonly precision: "f16" | "f32";
  readonly vocabulary: number;
}

/** A row as the GPU gives it. */
export interface TeacherRow {
  readonly ids: Uint32Array;
  /** The K logits; of samples how often each token came up. */
  readonly values: Float32Array | Uint32Array;
  /** One for each temperature; empty for samples. */
  readonly tails: ArrayLike<number>;
}

/** Stands for a token that is not there, in rows of u16 ids. */
const NO_SHORT_TOKEN = 0xffff;

/** Writes and reads rows. */
export class RowCodec implements RowStorage {
  readonly format: RowFormat;
  /** Bytes of a row. */
  readonly bytes: number;
  readonly #shortIds: boolean;
  readonly #halves: boolean;

  constructor(format: RowFormat) {
    this.format = format;
    const { target: { kind, entries, temperatures }, precision, vocabulary } = format;
    this.#shortIds = vocabulary < NO_SHORT_TOKEN;
    this.#halves = kind === "samples" || precision === "f16";
    const own = 4 * temperatures.length + entries * ((this.#halves ? 2 : 4) + (this.#shortIds ? 2 : 4));
    this.bytes = Math.ceil(own / 4) * 4;
  }

  /**
   * Writes a row at a byte of `into`, a multiple of four.
   *
   * @returns whether all its numbers can be used: finite, or a logit of -infinity
   */
  write(row: TeacherRow, into: ArrayBuffer, at: number): boolean {
    const { kind, entries, temperatures } = this.format.target;
    let good = true;
    temperatures.forEach((_, c) => {
      const tail = row.tails[c]!;
      new Float32Array(into, at + 4 * c, 1)[0] = tail;
      good &&= Number.isFinite(tail);
    });
    at += 4 * temperatures.length;
    if (kind === "samples") {
      new Uint16Array(into, at, entries).set(row.values);
    } else {
      const highest = row.values[0]!;
      good &&= Number.isFinite(highest);
      const below = Float32Array.from(row.values, (z) => z - highest);
      good &&= below.every((z) => z <= 0);
      if (this.#halves) new Uint16Array(into, at, entries).set(float32ToHalf(below));
      else new Float32Array(into, at, entries).set(below);
    }
    at += entries * (this.#halves ? 2 : 4);
    const { vocabulary } = this.format;
    if (kind === "top-k") good &&= row.ids.every((id) => id < vocabulary);
    else good &&= row.ids[0]! < vocabulary;
    // A Uint16Array keeps the low bits of NO_TOKEN, which are NO_SHORT_TOKEN.
    if (this.#shortIds) new Uint16Array(into, at, entries).set(row.ids);
    else new Uint32Array(into, at, entries).set(row.ids);
    return good;
  }

  /** Reads the row at a byte of `from` into the arrays' row `position`. */
  read(from: ArrayBuffer, at: number, to: RowArrays, position: number): void {
    const { target: { kind, entries, temperatures } } = this.format;
    const [first, columns] = [position * entries, temperatures.length];
    to.tails.set(new Float32Array(from, at, columns), position * columns);
    at += 4 * columns;
    if (kind === "samples") {
      const counts = new Uint16Array(from, at, entries);
      const total = counts.reduce((a, b) => a + b, 0);
      counts.forEach((count, k) => to.logits[first + k] = count === 0 ? EMPTY_TAIL : Math.log(count / total));
    } else if (this.#halves) {
      new Uint16Array(from, at, entries).forEach((half, k) => to.logits[first + k] = halfToNumber(half));
    } else {
      to.logits.set(new Float32Array(from, at, entries), first);
    }
    at += entries * (this.#halves ? 2 : 4);
    const ids = this.#shortIds ? new Uint16Array(from, at, entries) : new Uint32Array(from, at, entries);
    const none = this.#shortIds ? NO_SHORT_TOKEN : NO_TOKEN;
    for (let k = 0; k < entries; k++) {
      const id = ids[k]!;
      if (id >= this.format.vocabulary && id !== none) throw this.#unknownToken(id);
      to.ids[first + k] = id === none ? NO_TOKEN : id;
    }
  }

  #unknownToken(id: number): InputError {
    const { vocabulary } = this.format;
    return new InputError(`a stored row names token ${id}, but the vocabulary has ${vocabulary}`, {
      where: "the teacher's cache",
      hint: "Whatever wrote it has another vocabulary: remove the cache, and it is made again.",
    });
  }

  feed(positions: number): RowFeed {
    const to = this.arrays(positions);
    return { inputs: rowInputs(to), read: (from, at, position) => this.read(from, at, to, position) };
  }

  /** Arrays for a batch of some positions; no position has a row yet. */
  arrays(positions: number): RowArrays {
    const { entries, temperatures } = this.format.target;
    return {
      ids: new Uint32Array(positions * entries).fill(NO_TOKEN),
      logits: new Float32Array(positions * entries).fill(EMPTY_TAIL),
      tails: new Float32Array(positions * temperatures.length).fill(EMPTY_TAIL),
    };
  }
}
