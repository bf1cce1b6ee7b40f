/**
 * The answers of a server as they come, line by line, so that a kill loses none that was paid for.
 *
 * @module
 */
import { writeTextAtomically } from "../../formats/files.ts";

/** What came of a sample. */
export interface JournalEntry {
  readonly hash: string;
  /** Rows of the cache, base64; absent once they are in it. */
  readonly rows?: string;
  /** Sum of the teacher's losses over the tokens that are measured, in nats; absent where it is not measured on it. */
  readonly loss?: number;
}

/** A file of answers. Nobody else may write to it. */
export class Journal {
  readonly #path: string;
  readonly #entries: Map<string, JournalEntry>;
  #file: Deno.FsFile;

  private constructor(path: string, entries: Map<string, JournalEntry>, file: Deno.FsFile) {
    [this.#path, this.#entries, this.#file] = [path, entries, file];
  }

  /** Opens a file, which is made where it is not there. A last line that a kill has cut is left out. */
  static async open(path: string): Promise<Journal> {
    let text = "";
    try {
      text = await Deno.readTextFile(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    const entries = new Map<string, JournalEntry>();
    for (const line of text.slice(0, text.lastIndexOf("\n") + 1).split("\n")) {
      if (line === "") continue;
      const entry = JSON.parse(line) as JournalEntry;
      entries.set(entry.hash, entry);
    }
    const journal = new Journal(path, entries, undefined as unknown as Deno.FsFile);
    await journal.#rewrite();
    return journal;
  }

  /** What came of a sample. */
  get(hash: string): JournalEntry | undefined {
    return this.#entries.get(hash);
  }

  /** All that came, in its order. */
  entries(): IterableIterator<JournalEntry> {
    return this.#entries.values();
  }

  /** Keeps an answer, flushed to the disk. */
  add(entry: JournalEntry): void {
    this.#entries.set(entry.hash, entry);
    const bytes = new TextEncoder().encode(JSON.stringify(entry) + "\n");
    for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    this.#file.syncDataSync();
  }

  /** Forgets the rows, which are in the cache now. */
  async dropRows(): Promise<void> {
    for (const [hash, { rows: _, ...entry }] of this.#entries) {
      if (entry.loss === undefined) this.#entries.delete(hash);
      else this.#entries.set(hash, entry);
    }
    this.#file.close();
    await this.#rewrite();
  }

  async #rewrite(): Promise<void> {
    const lines = [...this.#entries.values()].map((entry) => JSON.stringify(entry) + "\n");
    await writeTextAtomically(this.#path, lines.join(""));
    this.#file = await Deno.open(this.#path, { append: true });
  }

  close(): void {
    this.#file.close();
  }
}
