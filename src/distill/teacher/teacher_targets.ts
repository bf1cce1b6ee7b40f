/**
 * What is stored of several teachers: of each all of the samples, or those that it teaches.
 *
 * @module
 */
import type { EncodedSample } from "../../text/encode.ts";
import type { PackedBatch } from "../../text/packing.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { countedPositions, type MarkedBatch } from "../objective/token_masks.ts";
import { inputOf } from "../program/fed/hidden_target.ts";
import { markedWhere, type SampleChoice } from "../program/sample_choice.ts";
import type { TargetFeed, TargetSource } from "../program/fed/teacher_rows.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import { recipeOfTeacher } from "../recipe/teachers.ts";

/** Fills the targets of several teachers. */
export class TeacherTargets implements TargetSource {
  readonly #sources: readonly (TargetSource | undefined)[];
  readonly #choice: SampleChoice | undefined;
  readonly #names: readonly (string | undefined)[];

  /**
   * @param sources By the teacher's number in the recipe; undefined where nothing is stored of it, or no sample has it
   * @param choice The teacher of each sample that will come, where each has one
   * @param names What teachers are called in the program that have inputs of their own there. All others fill the same inputs, each the
   *   positions of its samples, and so store their rows in one form
   */
  constructor(
    sources: readonly (TargetSource | undefined)[],
    choice: SampleChoice | undefined,
    names: readonly (string | undefined)[],
  ) {
    [this.#sources, this.#choice, this.#names] = [sources, choice, names];
  }

  feed(positions: number): TargetFeed {
    const feeds = this.#sources.map((source) => source?.feed(positions));
    const shared = feeds.find((feed, i) => feed && this.#names[i] === undefined)?.inputs ?? new Map();
    const inputs = new Map([
      ...shared,
      ...feeds.flatMap((feed, i) => {
        const teacher = this.#names[i];
        return teacher === undefined
          ? []
          : [...feed?.inputs ?? []].map(([name, data]) => [inputOf(teacher, name), data] as const);
      }),
    ]);
    return { inputs, fill: (batch, marked) => this.#fill(batch, marked, feeds, shared, positions) };
  }

  async #fill(
    batch: PackedBatch,
    marked: MarkedBatch,
    feeds: readonly (TargetFeed | undefined)[],
    shared: TargetFeed["inputs"],
    positions: number,
  ): Promise<void> {
    const choice = this.#choice;
    for (const [i, feed] of feeds.entries()) {
      const own = choice ? markedWhere(marked, batch, choice, (teacher) => teacher === i) : marked;
      const rows = countedPositions(own, 0, batch.tokens.length);
      if (!feed || rows.length === 0) continue;
      await feed.fill(batch, own);
      // Inputs of its own, or the first feed's, which all others are put into.
      if (this.#names[i] !== undefined || feed.inputs === shared) continue;
      for (const [name, to] of shared) {
        const from = feed.inputs.get(name)!;
        const width = to.length / positions;
        for (const t of rows) to.set(from.subarray(t * width, (t + 1) * width), t * width);
      }
    }
  }
}

/** The samples of one of several teachers, as the whole of the data. */
export function samplesOf(choice: SampleChoice, teacher: number, prepared: PreparedRun): PreparedRun {
  const own = (samples: readonly EncodedSample[]) =>
    samples.filter((sample) => choice.get(sample) === teacher);
  const heldOut = prepared.sets.heldOut.map((set) => ({ ...set, samples: own(set.samples) }));
  return {
    ...prepared,
    train: own(prepared.train),
    heldOut: own(prepared.heldOut),
    sets: { ...prepared.sets, heldOut },
  };
}

/** A prepared run as if one of several teachers were the only one. */
export function preparedOf(prepared: PreparedRun, teacher: number): PreparedRun {
  const { recipe, teachers } = prepared;
  return { ...prepared, teacher: teachers[teacher]!, recipe: recipeOfTeacher(recipe, teacher) };
}

/** Likewise, what it trains. */
export function setupOf(setup: TrainingSetup, teacher: number): TrainingSetup {
  return { ...setup, teacher: setup.teachers[teacher]!, recipe: recipeOfTeacher(setup.recipe, teacher) };
}
