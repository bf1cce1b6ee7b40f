/**
 * How well training samples fill the micro-batches they are packed into, and what of them is not learnt.
 *
 * @module
 */
import { percent } from "../../base/units.ts";
import { BatchStream } from "../../text/batch_stream.ts";
import { sampleLength } from "../../text/encode.ts";
import type { PreparedRun } from "./prepare.ts";
import { mixtureOf } from "./sample_sets.ts";

/** Of the first epoch. */
export interface PackingReport {
  /** Tokens of a micro-batch. */
  readonly tokensPerMicroBatch: number;
  readonly microBatches: number;
  /** Share of their tokens that samples fill, from 0 to 1; the rest is filler, which costs as much. */
  readonly fill: number;
  /** Rows that are cut, and that are dropped, as too long. */
  readonly cut: number;
  readonly dropped: number;
  /** Tokens that would be learnt and were cut away or dropped with them. */
  readonly lostTargets: number;
  /** Samples in which the token that ends a text or a turn is learnt. */
  readonly stopsLearnt: number;
}

/** Packs the first epoch as training does. */
export function packingReport(
  { recipe: { data, train }, train: samples, sets, trainReport }: Pick<
    PreparedRun,
    "recipe" | "train" | "sets" | "trainReport"
  >,
): PackingReport {
  const tokensPerMicroBatch = train.tokensPerMicroBatch;
  const mixture = mixtureOf(data, sets.train);
  const plan = new BatchStream(samples, { tokensPerBatch: tokensPerMicroBatch, seed: train.seed, ...mixture })
    .plan(0);
  const tokens = plan.reduce(
    (sum, batch) => batch.reduce((sum, i) => sum + sampleLength(samples[i]!), sum),
    0,
  );
  const { cut, dropped, lostTargets, stopsLearnt } = trainReport;
  return {
    tokensPerMicroBatch,
    // Where only some rows are encoded, the report is of all.
    microBatches: Math.round(plan.length * trainReport.samples / samples.length),
    fill: tokens / (plan.length * tokensPerMicroBatch),
    ...{ cut, dropped, lostTargets, stopsLearnt },
  };
}

/** The same in words. */
export function packingText(
  { tokensPerMicroBatch, microBatches, fill, cut, dropped, lostTargets, stopsLearnt }: PackingReport,
  samples: number,
): string {
  return [
    `${microBatches} ${
      microBatches === 1 ? "micro-batch" : "micro-batches"
    } of ${tokensPerMicroBatch} tokens, ${percent(fill)} filled`,
    ...(cut > 0 ? [`${cut} rows cut`] : []),
    ...(dropped > 0 ? [`${dropped} rows dropped`] : []),
    ...(lostTargets > 0 ? [`${lostTargets} tokens not learnt for it`] : []),
    `the end is learnt in ${stopsLearnt} of ${samples} samples`,
  ].join(", ");
}
