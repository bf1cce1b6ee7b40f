/**
 * Measuring losses over samples: the block that does it, and its replay over batches.
 *
 * @module
 */
import type { Executable } from "../../../tensor/executable.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import type { EncodedSample } from "../../../text/encode.ts";
import { type PackedBatch, packSequential } from "../../../text/packing.ts";
import { chunkedLoss, type HeadInput, type Labels } from "../../objective/chunked_loss.ts";
import { lossSums } from "../../objective/loss_sums.ts";
import { type CountedTerm, countMaskOf } from "../../objective/objective.ts";
import { writePairs } from "../../objective/pairs.ts";
import { type RowLosses } from "../../objective/row_loss.ts";
import type { Evaluation } from "../../objective/monitors.ts";
import { MetricsRing } from "./metrics_ring.ts";
import { writePrompts } from "../fed/prompt_features.ts";
import { writeSampleInputs } from "../fed/sample_inputs.ts";
import { writeSamples } from "../fed/stream.ts";
import type { MarkedBatch, TokenMasks } from "../../objective/token_masks.ts";

/** Losses in the order of their values, and the tokens that they count. */
export interface CountedLosses {
  readonly terms: readonly ({ readonly name: string } & CountedTerm)[];
  readonly masks: TokenMasks;
}

/** Batches whose sums may wait on the GPU. */
const RING = 32;

/** Sizes of a stream and its head. */
export interface StreamSizes {
  readonly tokens: number;
  readonly chunkRows: number;
  readonly positions: number;
}

/**
 * Traces losses of a model that need no target; their sums go into `state`.
 *
 * @returns the losses of each position; see {@linkcode chunkedLoss}
 */
export function traceLearnerLosses(
  graph: Graph,
  learner: HeadInput,
  losses: RowLosses,
  { tokens, chunkRows }: Pick<StreamSizes, "tokens" | "chunkRows">,
  state: string,
): Tensor {
  const { values } = chunkedLoss(graph, {
    learner,
    ...labelInput(graph, tokens, losses),
    ...{ losses, chunkRows, gradient: false },
  });
  lossSums(values, graph.state(state, [losses.valueCount], "f32", "program"), graph.scalar("accumulate"));
  return values;
}

/**
 * The label of each position, and its token masks where losses have them.
 *
 * @param part What the names of inputs for a part of the positions begin with; see {@linkcode writeLabels}
 */
export function labelInput(graph: Graph, tokens: number, { tokenMasks }: RowLosses, part = ""): Labels {
  const labels = graph.input(`${part}labels`, [tokens], "i32");
  return tokenMasks ? { labels, masks: graph.input(`${part}tokenMasks`, [tokens], "i32") } : { labels };
}

/** Writes which positions are counted, as far as a program asks: of samples whose teachers are stored unlike, it asks for parts alone. */
export function writeLabels(executable: Executable, { labels, masks }: MarkedBatch, part = ""): void {
  const { storages } = executable.plan;
  if (storages.has(`${part}labels`)) executable.write(`${part}labels`, labels);
  if (masks && storages.has(`${part}tokenMasks`)) executable.write(`${part}tokenMasks`, masks);
}

/** Writes a batch into a program's inputs. */
export function writeBatch(executable: Executable, batch: PackedBatch, marked: MarkedBatch): void {
  writePacked(executable, batch);
  writeLabels(executable, marked);
  writePrompts(executable, batch);
  writeSampleInputs(executable, batch);
  writePairs(executable, batch);
}

/** Writes what models see of a batch into a program's inputs. */
export function writePacked(executable: Executable, batch: PackedBatch): void {
  writeSamples(executable, {
    ...{ tokens: batch.tokens, positions: batch.position },
    ...{ start: batch.kvStart, end: batch.kvEnd },
  });
}

/** What {@linkcode measureLosses} runs. */
export interface Measuring extends CountedLosses {
  readonly block: string;
  /** Where the block puts its sums, in the order of the terms. */
  readonly state: string;
  readonly tokensPerBatch: number;
  /** How the block is run, when not in one go. */
  readonly run?: () => Promise<void>;
  /** What has to be done with some batches, and how many, before the block runs with the first of them. */
  readonly ahead?: { readonly most: number; run(batches: readonly PackedBatch[]): Promise<void> } | undefined;
  /** How a batch gets into the program's inputs, where that is more than {@linkcode writeBatch}; with its place among those of `ahead`. */
  readonly write?: (batch: PackedBatch, marked: MarkedBatch, i: number) => Promise<void>;
  /** Tokens of a batch in the samples' second encoding, where they have one. */
  readonly otherTokens?: number | undefined;
}

/** Runs a measuring block over samples in file order. Sums of a batch are f32 on the GPU, sums of batches f64 on the host. */
export async function measureLosses(
  executable: Executable,
  samples: readonly EncodedSample[],
  { block, state, terms, masks, tokensPerBatch, run, write, ahead, otherTokens }: Measuring,
): Promise<Evaluation> {
  const ring = new MetricsRing<readonly number[]>(
    executable.gpu,
    executable,
    [{ name: state, words: terms.length }],
    RING,
  );
  const sums = new Float64Array(terms.length);
  let counts = masks.none;
  const add = async () => {
    for (const { tag, values } of await ring.collect()) {
      counts = counts.map((count, bit) => count + tag[bit]!);
      values[0]!.forEach((value, k) => sums[k]! += value);
    }
  };
  try {
    executable.setScalar("accumulate", 0);
    const batches = packSequential(samples, tokensPerBatch, otherTokens);
    for (const [n, batch] of batches.entries()) {
      const i = n % (ahead?.most ?? 1);
      if (i === 0) await ahead?.run(batches.slice(n, n + ahead.most));
      const marked = masks.mark(batch);
      await (write ? write(batch, marked, i) : writeBatch(executable, batch, marked));
      await (run ? run() : executable.run(block));
      ring.push(marked.counts);
      if (ring.full) await add();
    }
    await add();
  } finally {
    ring.destroy();
  }
  return { losses: tokenMeans(terms, sums, counts), tokens: counts[0]! };
}

/** The mean of each loss over the tokens that it counts; one that counts none is left out. */
export function tokenMeans(
  terms: CountedLosses["terms"],
  sums: ArrayLike<number>,
  counts: readonly number[],
): Record<string, number> {
  return Object.fromEntries(terms.flatMap(({ name, ...term }, k) => {
    const count = counts[countMaskOf(term)]!;
    return count > 0 ? [[name, sums[k]! / count]] : [];
  }));
}
