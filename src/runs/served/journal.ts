/**
 * The answers of a server as they come, line by line, so that a kill loses none that was paid for.
 *
 * @module
 */

/** What came of a sample. */
export interface JournalEntry {
  readonly hash: string;
  /** Rows of the cache, base64; absent once they are in it. */
  readonly rows?: string;
  /** Sum of the teacher's losses over the tokens that are measured, in nats; absent where it is not measured on it. */
  readonly loss?: number;
}

/** A file of answers. Nobody else may write to it. What is written is on the disk when a call returns. */
export class Journal {
  readonly #path: string;
  readonly #entries: Map<string, JournalEntry>;
  #file: Deno.FsFile;

  private constructor(path: string, entries: Map<string, JournalEntry>) {
    [this.#path, this.#entries] = [path, entries];
    this.#file = this.#rewrite();
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
    return new Journal(path, entries);
  }

  /** What came of a sample. */
  get(hash: string): JournalEntry | undefined {
    return this.#entries.get(hash);
  }

  /** All that came, in its order. */
  entries(): JournalEntry[] {
    return [...this.#entries.values()];
  }

  /** Keeps an answer. */
  add(entry: JournalEntry): void {
    this.#entries.set(entry.hash, entry);
    write(this.#file, JSON.stringify(entry) + "\n");
  }

  /** Forgets rows that are in the cache by now. */
  dropRows(isThere: (hash: string) => boolean): void {
    for (const [hash, { rows: _, ...entry }] of this.#entries) {
      if (!isThere(hash)) continue;
      if (entry.loss === undefined) this.#entries.delete(hash);
      else this.#entries.set(hash, entry);
    }
    this.#file.close();
    this.#file = this.#rewrite();
  }

  /** Writes all entries anew, whole or not at all: between two answers, so none may come meanwhile. */
  #rewrite(): Deno.FsFile {
    const temporary = `${this.#path}.tmp`;
    {
      using file = Deno.openSync(temporary, { write: true, create: true, truncate: true });
      write(file, [...this.#entries.values()].map((entry) => JSON.stringify(entry) + "\n").join(""));
    }
    Deno.renameSync(temporary, this.#path);
    return Deno.openSync(this.#path, { append: true });
  }

  close(): void {
    this.#file.close();
  }
}

function write(file: Deno.FsFile, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  file.syncDataSync();
}
