/**
 * Memory through which the host reads what the GPU has written.
 *
 * @module
 */
import { BUFFER_USAGE, MAP_READ } from "./buffer_usage.ts";

/** A buffer that the GPU copies to and the host reads. It is the host's, so it does not count as memory of the GPU. */
export class ReadBack {
  /** Where copies go. */
  readonly raw: GPUBuffer;

  /** @param size Bytes, a multiple of 4 */
  constructor(device: GPUDevice, size: number, label: string) {
    this.raw = device.createBuffer({ size, usage: BUFFER_USAGE.readBack, label });
  }

  /** Waits for all queued work and returns a copy of the first `size` bytes. Costs at least 10 ms and blocks the event loop. */
  async take(size: number): Promise<ArrayBuffer> {
    await this.raw.mapAsync(MAP_READ, 0, size);
    const bytes = this.raw.getMappedRange(0, size).slice(0);
    this.raw.unmap();
    return bytes;
  }

  destroy(): void {
    this.raw.destroy();
  }
}
