/**
 * What runs made, by the names that requests call it: `run:ID` is a run's student with all that was trained of it, `run:ID:step-N` the
 * same as of a checkpoint.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { exists } from "../formats/files.ts";
import type { RunStore, StoredCheckpoint, StoredRun } from "../runs/store/store.ts";

/** What a name stands for. */
export interface RunModel {
  /** Id of the run. */
  readonly run: string;
  /** Step of a checkpoint; the last one where it is absent. */
  readonly step?: number;
}

/** The name of a run's student, or of what it was after a step. */
export function runModelName(id: string, step?: number): string {
  return step === undefined ? `run:${id}` : `run:${id}:step-${step}`;
}

/** What a name stands for; undefined where it is none of a run. */
export function parseRunModel(name: string): RunModel | undefined {
  const match = /^run:([^:]+)(?::step-(\d{1,9}))?$/.exec(name);
  if (!match) return undefined;
  const [, run, step] = match;
  return { run: run!, ...(step === undefined ? {} : { step: Number(step) }) };
}

/** Checkpoints of a run that are on the disk, the oldest first: those that newer ones took the place of are gone. */
export async function keptCheckpoints(
  store: RunStore,
  { id, folder }: StoredRun,
): Promise<StoredCheckpoint[]> {
  const kept: StoredCheckpoint[] = [];
  for (const checkpoint of await store.checkpoints(id)) {
    if (await exists(join(folder, checkpoint.path))) kept.push(checkpoint);
  }
  return kept;
}
