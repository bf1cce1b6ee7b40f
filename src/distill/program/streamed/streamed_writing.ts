/**
 * Writing with a model whose layers come from disk: its blocks for prompts and for single tokens, and how they are run. Every pass reads all
 * layers, for one token of each sequence as for whole prompts; keys and values of all layers stay on the GPU.
 *
 * @module
 */
import type { Executable } from "../../../tensor/executable.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import type { Program } from "../../../tensor/plan.ts";
import { writeStream, type WrittenStream } from "../fed/stream.ts";
import type { LayerSource, Slot, StreamedLayers } from "./streamed_layers.ts";
import { STREAMED, streamedTrace, traceStreamedTeacher } from "./streamed_teacher.ts";
import type { ModelTrace } from "../traced_model.ts";

/** What the blocks of one stream are traced for. */
export interface WritingSizes {
  /** Name of the block that makes logits; its inputs and blocks begin with it. */
  readonly name: string;
  readonly tokens: number;
  /** Longest sequence. */
  readonly length: number;
  /** Keys and values of a layer. */
  readonly cacheRows: number;
  /** The stream's tokens, where they are on the GPU. */
  readonly chosen?: (graph: Graph) => Tensor;
}

/** Traces the blocks of a stream up to its hidden states, for a block that makes logits of them. */
export function traceStreamedWriting(
  program: Program,
  graph: Graph,
  layers: StreamedLayers,
  { name, tokens, length, cacheRows, chosen }: WritingSizes,
): ModelTrace {
  const streamed = { layers, waiting: 1, taps: new Set<string>() };
  const sizes = {
    ...{ tokens, positions: length, prefix: `${name}.` },
    ...(chosen ? { chosen } : {}),
    cacheRows: (kind: number) => cacheRows * layers.kinds.filter((k) => k === kind).length,
  };
  traceStreamedTeacher(program, streamed, sizes);
  return streamedTrace(graph, streamed, sizes);
}

/** A stream as it is written, with the rows of the cache that its tokens write, -1 for none. */
export interface FedStream {
  readonly arrays: WrittenStream;
  readonly slots: Int32Array;
  /** How many tokens the sequence of each position has. */
  reach(t: number): number;
}

/** Runs the blocks of {@linkcode traceStreamedWriting}. */
export class StreamedWriting {
  readonly #executable: Executable;
  readonly #layers: StreamedLayers;
  readonly #take: (layer: number) => Promise<Slot>;
  readonly #cacheRows: number;

  /** @param cacheRows See {@linkcode WritingSizes} */
  constructor(executable: Executable, { layers, take }: Required<LayerSource>, cacheRows: number) {
    [this.#executable, this.#layers, this.#take] = [executable, layers, take];
    this.#cacheRows = cacheRows;
  }

  /** Brings a stream through all layers, so that the block that makes logits may run. */
  async run(name: string, { arrays, slots, reach }: FedStream): Promise<void> {
    const executable = this.#executable;
    const prefix = `${name}.`;
    executable.write(`${prefix}${STREAMED.rows}`, Int32Array.from(slots, (_, t) => t));
    writeStream(executable, arrays, reach, prefix);
    executable.run(`${prefix}${STREAMED.begin}`);
    const { kinds } = this.#layers;
    for (const [layer, kind] of kinds.entries()) {
      const slot = await this.#take(layer);
      // Layers of a kind share a block, and so a cache: each has its own rows of it.
      const first = this.#cacheRows * kinds.slice(0, layer).filter((k) => k === kind).length;
      executable.write(`${prefix}start`, arrays.start.map((row) => first + row));
      executable.write(`${prefix}end`, arrays.end.map((row) => first + row));
      executable.write(`${prefix}slots`, slots.map((row) => row < 0 ? row : first + row));
      executable.run(`${prefix}${STREAMED.layer(kind, slot)}`);
    }
    executable.run(`${prefix}${STREAMED.end}`);
  }
}
