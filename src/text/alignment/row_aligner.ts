/**
 * Rows of a dataset in the tokens of a second tokenizer, one after another; what cannot be aligned is gathered, to be told together.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DatasetRow } from "../dataset.ts";
import type { EncodedSample, OtherEncoding, SampleAlignment } from "../encode.ts";
import { type AlignBy, alignRow, type SideEncoding, SpellingError } from "./aligned_sample.ts";

/** How rows are aligned. */
export interface AlignmentOptions {
  readonly by: AlignBy;
  /** What becomes of rows whose bytes the two tokenizers do not spell alike. */
  readonly unlike: "refuse" | "skip";
  /** Most tokens of a sample in the second encoding. */
  readonly limit: number;
}

/** Lines of an error that names many rows. */
const SHOWN = 10;

/** Aligns the rows of one dataset. */
export class RowAligner implements SampleAlignment {
  /** Rows left out so far, because they cannot be aligned. */
  unlike = 0;
  readonly #first: SideEncoding;
  readonly #second: SideEncoding;
  readonly #options: AlignmentOptions;
  readonly #problems: SpellingError[] = [];

  constructor(first: SideEncoding, second: SideEncoding, options: AlignmentOptions) {
    [this.#first, this.#second, this.#options] = [first, second, options];
  }

  get limit(): number {
    return this.#options.limit;
  }

  align(row: DatasetRow, whole: EncodedSample): OtherEncoding | undefined {
    try {
      return alignRow(row, whole, this.#first, this.#second, this.#options.by);
    } catch (error) {
      if (!(error instanceof SpellingError)) throw error;
      this.unlike++;
      if (this.#problems.length < SHOWN) this.#problems.push(error);
      return undefined;
    }
  }

  /** @throws {InputError} naming the first rows that could not be aligned, unless such rows are left out */
  check(): void {
    const [first] = this.#problems;
    if (this.#options.unlike === "skip" || !first) return;
    if (this.unlike === 1) throw first;
    const lines = this.#problems.map((problem) => `${problem.where}: ${problem.message}`);
    if (this.unlike > lines.length) lines.push(`and ${this.unlike - lines.length} more`);
    throw new InputError(
      [`${this.unlike} rows cannot be aligned with the teacher's tokens:`, ...lines].join("\n  "),
      first.hint === undefined ? {} : { hint: first.hint },
    );
  }
}
