/**
 * What a cache keeps of the teacher at each position, traced from its logits; and the inputs through which a batch brings it back.
 *
 * @module
 */
import { cacheTemperature, compileTails } from "../../../losses/row_tails.ts";
import type { SparseTarget } from "../../../losses/sparse_target.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { ensure, grid, type Op } from "../../../tensor/op.ts";
import { drawTokens } from "../../../tensor/ops/draw_tokens.ts";
import { topK } from "../../../tensor/ops/top_k.ts";
import type { PackedBatch } from "../../../text/packing.ts";
import type { CachedRows } from "../../objective/chunked_loss.ts";
import type { MarkedBatch } from "../../objective/token_masks.ts";

/** Names of the inputs of a training program, in the order in which row kernels bind them. */
const CACHED_INPUTS = { ids: "cached.ids", logits: "cached.logits", tails: "cached.tails" } as const;

/** Where a batch's rows go: inputs of the training program, each position's row by row. */
export interface RowArrays {
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly logits: Float32Array<ArrayBuffer>;
  readonly tails: Float32Array<ArrayBuffer>;
}

/** Fills the target of a batch where no teacher runs beside the student. */
export interface TargetSource {
  /** Begins to feed a program whose micro-batches have so many positions. */
  feed(positions: number): TargetFeed;
}

/** Brings what is stored of a teacher into the inputs of one program, batch by batch. */
export interface TargetFeed {
  /** By the name of the input; a program may lack some. No position has a row before the first batch. */
  readonly inputs: ReadonlyMap<string, Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>;
  /** The rows of a batch's positions that some loss counts; others keep what they have. */
  fill(batch: PackedBatch, marked: MarkedBatch): Promise<void>;
}

/** The inputs of a program that rows go into. */
export function rowInputs({ ids, logits, tails }: RowArrays): TargetFeed["inputs"] {
  return new Map<string, Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>([
    [CACHED_INPUTS.ids, ids],
    [CACHED_INPUTS.logits, logits],
    [CACHED_INPUTS.tails, tails],
  ]);
}

/** The cached target of each position of a stream. */
export function cachedInputs(graph: Graph, tokens: number, target: SparseTarget): CachedRows {
  const { kind, entries, temperatures } = target;
  const rows = [
    graph.input(CACHED_INPUTS.ids, [tokens, entries], "u32"),
    graph.input(CACHED_INPUTS.logits, [tokens, entries], "f32"),
  ];
  return kind === "samples"
    ? rows
    : [...rows, graph.input(CACHED_INPUTS.tails, [tokens, temperatures.length], "f32")];
}

const rowTailsOp: Op<SparseTarget> = {
  name: "rowTails",
  mutates: true,
  // The logits are written meanwhile, and left as they were.
  alias: (output) => (output === 0 ? undefined : { input: 2, byteOffset: 0 }),
  infer(inputs, { entries, temperatures }) {
    const [kept, ids, logits] = inputs as [Tensor, Tensor, Tensor];
    ensure(
      ids.dim(1) === entries && ids.dim(0) === logits.dim(0) && kept.dim(0) === logits.dim(0),
      "rowTails",
      inputs,
      "one flag and K ids a row",
    );
    return [{ shape: [temperatures.length, logits.dim(0)], dtype: "f32" }, logits];
  },
  lower({ inputs, outputs, attributes: target, device, dispatch }) {
    const logits = inputs[2]!;
    const [count, vocabulary] = [logits.dim(0), logits.dim(1)];
    const kernel = compileTails(target, vocabulary, device);
    dispatch({
      kernel: kernel.label,
      wgsl: kernel.wgsl,
      tensors: [...inputs, outputs[0]!],
      size: kernel.size(count, (name) => logits.graph.scalar(name)),
      groups: grid(count, device),
      flops: 10 * count * vocabulary * target.temperatures.length,
    });
  },
};

/**
 * log sum exp((z - m) / temperature) over the entries of each row that are not among `ids`, m the row's largest logit.
 *
 * @param kept i32 [R]: 0; rows of -100 are skipped, and their tails 0
 * @param ids u32 [R, K]
 * @param logits f32 [R, V]
 * @returns f32 [C, R], a row for each of the target's temperatures; those other than 1 are step scalars ({@linkcode cacheScalars})
 */
function rowTails(kept: Tensor, ids: Tensor, logits: Tensor, target: SparseTarget): Tensor {
  return logits.graph.add(rowTailsOp, [kept, ids, logits], target)[0]!;
}

/** The step scalars of {@linkcode rowTails} with their values. */
export function cacheScalars({ temperatures }: SparseTarget): Map<string, number> {
  return new Map(temperatures.filter((t) => t !== 1).map((t) => [cacheTemperature(t), t]));
}

/** How samples are drawn. */
export interface Draws {
  /** u32 [T]: a number of its own for each position in the data. */
  readonly counters: Tensor;
  readonly seed: readonly [number, number];
}

/**
 * Traces what a cache keeps of some rows of logits.
 *
 * @param kept i32 [R]: 0, or -100 for rows that need not be looked at
 * @returns ids u32 [R, K]; and of the largest, their logits f32 [R, K] and tails f32 [C, R], or of samples how often each came up, u32 [R, K]
 */
export function teacherRows(
  kept: Tensor,
  logits: Tensor,
  target: SparseTarget,
  draws: Draws | undefined,
): Tensor[] {
  if (target.kind === "samples") {
    const { counters, seed } = draws!;
    const { ids, counts } = drawTokens(logits, counters, { draws: target.entries, seed });
    return [ids, counts];
  }
  const { ids, values } = topK(logits, target.entries);
  return [ids, values, rowTails(kept, ids, logits, target)];
}
