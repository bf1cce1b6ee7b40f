/**
 * What a training process prints, kept beside its run.
 *
 * @module
 */

/** Most bytes that one attempt may add: a process that prints without end must not fill the disk. */
const MOST_BYTES = 4 << 20;

/** A file that takes text until it is full and never fails: losing console output must not end a run. */
export class ConsoleFile {
  readonly #file: Deno.FsFile;
  #left = MOST_BYTES;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** Opens the file at its end and marks the beginning of an attempt. */
  static async open(path: string, attempt: number): Promise<ConsoleFile> {
    const output = new ConsoleFile(await Deno.open(path, { append: true, create: true }));
    output.write(`--- attempt ${attempt}, ${new Date().toISOString()}\n`);
    return output;
  }

  /** Adds text. */
  write(text: string | Uint8Array): void {
    const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
    const kept = bytes.subarray(0, this.#left);
    this.#left -= kept.length;
    try {
      for (let done = 0; done < kept.length;) done += this.#file.writeSync(kept.subarray(done));
    } catch {
      this.#left = 0;
    }
  }

  close(): void {
    this.#file.close();
  }
}
