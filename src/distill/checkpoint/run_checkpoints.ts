/**
 * The checkpoints of one run: the newest that can be continued from, and a few of the latest.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname, join } from "@std/path";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import {
  checkpointName,
  type CheckpointState,
  listCheckpoints,
  pruneCheckpoints,
  readCheckpoint,
  removeCheckpointsAfter,
  verifyCheckpoint,
  writeCheckpoint,
} from "./checkpoint.ts";
import { type FlatState } from "../trained/parameters.ts";
import type { Trainables } from "../trained/trainables.ts";

/** A run's folder of checkpoints. */
export class RunCheckpoints {
  readonly folder: string;
  readonly #trainables: Trainables;
  readonly #keep: number;
  readonly #onDamaged: (message: string) => void;

  /**
   * @param keep Latest checkpoints that are kept beside the best
   * @param onDamaged Told of each that is passed over
   */
  constructor(folder: string, trainables: Trainables, keep: number, onDamaged: (message: string) => void) {
    this.folder = folder;
    this.#trainables = trainables;
    this.#keep = keep;
    this.#onDamaged = onDamaged;
  }

  /**
   * The newest checkpoint that is whole.
   *
   * @param limit Later steps are passed over
   * @param identity What the run is made of, by name
   * @param later Names that are compared when they are known
   * @throws {InputError} if it belongs to a run of something else
   */
  async latest(
    limit: number,
    identity: Readonly<Record<string, string>>,
    later: readonly string[],
  ): Promise<CheckpointState | undefined> {
    for (const { path, step } of (await listCheckpoints(this.folder)).reverse()) {
      if (step > limit) continue;
      try {
        await verifyCheckpoint(path);
      } catch (error) {
        this.#onDamaged((error as Error).message);
        continue;
      }
      const state = JSON.parse(await system.readTextFile(join(path, "state.json"))) as CheckpointState;
      const names = new Set([...Object.keys(identity), ...Object.keys(state.identity)]);
      for (const name of later) names.delete(name);
      this.checkIdentity(state, identity, [...names]);
      return state;
    }
    return undefined;
  }

  /** @throws {InputError} if something of these names differs from what it was when the checkpoint was written */
  checkIdentity(
    state: CheckpointState,
    identity: Readonly<Record<string, string>>,
    names: readonly string[],
  ): void {
    const changed = names.filter((name) => state.identity[name] !== identity[name]);
    if (changed.length === 0) return;
    const [first, ...others] = changed;
    const hashes = others.length === 0
      ? ` (its hash was ${state.identity[first!] ?? "none"}, and is ${identity[first!] ?? "none"})`
      : "";
    throw new InputError(`cannot be resumed: changed since the checkpoint: ${changed.join(", ")}${hashes}`, {
      where: dirname(this.folder),
      hint: "Resume with the recipe, models and plugins the run began with, or start a new run.",
    });
  }

  /** What was trained up to a step. */
  async read(step: number): Promise<FlatState> {
    return (await readCheckpoint(join(this.folder, checkpointName(step)), this.#trainables)).flat;
  }

  /**
   * Writes a checkpoint, and removes those that are no longer among the latest.
   *
   * @returns its path
   * @throws {DiskFullError} and leaves earlier checkpoints as they were
   */
  async write(flat: FlatState, state: Omit<CheckpointState, "format">): Promise<string> {
    await system.mkdir(this.folder, { recursive: true });
    const path = await writeCheckpoint(this.folder, this.#trainables, flat, state);
    await pruneCheckpoints(this.folder, this.#keep, state.progress.best?.step);
    return path;
  }

  /** Removes those of later steps. */
  async removeAfter(step: number): Promise<void> {
    await removeCheckpointsAfter(this.folder, step);
  }
}
