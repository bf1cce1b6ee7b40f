/**
 * A small model in one program as the check of families runs it: all sequences packed, and the first one again piece by piece with a cache.
 *
 * @module
 */
import { BUFFER_USAGE } from "../../gpu/buffer_usage.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { Architecture } from "../../models/architecture.ts";
import {
  ModelContext,
  storedNames,
  type StreamInputs,
  streamInputs,
  switchedRows,
  type WeightSpecs,
} from "../../models/context.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { elementCount, type Graph } from "../../tensor/graph.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { FamilyReference } from "./family_reference.ts";

/** Tokens that go through the cache at once: the last piece of most lengths is not full. */
const PIECE = 7;
const SPECS: WeightSpecs = { prefix: "", category: "weights", resolve: (name) => ({ name, dtype: "f32" }) };

/** A model over the sequences of a reference. */
export class FamilyProgram {
  readonly #gpu: Gpu;
  readonly #executable: Executable;
  readonly #weights: ReadonlyMap<string, GpuBuffer>;
  readonly #sequences: readonly (readonly number[])[];
  readonly #taps: readonly string[];

  private constructor(
    gpu: Gpu,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
    sequences: readonly (readonly number[])[],
    taps: readonly string[],
  ) {
    [this.#gpu, this.#executable, this.#weights] = [gpu, executable, weights];
    [this.#sequences, this.#taps] = [sequences, taps];
  }

  /** Compiles the model and puts its weights on the device. `destroy` frees them; the device stays the caller's. */
  static async make(
    gpu: Gpu,
    architecture: Architecture,
    { tensors }: FamilyReference,
    sequences: readonly (readonly number[])[],
  ): Promise<FamilyProgram> {
    const length = sequences[0]!.length;
    const program = new Program();
    const packed = program.block("packed");
    const taps = trace(packed, architecture, streamInputs(packed, sequences.length * length, { length }));
    const cached = program.block("cached");
    const stream = { length, cacheRows: length + PIECE, prefix: "cached." };
    trace(cached, architecture, streamInputs(cached, PIECE, stream));
    const planned = plan(program, gpu.description);
    const weights = upload(gpu, planned, architecture, tensors);
    const executable = await compile(gpu, planned, { weights });
    return new FamilyProgram(gpu, executable, weights, sequences, taps);
  }

  /** Logits f32 [sequences * length, V] and inner values of all sequences in one stream. */
  async packed(): Promise<ReadonlyMap<string, Float32Array>> {
    const length = this.#sequences[0]!.length;
    const rows = this.#sequences.flatMap((sequence, i) =>
      sequence.map((token, position) => ({
        ...{ token, position, start: i * length, end: i * length + position + 1 },
      }))
    );
    this.#executable.poison();
    this.#write("", rows);
    this.#executable.run("packed");
    const back = await this.#executable.read(["logits", ...this.#taps], "packed");
    this.#gpu.check();
    // What is read back ends at a multiple of some bytes.
    return new Map(
      [...back].map((
        [name, { data, shape }],
      ) => [name, (data as Float32Array).slice(0, elementCount(shape))]),
    );
  }

  /** Logits f32 [length, V] of the first sequence, keys and values of what came before from a cache. */
  async cached(): Promise<Float32Array> {
    const [sequence] = this.#sequences as readonly [readonly number[]];
    const pieces: Float32Array[] = [];
    for (let first = 0; first < sequence.length; first += PIECE) {
      const fed = Array.from({ length: PIECE }, (_, t) => {
        const position = first + t;
        // What the last piece is filled up with lies behind the sequence, and sees itself alone.
        const token = sequence[position];
        const filler = sequence.length + t;
        return token === undefined
          ? { token: 0, position: 0, start: filler, end: filler + 1, slot: filler }
          : { token, position, start: 0, end: position + 1, slot: position };
      });
      this.#write("cached.", fed);
      this.#executable.write("cached.slots", Int32Array.from(fed, ({ slot }) => slot));
      this.#executable.run("cached");
      const back = await this.#executable.read(["logits"], "cached");
      this.#gpu.check();
      const logits = back.get("logits")!;
      const rows = Math.min(PIECE, sequence.length - first);
      pieces.push((logits.data as Float32Array).slice(0, rows * logits.shape[1]!));
    }
    return Float32Array.from(pieces.flatMap((piece) => [...piece]));
  }

  #write(
    prefix: string,
    rows: readonly { token: number; position: number; start: number; end: number }[],
  ): void {
    const column = (of: (row: typeof rows[number]) => number) => Int32Array.from(rows, of);
    const positions = column(({ position }) => position);
    this.#executable.write(`${prefix}tokens`, column(({ token }) => token));
    this.#executable.write(`${prefix}positions`, positions);
    this.#executable.write(`${prefix}start`, column(({ start }) => start));
    this.#executable.write(`${prefix}end`, column(({ end }) => end));
    const names = this.#executable.plan.storages.keys();
    // All of a sequence is known from the first piece on.
    for (const [name, data] of switchedRows(names, positions, () => this.#sequences[0]!.length, prefix)) {
      this.#executable.write(name, data);
    }
  }

  destroy(): void {
    this.#executable.destroy();
    for (const buffer of this.#weights.values()) buffer.destroy();
  }
}

/** Traces decoder and head; returns the names of inner values, which are outputs beside `logits`. */
function trace(graph: Graph, { family, config }: Architecture, inputs: StreamInputs): string[] {
  const taps: string[] = [];
  const onTap = (name: string, x: Parameters<typeof graph.output>[1]) => {
    if (inputs.cache) return;
    taps.push(name);
    graph.output(name, x);
  };
  const ctx = new ModelContext(graph, "model", inputs, SPECS, { onTap });
  const hidden = graph.within("model", () => family.decoder(ctx, config));
  graph.output("logits", family.head(ctx, config, hidden));
  return taps;
}

function upload(
  gpu: Gpu,
  { storages }: Plan,
  { tables }: Architecture,
  tensors: FamilyReference["tensors"],
): Map<string, GpuBuffer> {
  const buffers = new Map<string, GpuBuffer>();
  for (const { name, kind, bytes, shape } of storages.values()) {
    if (kind !== "weight") continue;
    const buffer = gpu.createBuffer(bytes, BUFFER_USAGE.storage, name);
    buffers.set(name, buffer);
    const parts = tables[name]
      ? [tables[name](shape[0]!)]
      : storedNames(name).map((stored) => Float32Array.from(tensors.get(stored)!.data));
    let at = 0;
    for (const part of parts) {
      gpu.device.queue.writeBuffer(buffer.raw, at, part);
      at += part.byteLength;
    }
  }
  return buffers;
}
