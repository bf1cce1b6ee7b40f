/// <reference types="../../types/browser.d.ts" />
/**
 * Files that a tab keeps between its lives, in its IndexedDB. A file is an entry under its path, and so is a folder, so that giving a whole
 * folder another name is one transaction: a tab that is killed in the middle has the old one or the new.
 *
 * @module
 */

/** A file, or a folder, which has no content. */
export interface Entry {
  readonly content?: Blob;
  /** Milliseconds since 1970. */
  readonly modified: number;
}

const FILES = "files";
const EVENTS = "events";

/** What the tab keeps. */
export class KeptFiles {
  readonly #database: IDBDatabase;

  private constructor(database: IDBDatabase) {
    this.#database = database;
  }

  /** Opens it, or makes an empty one. */
  static async open(name = "limbeck"): Promise<KeptFiles> {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(FILES);
      request.result.createObjectStore(EVENTS);
    };
    return new KeptFiles(await answer(request));
  }

  async get(path: string): Promise<Entry | undefined> {
    return await answer(this.#reading().get(path));
  }

  /** Names of what lies in a folder. */
  async list(folder: string): Promise<string[]> {
    const begin = folder === "/" ? "/" : `${folder}/`;
    const paths = await answer(this.#reading().getAllKeys(within(begin))) as string[];
    return paths.map((path) => path.slice(begin.length)).filter((name) => name !== "" && !name.includes("/"));
  }

  /** Writes entries: all of them or none. */
  async put(entries: readonly (readonly [path: string, entry: Entry])[]): Promise<void> {
    await this.#write((store) => entries.forEach(([path, entry]) => store.put(entry, path)));
  }

  /** Removes what has a path, and with a folder all that lies in it. */
  async remove(path: string): Promise<void> {
    await this.#write((store) => {
      store.delete(path);
      store.delete(within(`${path}/`));
    });
  }

  /** Moves what has a path, and with a folder all that lies in it, to another, where it takes the place of what was there. */
  async rename(from: string, to: string): Promise<void> {
    await this.#write((store) => {
      store.delete(to);
      store.delete(within(`${to}/`));
      const move = (request: IDBRequest<IDBCursor | null>) => {
        request.onsuccess = () => {
          const cursor = request.result;
          if (!cursor) return;
          store.put(cursor.value, to + (cursor.key as string).slice(from.length));
          cursor.delete();
          cursor.continue();
        };
      };
      move(store.openCursor(IDBKeyRange.only(from)));
      move(store.openCursor(within(`${from}/`)));
    });
  }

  /** Adds an event to those of a run. They are kept in the order in which this is called, and before files that are written later. */
  async addEvent(run: string, event: unknown): Promise<void> {
    const transaction = this.#database.transaction([EVENTS, FILES], "readwrite");
    const store = transaction.objectStore(EVENTS);
    const last = store.openKeyCursor(eventsOf(run), "prev");
    last.onsuccess = () => {
      const number = last.result ? (last.result.key as [string, number])[1] + 1 : 1;
      store.put(event, [run, number]);
    };
    await ended(transaction);
  }

  /** The events of a run, in their order. */
  async events(run: string): Promise<unknown[]> {
    return await answer(this.#database.transaction(EVENTS).objectStore(EVENTS).getAll(eventsOf(run)));
  }

  async removeEvents(run: string): Promise<void> {
    const transaction = this.#database.transaction(EVENTS, "readwrite");
    transaction.objectStore(EVENTS).delete(eventsOf(run));
    await ended(transaction);
  }

  close(): void {
    this.#database.close();
  }

  #reading(): IDBObjectStore {
    return this.#database.transaction(FILES).objectStore(FILES);
  }

  async #write(work: (store: IDBObjectStore) => void): Promise<void> {
    // On the disk when it is done, not only on its way there.
    const transaction = this.#database.transaction(FILES, "readwrite", { durability: "strict" });
    work(transaction.objectStore(FILES));
    await ended(transaction);
  }
}

/** All keys that begin so. */
function within(begin: string): IDBKeyRange {
  return IDBKeyRange.bound(begin, `${begin}\uffff`);
}

function eventsOf(run: string): IDBKeyRange {
  return IDBKeyRange.bound([run, 0], [run, Infinity]);
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(told(request.error));
  });
}

function ended(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(told(transaction.error));
  });
}

/** What a full disk is called on other systems, so that it is told in the same words. */
function told(error: DOMException | null): Error {
  const { name, message } = error ?? new DOMException("the browser gave up", "AbortError");
  return name === "QuotaExceededError"
    ? Object.assign(new Error(message || "the browser keeps no more for this page"), { code: "ENOSPC" })
    : new Error(`the browser's storage: ${name}: ${message}`);
}
