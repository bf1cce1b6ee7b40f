/**
 * Brings batches through a teacher whose layers come from disk.
 *
 * @module
 */
import type { GpuBuffer } from "../../../gpu/device.ts";
import type { Executable } from "../../../tensor/executable.ts";
import type { PackedBatch } from "../../../text/packing.ts";
import { LayerReader } from "./layer_reader.ts";
import { writePacked } from "../metrics/measure.ts";
import { type LayerSource, SLOTS } from "./streamed_layers.ts";
import { STREAMED, type StreamedTeacher } from "./streamed_teacher.ts";

/** Runs the blocks of a streamed teacher. */
export class TeacherStream {
  /** Batches that are brought through it at once, at the most. */
  readonly most: number;
  readonly #executable: Executable;
  readonly #streamed: StreamedTeacher;
  readonly #reader: LayerReader;
  readonly #run: (block: string) => Promise<void>;

  /**
   * @param weights On the GPU already, by storage name
   * @param run Runs a block of the program
   * @param onPiece Called now and then while layers are read
   */
  constructor(
    executable: Executable,
    streamed: StreamedTeacher,
    weights: ReadonlyMap<string, GpuBuffer>,
    run: (block: string) => Promise<void>,
    onPiece?: () => void,
  ) {
    [this.#executable, this.#streamed, this.#run] = [executable, streamed, run];
    this.#reader = new LayerReader(executable, streamed.layers, weights, onPiece);
    this.most = streamed.waiting;
  }

  /** Whether a block looks at the teacher, so that its batches have to be brought through it before. */
  serves(block: string): boolean {
    const { storages, blocks } = this.#executable.plan;
    const { buffer } = storages.get(STREAMED.hidden)!;
    return blocks.get(block)!.dispatches.some(({ bindings }) => bindings.some((b) => b.buffer === buffer));
  }

  /** Brings batches through the teacher: no more than `most`. Those before them are forgotten. */
  async pass(batches: readonly PackedBatch[]): Promise<void> {
    const { kinds } = this.#streamed.layers;
    await this.#runAll(STREAMED.begin, batches);
    for (const [layer, kind] of kinds.entries()) {
      const slot = await this.#reader.take(layer);
      await this.#runAll(STREAMED.layer(kind, slot), batches);
    }
    await this.#runAll(STREAMED.end, batches);
  }

  /** Lets blocks see the teacher of a batch of the last pass, by its place there. */
  select(i: number): void {
    const rows = this.#executable.plan.storages.get(STREAMED.rows)!.shape[0]!;
    this.#executable.write(STREAMED.rows, Int32Array.from({ length: rows }, (_, t) => i * rows + t));
  }

  /** Where other programs find its layers; see {@linkcode LayerReader.take}. */
  get source(): Required<LayerSource> {
    return { layers: this.#streamed.layers, take: (layer) => this.#reader.take(layer) };
  }

  /** The buffers that layers come through, by storage name. */
  get buffers(): ReadonlyMap<string, GpuBuffer> {
    const { layers } = this.#streamed;
    const names = layers.kinds.flatMap((_, layer) =>
      SLOTS.flatMap((slot) => layers.contents(layer, slot).map(({ storage }) => storage))
    );
    return new Map(names.map((name) => [name, this.#executable.buffer(name)]));
  }

  async #runAll(block: string, batches: readonly PackedBatch[]): Promise<void> {
    for (const [i, batch] of batches.entries()) {
      writePacked(this.#executable, batch);
      this.select(i);
      await this.#run(block);
    }
  }

  /** Stops reading ahead. */
  close(): void {
    this.#reader.close();
  }
}
