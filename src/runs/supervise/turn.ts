/**
 * One run at a time on a GPU: whoever wants it stands in line by age, in a terminal or with a service, and waits for the lease.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { servedTeachers } from "../../distill/recipe/teachers.ts";
import { serviceLock } from "../store/layout.ts";
import { isFileLocked, isLocked, lockFile } from "../store/run_lock.ts";
import { DEFAULT_GPU, type Store, type StoredRun } from "../store/store.ts";
import { isTask, needsGpu } from "../task/run_recipe.ts";

/** Looked at so often for locks that were let go, which no store tells of; milliseconds. */
const LOOK_MS = 500;

/** How to wait. */
export interface WaitOptions {
  /** Told the run, or other user, that has the GPU or is to have it first; once for each. */
  onWait?: (holder: string) => Promise<void>;
  /** Whether there is no more reason to wait. */
  gaveUp?: () => boolean;
}

/**
 * Waits until a queued run may use the GPU.
 *
 * @param run a run whose lock this process holds
 * @returns false when it is no longer queued, or the wait was given up
 */
export async function waitForTurn(
  store: Store,
  run: Pick<StoredRun, "id" | "folder">,
  { onWait, gaveUp }: WaitOptions = {},
): Promise<boolean> {
  let told: string | undefined;
  for (;;) {
    if (gaveUp?.() || (await store.get(run.id))?.state !== "queued") return false;
    const holder = await firstInLine(store, run.id) ??
      await takeGpu(store, run.id, lockFile(run.folder));
    if (holder === undefined) return true;
    if (holder !== told) await onWait?.(holder);
    told = holder;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** Whether a run waits for what a server says of its data, and not yet for the GPU. */
function asksServer({ recipe, folder }: StoredRun): boolean {
  return !isTask(recipe) && servedTeachers(recipe.teacher).length > 0 && isFileLocked(askingLock(folder));
}

/** The file whose lock tells that a run's supervisor asks the server that a teacher of it is behind. */
export function askingLock(folder: string): string {
  return join(folder, "asking.lock");
}

/** The oldest queued run for which someone waits, unless it is `id`. */
export async function firstInLine(store: Store, id?: string): Promise<string | undefined> {
  for (const run of await store.queued()) {
    if (run.id === id) return undefined;
    if (!needsGpu(run.recipe) || asksServer(run)) continue;
    if (isLocked(run.folder)) return run.id;
    if (run.worker === "service" && isFileLocked(serviceLock(store))) return run.id;
  }
  return undefined;
}

/**
 * Takes the GPU for whoever holds the lock of a file.
 *
 * @returns who else has it and lives; undefined when it is ours
 */
export async function takeGpu(store: Store, holder: string, lock: string): Promise<string | undefined> {
  return (await store.lease(DEFAULT_GPU, { holder, lock }, (other) => isFileLocked(other.lock)))?.holder;
}
