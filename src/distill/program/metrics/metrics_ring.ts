/**
 * Numbers of each step, copied aside on the GPU and fetched several steps at once: a wait costs at least 10 ms and stops the
 * process's event loop, so there is none inside the step.
 *
 * @module
 */
import type { Gpu } from "../../../gpu/device.ts";
import { ReadBack } from "../../../gpu/read_back.ts";
import type { Executable } from "../../../tensor/executable.ts";

/** Which of a program's values are copied, in this order. */
export interface MetricSource {
  readonly name: string;
  /** The block whose output it is; absent for a state. */
  readonly block?: string;
  /** 32-bit words. */
  readonly words: number;
}

/** A ring of steps whose numbers are still on the GPU. */
export class MetricsRing<T> {
  readonly #gpu: Gpu;
  readonly #executable: Executable;
  readonly #sources: readonly MetricSource[];
  readonly #slotBytes: number;
  readonly #capacity: number;
  readonly #staging: ReadBack;
  readonly #waiting: T[] = [];

  /** @param capacity Steps that fit before {@linkcode collect} must be called */
  constructor(gpu: Gpu, executable: Executable, sources: readonly MetricSource[], capacity: number) {
    this.#gpu = gpu;
    this.#executable = executable;
    this.#sources = sources;
    this.#capacity = capacity;
    this.#slotBytes = sources.reduce((sum, s) => sum + Math.ceil(s.words * 4 / 16) * 16, 0);
    this.#staging = new ReadBack(gpu.device, this.#slotBytes * capacity, "metrics");
  }

  get full(): boolean {
    return this.#waiting.length >= this.#capacity;
  }

  get empty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Queues the copies of this step's numbers; `tag` comes back with them. */
  push(tag: T): void {
    let offset = this.#waiting.length * this.#slotBytes;
    for (const { name, block, words } of this.#sources) {
      this.#executable.copy(name, block, this.#staging.raw, offset);
      offset += Math.ceil(words * 4 / 16) * 16;
    }
    this.#waiting.push(tag);
  }

  /** Waits for the queued work and returns the numbers of every step pushed since the last call, in order. */
  async collect(): Promise<{ tag: T; values: Float32Array[] }[]> {
    if (this.empty) return [];
    const tags = this.#waiting.splice(0);
    const bytes = await this.#staging.take(tags.length * this.#slotBytes);
    this.#gpu.check();
    return tags.map((tag, i) => {
      let offset = i * this.#slotBytes;
      const values = this.#sources.map(({ words }) => {
        const value = new Float32Array(bytes, offset, words);
        offset += Math.ceil(words * 4 / 16) * 16;
        return value;
      });
      return { tag, values };
    });
  }

  destroy(): void {
    this.#staging.destroy();
  }
}
