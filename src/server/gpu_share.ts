/**
 * Who has the GPU when a model is tried: between runs the process that writes takes the same lease as a run; where the operator says so,
 * it shares the GPU with a run, whose memory is bounded then.
 *
 * @module
 */
import type { InferenceEvent } from "../runs/child/inference.ts";
import { GpuBusyError, InferencePool } from "../runs/supervise/inference_pool.ts";
import { inferenceLock } from "../runs/store/layout.ts";
import { acquireLock } from "../runs/store/run_lock.ts";
import { DEFAULT_GPU, type Store } from "../runs/store/store.ts";
import { firstInLine, takeGpu } from "../runs/supervise/turn.ts";
import type { TunedDevice } from "../tune/tuned.ts";

/** Holder of the lease while a model is tried. */
const HOLDER = "a model that is tried";

/** How models are tried. */
export interface GpuShareOptions {
  readonly store: Store;
  /** Whether they are tried while a run has the GPU too. */
  readonly besideRuns: boolean;
  /** What devices have chosen among kernels. */
  readonly tuned?: () => Promise<readonly TunedDevice[]>;
  readonly idleSeconds?: number;
}

/** A pool that takes the GPU's lease for its process, and gives it up to a run that waits. */
export class SharedInference extends InferencePool {
  readonly #store: Store;
  readonly #besideRuns: boolean;
  readonly #listening: Disposable | undefined;

  constructor({ store, besideRuns, tuned, idleSeconds }: GpuShareOptions) {
    super({
      ...(besideRuns ? {} : { acquire: () => acquire(store) }),
      ...(tuned ? { tuned } : {}),
      ...(idleSeconds === undefined ? {} : { idleSeconds }),
    });
    this.#store = store;
    this.#besideRuns = besideRuns;
    this.#listening = besideRuns ? undefined : store.onChange(() => void this.#makeWay());
  }

  /**
   * What was asked for before a run began to wait is written first; what comes later is refused until the run has had the GPU. Otherwise
   * those who ask again and again would keep it from the run for as long as they like.
   */
  override async *generate(
    ...[key, model, request, signal]: Parameters<InferencePool["generate"]>
  ): AsyncGenerator<InferenceEvent> {
    if (!this.#besideRuns) {
      const waiting = await firstInLine(this.#store);
      if (waiting !== undefined) throw busy(`run ${waiting} is to have the GPU first`);
    }
    try {
      yield* super.generate(key, model, request, signal);
    } finally {
      void this.#makeWay();
    }
  }

  /** A process that nobody uses does not keep a run waiting. */
  async #makeWay(): Promise<void> {
    if (this.#besideRuns || !this.isAlive || this.load > 0) return;
    const waiting = await firstInLine(this.#store).catch(() => undefined);
    if (waiting !== undefined) await this.yieldGpu();
  }

  override async close(): Promise<void> {
    this.#listening?.[Symbol.dispose]();
    await super.close();
  }
}

async function acquire(store: Store): Promise<() => Promise<void>> {
  const path = inferenceLock(store);
  const unlock = await acquireLock(path, path, "another process tries a model").catch((cause) => {
    throw busy("another service of this data folder tries a model", cause);
  });
  try {
    const holder = await takeGpu(store, HOLDER, path);
    if (holder !== undefined) throw busy(`run ${holder} has the GPU`);
  } catch (error) {
    unlock();
    throw error;
  }
  return async () => {
    await store.release(DEFAULT_GPU, HOLDER).catch(() => {});
    unlock();
  };
}

function busy(message: string, cause?: unknown): GpuBusyError {
  return new GpuBusyError(message, { hint: "Try again when it has ended.", ...(cause ? { cause } : {}) });
}
