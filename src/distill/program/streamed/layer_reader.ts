/**
 * Brings the layers of a streamed model to the GPU, one after another and then from the first again, each into the buffer that the one
 * before it does not use.
 *
 * While the GPU computes with a layer, the next is read. What is written goes behind the work that is queued, and a buffer is not written
 * before all work that reads it is queued, so nobody has to wait for the GPU but to bound what is staged.
 *
 * @module
 */
import type { GpuBuffer } from "../../../gpu/device.ts";
import type { Executable } from "../../../tensor/executable.ts";
import { putPieces } from "../../inputs/models.ts";
import { otherSlot, type Slot, type StreamedLayers } from "./streamed_layers.ts";

/** Someone closed the reader while a layer was read. */
class Closed extends Error {}

/** Fills the buffers of a program with layers. */
export class LayerReader {
  readonly #executable: Executable;
  readonly #layers: StreamedLayers;
  readonly #weights: ReadonlyMap<string, GpuBuffer>;
  readonly #onPiece: () => void;
  readonly #held = new Map<Slot, number>();
  #slot: Slot = "B";
  /** The last reading that was begun. */
  #reading: Promise<void> = Promise.resolve();
  #closed = false;

  /**
   * @param weights On the GPU already, by storage name: layers that another model has there are copied
   * @param onPiece Called after each piece that has been read; what it throws ends the reading
   */
  constructor(
    executable: Executable,
    layers: StreamedLayers,
    weights: ReadonlyMap<string, GpuBuffer>,
    onPiece: () => void = () => {},
  ) {
    [this.#executable, this.#layers, this.#weights, this.#onPiece] = [executable, layers, weights, onPiece];
  }

  /**
   * Waits until a layer is there, and begins to read the next.
   *
   * Work with the layer taken before must be queued already.
   *
   * @returns The buffer that it is in, until the next is taken
   * @throws {InputError} if it cannot be read
   */
  async take(layer: number): Promise<Slot> {
    this.#read(layer);
    await this.#reading;
    this.#slot = this.#slotOf(layer)!;
    this.#read((layer + 1) % this.#layers.count);
    return this.#slot;
  }

  /** Stops reading. */
  close(): void {
    this.#closed = true;
  }

  #slotOf(layer: number): Slot | undefined {
    return (["A", "B"] as const).find((slot) => this.#held.get(slot) === layer);
  }

  /** Begins to read a layer into the buffer that is not in use, unless it is there. */
  #read(layer: number): void {
    if (this.#slotOf(layer) !== undefined) return;
    const slot = otherSlot(this.#slot);
    this.#held.set(slot, layer);
    this.#reading = this.#reading.then(() => this.#fill(layer, slot));
    // It is thrown where the layer is waited for.
    this.#reading.catch(() => {});
  }

  async #fill(layer: number, slot: Slot): Promise<void> {
    const { gpu } = this.#executable;
    const { model } = this.#layers;
    const contents = this.#layers.contents(layer, slot);
    const encoder = gpu.device.createCommandEncoder();
    for (const { storage, weight } of contents) {
      const there = this.#weights.get(weight);
      if (!there) continue;
      encoder.copyBufferToBuffer(there.raw, 0, this.#executable.buffer(storage).raw, 0, there.size);
    }
    if (!this.#closed) gpu.device.queue.submit([encoder.finish()]);
    const missing = contents.filter(({ weight }) => !this.#weights.has(weight));
    const pieces = function* () {
      for (const { storage, weight, spec } of missing) {
        for (const piece of model.pieces(weight, spec.shape)) yield { ...piece, storage };
      }
    };
    await putPieces(pieces(), async ({ storage, at }, bytes) => {
      if (this.#closed) throw new Closed();
      await gpu.upload(this.#executable.buffer(storage), at, bytes);
      this.#onPiece();
    });
  }
}
