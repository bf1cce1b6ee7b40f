/**
 * The batches that a run trains on, from memory or from the disk.
 *
 * @module
 */
import { type Batches, BatchStream } from "../../text/batch_stream.ts";
import { SampleEncoder } from "../../text/encode.ts";
import { StreamedBatches } from "../../text/stream/streamed_batches.ts";
import { samplesIdentity, sha256 } from "./identity.ts";
import type { PreparedRun } from "./prepare.ts";
import { drawnSets, encodeOptions, mixtureOf } from "./sample_sets.ts";

/** The batches of a run. @param otherTokens Of a teacher with a tokenizer of its own: tokens of its side of a batch */
export function trainingBatches(
  prepared: Pick<PreparedRun, "recipe" | "train" | "sets" | "tokenizer" | "template">,
  tokensPerBatch: number,
  otherTokens?: number,
): Batches {
  const { recipe: { data, train: { seed } }, train, sets, tokenizer, template } = prepared;
  const drawn = drawnSets(sets.train);
  if (!drawn.some(({ streamed }) => streamed)) {
    return new BatchStream(train, {
      ...{ tokensPerBatch, seed, ...mixtureOf(data, sets.train) },
      ...(otherTokens === undefined ? {} : { otherTokens }),
    });
  }
  const encoder = new SampleEncoder(encodeOptions(data, { tokenizer, ...(template ? { template } : {}) }));
  const rows = drawn.map(({ name, weight, streamed, report }) => ({
    ...{ name, weight, count: streamed!.count, identity: streamed!.identity },
    meanLength: report.tokens / report.samples,
    row: (index: number) => streamed!.row(index),
  }));
  return new StreamedBatches(rows, {
    ...{ tokensPerBatch, seed, encoding: trainingIdentity(prepared) },
    ...(typeof data.train === "string" ? {} : { by: data.mix ?? "rows" }),
    encode: (row) => encoder.encode(row),
  });
}

/** Hash of all training tokens, which of them are learnt, and who wrote them; of rows on the disk, of what these follow from. */
export function trainingIdentity(
  { recipe: { data }, train, sets, tokenizer }: Pick<PreparedRun, "recipe" | "train" | "sets" | "tokenizer">,
): string {
  const drawn = drawnSets(sets.train);
  if (!drawn.some(({ streamed }) => streamed)) return samplesIdentity(train);
  const {
    contextLength,
    mask,
    tooLong,
    endToken,
    template,
    overlap = 1,
    specialTokens = "text",
    turns = "all",
  } = data;
  const options = [contextLength, mask, tooLong, endToken, template, overlap, specialTokens, turns];
  const rows = drawn.map(({ streamed }) => streamed!.identity);
  return sha256(JSON.stringify([rows, options, tokenizer.fingerprint(), samplesIdentity(train)]));
}
