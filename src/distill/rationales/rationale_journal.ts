/**
 * Texts that have come of a set of rationales, kept one by one until all are there: a kill loses none, and none is asked for twice.
 *
 * @module
 */
import { type OpenFile, system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { canonicalJson, isObject } from "../../base/json.ts";
import { unreadable, unwritable } from "../../formats/files.ts";
import { LineFile } from "../../served/line_file.ts";
import type { RationaleText } from "./rationale_rows.ts";

/** What texts depend on beside their prompts, by name. */
export type AuthorSettings = Readonly<Record<string, string | number | boolean>>;

/** First line of the file. */
interface Head {
  readonly rationales: 1;
  readonly settings: AuthorSettings;
}

/** A text: the key of its prompt, which of the texts of that prompt it is, and it. */
interface Entry extends RationaleText {
  readonly key: string;
  readonly n: number;
}

/** The file. It is this process's alone while it is open. */
export class RationaleJournal {
  readonly path: string;
  readonly #lines: LineFile<Head | Entry>;
  readonly #lock: OpenFile;
  readonly #texts: Map<string, RationaleText>;

  private constructor(
    path: string,
    lines: LineFile<Head | Entry>,
    lock: OpenFile,
    texts: Map<string, RationaleText>,
  ) {
    [this.path, this.#lines, this.#lock, this.#texts] = [path, lines, lock, texts];
  }

  /**
   * Opens the file, or begins it. A last line that a kill has cut is taken away.
   *
   * @throws {InputError} it was begun with other settings, another process has it open, or it is no such file
   */
  static async open(path: string, settings: AuthorSettings): Promise<RationaleJournal> {
    await checkHead(path, settings);
    const lock = await system.open(path, { write: true, create: true }).catch((error) => {
      throw unwritable(path, error);
    });
    try {
      // Some file systems know no locks.
      if (!await lock.tryLock(true).catch(() => true)) {
        throw new InputError("another process is writing it", {
          where: path,
          hint: "Let it end, or choose another --output.",
        });
      }
      const { file, values } = linesOf(path);
      const texts = new Map<string, RationaleText>();
      for (const value of values) {
        if ("key" in value) {
          texts.set(`${value.key} ${value.n}`, { text: value.text, finished: value.finished });
        }
      }
      if (values.length === 0) file.append({ rationales: 1, settings });
      return new RationaleJournal(path, file, lock, texts);
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  /** A text, if it has come. */
  text(key: string, n: number): RationaleText | undefined {
    return this.#texts.get(`${key} ${n}`);
  }

  /** Keeps a text: it is on the disk when this returns. @throws {DiskFullError} */
  keep(key: string, n: number, { text, finished }: RationaleText): void {
    this.#lines.append({ key, n, text, finished });
    this.#texts.set(`${key} ${n}`, { text, finished });
  }

  close(): void {
    this.#lines.close();
    this.#lock.close();
  }
}

function linesOf(path: string): { file: LineFile<Head | Entry>; values: (Head | Entry)[] } {
  try {
    return LineFile.open<Head | Entry>(path);
  } catch (error) {
    if (error instanceof SyntaxError) throw foreign(path, "has a line that is no JSON");
    throw unwritable(path, error);
  }
}

/** Looks at a file before anything of it is changed. */
async function checkHead(path: string, settings: AuthorSettings): Promise<void> {
  const text = await system.readTextFile(path).catch((error) => {
    if (error instanceof system.errors.NotFound) return "";
    throw unreadable(path, error);
  });
  const end = text.indexOf("\n");
  const beginning = `{"rationales":1,`;
  if (!text.startsWith(beginning.slice(0, text.length))) throw foreign(path, "was not begun by this command");
  // Killed before the first line was whole.
  if (end < 0) return;
  let head: unknown;
  try {
    head = JSON.parse(text.slice(0, end));
  } catch {
    // Told below.
  }
  if (!isObject(head) || !isObject(head.settings)) throw foreign(path, "was not begun by this command");
  const before = head.settings;
  const shown = (value: unknown) => value === undefined ? "none" : JSON.stringify(value);
  const other = [...new Set([...Object.keys(before), ...Object.keys(settings)])]
    .filter((name) => canonicalJson(before[name] ?? null) !== canonicalJson(settings[name] ?? null))
    .map((name) => `${name} ${shown(before[name])}, not ${shown(settings[name])}`);
  if (other.length > 0) {
    throw new InputError(`was begun with ${other.join("; ")}`, {
      where: path,
      hint: "Go on with what it was begun with, or remove the file to begin anew.",
    });
  }
}

function foreign(path: string, what: string): InputError {
  return new InputError(what, {
    where: path,
    hint: "Texts are kept there until all have come: move the file away, or choose another --output.",
  });
}
