/** What a tab has and Deno has not, as far as `src/tab` uses it (W3C Indexed Database API 3.0, Storage, File API). */

interface IDBRequest<T = unknown> {
  readonly result: T;
  readonly error: DOMException | null;
  onsuccess: (() => void) | null;
  onerror: (() => void) | null;
  onupgradeneeded: (() => void) | null;
}

interface IDBCursor {
  readonly key: IDBValidKey;
  /** Of a cursor over values. */
  readonly value: unknown;
  delete(): IDBRequest;
  continue(): void;
}

type IDBValidKey = string | readonly (string | number)[];

interface IDBObjectStore {
  // deno-lint-ignore no-explicit-any
  get(key: IDBValidKey): IDBRequest<any>;
  getAll(range: IDBKeyRange): IDBRequest<unknown[]>;
  getAllKeys(range: IDBKeyRange): IDBRequest<IDBValidKey[]>;
  put(value: unknown, key: IDBValidKey): IDBRequest;
  delete(key: IDBValidKey | IDBKeyRange): IDBRequest;
  openCursor(range: IDBKeyRange): IDBRequest<IDBCursor | null>;
  openKeyCursor(range: IDBKeyRange, direction: "prev"): IDBRequest<IDBCursor | null>;
}

interface IDBTransaction {
  readonly error: DOMException | null;
  objectStore(name: string): IDBObjectStore;
  oncomplete: (() => void) | null;
  onabort: (() => void) | null;
}

interface IDBDatabase {
  createObjectStore(name: string): IDBObjectStore;
  transaction(
    names: string | readonly string[],
    mode?: "readonly" | "readwrite",
    options?: { durability: "strict" | "relaxed" },
  ): IDBTransaction;
  close(): void;
}

interface IDBKeyRange {
  readonly lower: unknown;
}

// deno-lint-ignore no-var
declare var IDBKeyRange: {
  only(key: IDBValidKey): IDBKeyRange;
  bound(lower: IDBValidKey, upper: IDBValidKey): IDBKeyRange;
};

// deno-lint-ignore no-var
declare var indexedDB: { open(name: string, version: number): IDBRequest<IDBDatabase> };

/** Workers alone have it. */
// deno-lint-ignore no-var
declare var FileReaderSync: { new (): { readAsArrayBuffer(blob: Blob): ArrayBuffer } } | undefined;

interface Navigator {
  readonly storage: {
    estimate(): Promise<{ quota?: number; usage?: number }>;
    persist(): Promise<boolean>;
  };
  readonly locks: {
    request<T>(
      name: string,
      options: { ifAvailable: boolean },
      use: (lock: { name: string } | null) => Promise<T>,
    ): Promise<T>;
  };
}
