/**
 * What can be asked of a run, in whatever state it is.
 *
 * @module
 */
import { settle } from "./run_folder.ts";
import type { RunRequest, Store, StoredRun } from "./store.ts";

/**
 * Asks something of whoever works on a run. One that nobody works on is cancelled at once.
 *
 * @throws {RunStateError} it makes no sense in its state
 */
export async function askOfRun(store: Store, found: StoredRun, request: RunRequest): Promise<void> {
  // One whose worker was killed is still said to run.
  const { id, state, attempt } = await settle(store, found);
  if (request !== "cancel" || state === "running") return await store.ask(id, request);
  await store.append(id, attempt, [{ type: "state", state: "cancelled" }]);
}
