/**
 * Measuring losses over samples: the block that does it, and its replay over batches.
 *
 * @module
 */
import { ModelContext } from "../models/context.ts";
import { decoder } from "../models/llama.ts";
import type { Executable } from "../tensor/executable.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { EncodedSample } from "../text/encode.ts";
import { type PackedBatch, packSequential } from "../text/packing.ts";
import { chunkedLoss, lossSums, type RowLosses } from "./head.ts";
import { MetricsRing } from "./metrics_ring.ts";
import type { Model } from "./models.ts";
import { streamInputs } from "./stream.ts";

/** Mean losses over some samples, nats a token. */
export interface Evaluation {
  readonly losses: Readonly<Record<string, number>>;
  /** Supervised tokens. */
  readonly tokens: number;
}

/** Batches whose sums may wait on the GPU. */
const RING = 32;

/** Sizes of a stream and its head. */
export interface StreamSizes {
  readonly tokens: number;
  readonly chunkRows: number;
  readonly positions: number;
}

/** Traces a model alone with losses that need no target; their sums go into `state`. */
export function traceLearnerLosses(
  graph: Graph,
  name: string,
  model: Model,
  losses: RowLosses,
  { tokens, chunkRows, positions }: StreamSizes,
  state: string,
): void {
  const learner = graph.within(name, () => {
    const ctx = new ModelContext(graph, name, streamInputs(graph, tokens), model.specs);
    const { vocabularySize, hiddenSize } = model.config;
    return {
      hidden: decoder(ctx, model.config, positions),
      weight: ctx.weight(model.headWeight(), [vocabularySize, hiddenSize]),
    };
  });
  const { values } = chunkedLoss(
    graph,
    learner,
    undefined,
    labelInput(graph, tokens),
    losses,
    chunkRows,
    false,
  );
  lossSums(values, graph.state(state, [losses.valueCount], "f32", "program"), graph.scalar("keep"));
}

/** The label of each position, i32 [T]. */
export function labelInput(graph: Graph, tokens: number): Tensor {
  return graph.input("labels", [tokens], "i32");
}

/** Writes a batch into a program's inputs. */
export function writeBatch(executable: Executable, batch: PackedBatch): void {
  executable.write("tokens", batch.tokens);
  executable.write("positions", batch.position);
  executable.write("start", batch.kvStart);
  executable.write("end", batch.kvEnd);
  executable.write("labels", batch.label);
}

/**
 * Runs a measuring block over samples in file order. Sums of a batch are f32 on the GPU, sums of batches f64 on the host.
 *
 * @param state Where the block puts its sums, in the order of `names`
 * @param run How a block is run, when not in one go
 */
export async function measureLosses(
  executable: Executable,
  block: string,
  state: string,
  names: readonly string[],
  samples: readonly EncodedSample[],
  tokensPerBatch: number,
  run: () => Promise<void> = () => Promise.resolve(executable.run(block)),
): Promise<Evaluation> {
  const ring = new MetricsRing<number>(
    executable.gpu,
    executable,
    [{ name: state, words: names.length }],
    RING,
  );
  const sums = new Float64Array(names.length);
  let tokens = 0;
  const add = async () => {
    for (const { tag, values } of await ring.collect()) {
      tokens += tag;
      values[0]!.forEach((value, k) => sums[k]! += value);
    }
  };
  try {
    executable.setScalar("keep", 0);
    for (const batch of packSequential(samples, tokensPerBatch)) {
      writeBatch(executable, batch);
      await run();
      ring.push(batch.supervised);
      if (ring.full) await add();
    }
    await add();
  } finally {
    ring.destroy();
  }
  return {
    losses: Object.fromEntries(names.map((name, k) => [name, sums[k]! / Math.max(1, tokens)])),
    tokens,
  };
}
