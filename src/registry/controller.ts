/**
 * The contract of controllers: rules that set options of a loss from step to step by what the loss did.
 *
 * @module
 */
import type { Divergence } from "../losses/contract.ts";

/** What a controller remembers. Plain JSON, so that a checkpoint holds it and a resumed run goes on bit for bit. */
export type ControllerState = Readonly<Record<string, number | null>>;

/** A step that has been done, as a controller sees it. */
export interface ControlledStep {
  /** The loss, unweighted: the mean over its tokens in that step, in nats. Always finite. */
  readonly value: number;
  /** Means of what the controller measures over the same tokens, by id. Always finite. */
  readonly measured: Readonly<Record<string, number>>;
  /** Number of that step, from 0. */
  readonly step: number;
  /** Steps of the whole run. */
  readonly steps: number;
}

/**
 * Sets scheduled options of a loss. Every function is pure.
 *
 * With a controller the numbers of each step are read back before the next begins, which costs at least 10 ms a step.
 */
export interface Controller<Options = Record<string, unknown>> {
  /** The scheduled options that it sets. */
  readonly sets: readonly string[];
  /** Measured in training steps beside the loss, over its tokens, at temperature 1 and without options. */
  readonly measures?: readonly Divergence[];
  /** Its state before the first step; undefined where the options do not ask for a controller. */
  start(options: Options): ControllerState | undefined;
  /** Its state after a step. Left out after steps in which the loss had no tokens, or no finite value. */
  next(state: ControllerState, done: ControlledStep, options: Options): ControllerState;
  /** The options that it sets, for the step that follows. */
  values(state: ControllerState, options: Options): Readonly<Record<string, number>>;
  /** The options that it sets where held-out samples are measured: always the same, so that measurements can be compared. */
  heldOut(options: Options): Readonly<Record<string, number>>;
}
