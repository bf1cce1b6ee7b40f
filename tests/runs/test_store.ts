/** Stores of temporary folders: one for each folder, closed by whoever removes it. */
import { openStore } from "../../src/runs/store/data_folder.ts";
import type { Store } from "../../src/runs/store/store.ts";

const stores = new Map<string, Store>();

/** The store of a folder, opened once. */
export function testStore(folder: string): Store {
  let store = stores.get(folder);
  if (!store) stores.set(folder, store = openStore(folder));
  return store;
}

/** Closes the store of a folder, if one was opened. */
export function closeTestStore(folder: string): void {
  stores.get(folder)?.close();
  stores.delete(folder);
}
