/**
 * Inputs of a block that say which positions of a packed stream belong together, and which are learnt: what losses over inner values of
 * the models see of it.
 *
 * @module
 */
import type { Executable } from "../../../tensor/executable.ts";
import type { Graph } from "../../../tensor/graph.ts";
import type { SampleInputs } from "../../objective/feature_losses.ts";
import { IGNORED_LABEL, type PackedBatch } from "../../../text/packing.ts";
import { sampleEnds } from "./stream.ts";

/** The inputs of a block. */
export function sampleInputs(graph: Graph, tokens: number): SampleInputs {
  const input = (name: string) => graph.input(name, [tokens], "i32");
  return {
    segments: input("sample.segments"),
    sample: { start: input("start"), end: input("sample.end") },
    supervised: input("sample.supervised"),
    prompt: input("sample.prompt"),
  };
}

/** Writes them, if the program has them; `start` belongs to the stream. */
export function writeSampleInputs(executable: Executable, batch: PackedBatch): void {
  if (!executable.plan.storages.has("sample.segments")) return;
  const { segment, label } = batch;
  executable.write("sample.segments", segment);
  executable.write("sample.end", sampleEnds(batch.kvStart));
  executable.write("sample.supervised", label.map((l) => Number(l !== IGNORED_LABEL)));
  executable.write("sample.prompt", label.map((l, t) => Number(l === IGNORED_LABEL && segment[t]! >= 0)));
}
