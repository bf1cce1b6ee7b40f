/**
 * Where things lie in a data folder, whichever store keeps its runs.
 *
 * ```
 * limbeck-data/
 *   runs/<id>/       what each run made           files/           what was uploaded
 *   evaluations/     what was measured of shapes     teacher-caches/  what is kept of teachers
 *   tuned/           what devices chose among kernels
 *   service.lock     locked by the service        inference.lock   locked while a model is tried
 * ```
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";

/** The data folder of a store. */
type DataFolder = { readonly folder: string };

/** Folder of a run whose recipe names none. */
export function runFolder({ folder }: DataFolder, id: string): string {
  return join(folder, "runs", id);
}

/** Locked by the service that works on the runs of a data folder. */
export function serviceLock({ folder }: DataFolder): string {
  return join(folder, "service.lock");
}

/** Locked by the process in whose service a model is tried. */
export function inferenceLock({ folder }: DataFolder): string {
  return join(folder, "inference.lock");
}

/** Folder of what was uploaded. */
export function uploadFolder({ folder }: DataFolder): string {
  return join(folder, "files");
}

/** Folder of what is kept of teachers ahead of runs. */
export function cachesFolder({ folder }: DataFolder): string {
  return join(folder, "teacher-caches");
}

/** Folder of what was measured of shapes, which all shrinks of a data folder share. */
export function evaluationsFolder({ folder }: DataFolder): string {
  return join(folder, "evaluations");
}

/** Folder of what devices have chosen among kernels. */
export function tunedFolder({ folder }: DataFolder): string {
  return join(folder, "tuned");
}
