/**
 * What a library's program offers to the runner and to the check.
 *
 * @module
 */
import type { StepCase } from "./case.ts";

/** Values by adapter name. */
export type AdapterValues = Map<string, Float32Array<ArrayBuffer>>;

/** A training program written with one library, its parameters on the GPU. */
export interface Peer {
  /** One whole step; resolves when the GPU has ended it, to the loss before the update. */
  step(): Promise<number>;
  /** The loss and the gradients before clipping, without an update. */
  gradients(): Promise<{ loss: number; gradients: AdapterValues }>;
  /** The adapter as it stands. */
  parameters(): Promise<AdapterValues>;
}

/** Loads a case's model and makes its program. */
export type CreatePeer = (stepCase: StepCase) => Promise<Peer>;
