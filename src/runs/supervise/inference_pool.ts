/**
 * The process that writes text, started when it is asked for and replaced when another model is. There is one at a time.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import type { TunedDevice } from "../../tune/tuned.ts";
import {
  InferenceEndedError,
  type InferenceEvent,
  type InferenceOptions,
  InferenceProcess,
  type InferenceRequest,
} from "../child/inference.ts";

/** A run has the GPU. */
export class GpuBusyError extends LimbeckError {
  override readonly code = "gpu_busy";
}

/** How a pool works. */
export interface InferencePoolOptions extends Pick<InferenceOptions, "idleSeconds" | "watchdogSeconds"> {
  /**
   * Takes the GPU before a process is started; what it returns is called once the process has ended.
   *
   * @throws {GpuBusyError} it cannot be had now
   */
  readonly acquire?: () => Promise<() => Promise<void> | void>;
  /** What devices have chosen among kernels, asked for before a process is started. */
  readonly tuned?: () => Promise<readonly TunedDevice[]>;
}

/** The process of one model at a time. */
export class InferencePool {
  readonly #options: InferencePoolOptions;
  #current: { key: string; process: InferenceProcess; gone: Promise<void> } | undefined;
  /** Starting and replacing happen one after another. */
  #changing: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: InferencePoolOptions = {}) {
    this.#options = options;
  }

  /** Requests that are being worked on or wait. */
  get load(): number {
    return this.#current?.process.load ?? 0;
  }

  /** Kernels with which the process writes that are others than stand first; none where no process lives. */
  get kernels(): Readonly<Record<string, string>> {
    return this.isAlive ? this.#current!.process.kernels : {};
  }

  /** Whether a process lives. */
  get isAlive(): boolean {
    return this.#current?.process.isAlive ?? false;
  }

  /**
   * Writes with a model.
   *
   * @param key tells models apart
   * @throws {GpuBusyError} a run has the GPU
   * @throws what {@linkcode InferenceProcess.start} and {@linkcode InferenceProcess.generate} throw
   */
  async *generate(
    key: string,
    model: Pick<InferenceOptions, "model" | "plugins">,
    request: InferenceRequest,
    signal?: AbortSignal,
  ): AsyncGenerator<InferenceEvent> {
    const process = await this.#processOf(key, model);
    yield* process.generate(request, signal);
  }

  /** Ends the process when nothing is being written, so that something else can have the GPU. */
  async yieldGpu(): Promise<void> {
    const current = this.#current;
    if (current?.process.load !== 0) return;
    await current.process.close();
    await current.gone;
  }

  /** Ends the process and takes no more requests. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#changing.catch(() => {});
    const current = this.#current;
    await current?.process.close();
    await current?.gone;
  }

  #processOf(key: string, model: Pick<InferenceOptions, "model" | "plugins">): Promise<InferenceProcess> {
    const next = this.#changing.catch(() => {}).then(() => this.#change(key, model));
    this.#changing = next;
    return next;
  }

  async #change(key: string, model: Pick<InferenceOptions, "model" | "plugins">): Promise<InferenceProcess> {
    if (this.#closed) throw new InferenceEndedError("the service is ending");
    const current = this.#current;
    if (current?.process.isAlive && current.key === key) return current.process;
    if (current?.process.isAlive) await this.#drain(current.process);
    await current?.gone;
    const { acquire, tuned, ...options } = this.#options;
    const release = await acquire?.();
    let process: InferenceProcess;
    try {
      const kept = await tuned?.();
      process = await InferenceProcess.start({ ...options, ...model, ...(kept ? { tuned: kept } : {}) });
    } catch (error) {
      await release?.();
      throw error;
    }
    this.#current = { key, process, gone: process.ended.then(() => release?.()) };
    return process;
  }

  /** Waits until what a process is writing is written. */
  async #drain(process: InferenceProcess): Promise<void> {
    while (process.isAlive && process.load > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    await process.close();
  }
}
