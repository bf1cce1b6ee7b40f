/**
 * The entry of a training process. A generated module imports it together with the run's plugins.
 *
 * @module
 */
import { LimbeckError } from "../errors.ts";
import { runChild } from "./child_host.ts";

/**
 * Trains, and ends the process.
 *
 * @param plugins the plugin modules as imported
 */
export function runTrainer(plugins: readonly object[]): Promise<never> {
  return runChild(
    () => Promise.reject(new LimbeckError("the trainer is not linked into the training process yet")),
    () => plugins,
  );
}
