/**
 * The answers of a server as they come, line by line, so that a kill loses none that was paid for.
 *
 * @module
 */
import { LineFile } from "../../served/line_file.ts";

/** What came of a sample. */
export interface JournalEntry {
  readonly hash: string;
  /** Rows of the cache, base64; absent once they are in it. */
  readonly rows?: string;
  /** Sum of the teacher's losses over the tokens that are measured, in nats; absent where it is not measured on it. */
  readonly loss?: number;
  /** Which tokens are: see `lossKey`. Absent in journals from before losses were kept of every sample. */
  readonly measured?: string;
}

/** A file of answers. Nobody else may write to it. What is kept is on the disk when a call returns. */
export class Journal {
  readonly #file: LineFile<JournalEntry>;
  readonly #entries: Map<string, JournalEntry>;

  /** Opens a file, which is made where it is not there. */
  constructor(path: string) {
    const { file, values } = LineFile.open<JournalEntry>(path);
    this.#file = file;
    this.#entries = new Map(values.map((entry) => [entry.hash, entry]));
  }

  /** What came of a sample. */
  get(hash: string): JournalEntry | undefined {
    return this.#entries.get(hash);
  }

  /** All that came, in its order. */
  entries(): JournalEntry[] {
    return [...this.#entries.values()];
  }

  /** Keeps an answer. @throws {DiskFullError} and those before it are kept */
  add(entry: JournalEntry): void {
    this.#file.append(entry);
    this.#entries.set(entry.hash, entry);
  }

  /** Forgets rows that are in the cache by now. */
  dropRows(isThere: (hash: string) => boolean): void {
    for (const [hash, { rows: _, ...entry }] of this.#entries) {
      if (!isThere(hash)) continue;
      if (entry.loss === undefined) this.#entries.delete(hash);
      else this.#entries.set(hash, entry);
    }
    this.#file.rewrite(this.#entries.values());
  }

  close(): void {
    this.#file.close();
  }
}
