/**
 * Which of several teachers teaches each sample, in a program: what a batch is told of it, and the models that a batch has no need of.
 *
 * @module
 */
import { layerName } from "../../models/context.ts";
import type { Executable } from "../../tensor/executable.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { maskRows } from "../../tensor/ops/mask_rows.ts";
import { reshape } from "../../tensor/ops/views.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, type PackedBatch } from "../../text/packing.ts";
import type { Model } from "../inputs/models.ts";
import { lossSums } from "../objective/loss_sums.ts";
import { CHOICE } from "../objective/several_targets.ts";
import type { MarkedBatch } from "../objective/token_masks.ts";
import { memberName } from "./block_models.ts";
import { writeLabels } from "./metrics/measure.ts";

/** The teacher of each sample, by its number in the recipe. */
export type SampleChoice = ReadonlyMap<EncodedSample, number>;

/** i32 [T]: the bit of each position's teacher. */
const FLAGS = "teacher.flags";

/** f32 [teachers]: sums of the weighted loss over the positions of each teacher's samples. */
export const TAUGHT = "losses.taught";

/** Adds up what the samples of each teacher lose in a step. @param weighted The weighted loss of each position, f32 [T] */
export function traceTaught(graph: Graph, weighted: Tensor, teachers: number): void {
  const [tokens] = weighted.shape as [number];
  const state = graph.state(TAUGHT, [teachers], "f32", "program");
  const flags = graph.input(FLAGS, [tokens], "i32");
  for (let i = 0; i < teachers; i++) {
    const own = reshape(maskRows(weighted, flags, i), [1, tokens]);
    lossSums(own, state, graph.scalar("accumulate"), { first: i, count: 1 });
  }
}

/** What the names of inputs begin with that mark the samples of teachers of whose distribution a part is stored, and of all others. */
export const PARTS = { stored: "stored ", whole: "whole " } as const;

/**
 * Tells a program whose samples those of a batch are, as far as it asks.
 *
 * @param marked Of the whole batch
 * @param isPart Whether a part of the distribution of the teacher of a number is stored
 */
export function writeChoice(
  executable: Executable,
  batch: PackedBatch,
  choice: SampleChoice,
  marked: MarkedBatch,
  isPart: (teacher: number) => boolean,
): void {
  writeLabels(executable, markedWhere(marked, batch, choice, isPart), PARTS.stored);
  writeLabels(executable, markedWhere(marked, batch, choice, (i) => !isPart(i)), PARTS.whole);
  const { segment, members } = batch;
  const { storages } = executable.plan;
  const teacherOf = (t: number) => (segment[t]! < 0 ? -1 : choice.get(members[segment[t]!]!) ?? -1);
  const length = segment.length;
  if (storages.has(CHOICE)) executable.write(CHOICE, Float32Array.from({ length }, (_, t) => teacherOf(t)));
  if (storages.has(FLAGS)) {
    executable.write(
      FLAGS,
      Int32Array.from({ length }, (_, t) => (teacherOf(t) < 0 ? 0 : 1 << teacherOf(t))),
    );
  }
}

/** The layers of teachers that none of some samples has, so that their kernels need not run; see `Executable.run`. */
export function unneededLayers(
  { members }: Pick<PackedBatch, "members">,
  choice: SampleChoice,
  teachers: readonly { readonly name: string; readonly model: Model }[],
): Set<string> {
  const needed = new Set(members.map((sample) => choice.get(sample)));
  return new Set(
    teachers.filter((_, i) => !needed.has(i)).flatMap(({ name, model }) => [
      memberName(name),
      ...Array.from({ length: model.config.layers }, (_, i) => layerName(memberName(name), i)),
    ]),
  );
}

/** Supervised positions of a batch by the teacher of their sample. */
export function taughtTokens(
  { label, segment, members }: PackedBatch,
  choice: SampleChoice,
  teachers: number,
): number[] {
  const counts = Array.from({ length: teachers }, () => 0);
  label.forEach((l, t) => {
    const teacher = l === IGNORED_LABEL ? undefined : choice.get(members[segment[t]!]!);
    if (teacher !== undefined) counts[teacher]!++;
  });
  return counts;
}

/** The positions of a batch that are of the samples of some teachers; no loss counts the others. */
export function markedWhere(
  { labels, masks, counts }: MarkedBatch,
  { segment, members }: PackedBatch,
  choice: SampleChoice,
  isOne: (teacher: number) => boolean,
): MarkedBatch {
  const isOwn = (t: number) => {
    const teacher = segment[t]! < 0 ? undefined : choice.get(members[segment[t]!]!);
    return teacher !== undefined && isOne(teacher);
  };
  return {
    labels: labels.map((l, t) => (isOwn(t) ? l : IGNORED_LABEL)),
    ...(masks ? { masks: masks.map((m, t) => (isOwn(t) ? m : 0)) } : {}),
    counts,
  };
}
