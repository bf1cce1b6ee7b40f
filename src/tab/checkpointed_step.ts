/**
 * How far a run has come that a tab keeps.
 *
 * @module
 */
import { listCheckpoints } from "../distill/checkpoint/checkpoint.ts";

/** Steps that the newest checkpoint in a run's folder holds; 0 where there is none. */
export async function checkpointedStep(folder: string): Promise<number> {
  return (await listCheckpoints(`${folder}/checkpoints`)).at(-1)?.step ?? 0;
}
