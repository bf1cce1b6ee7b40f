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
import { markedOf, type SampleChoice } from "../program/sample_choice.ts";
import type { TargetFeed, TargetSource } from "../program/fed/teacher_rows.ts";

/** Fills the targets of several teachers. */
export class TeacherTargets implements TargetSource {
  readonly #sources: readonly (TargetSource | undefined)[];
  readonly #choice: SampleChoice | undefined;
  readonly #names: readonly string[] | undefined;

  /**
   * @param sources By the teacher's number in the recipe; undefined where no sample has the teacher
   * @param choice The teacher of each sample that will come, where each has one
   * @param names What the teachers are called in the program, where each has inputs of its own there. Otherwise all fill the same inputs,
   *   each the positions of its samples, and so store their rows in one form
   */
  constructor(
    sources: readonly (TargetSource | undefined)[],
    choice: SampleChoice | undefined,
    names: readonly string[] | undefined,
  ) {
    [this.#sources, this.#choice, this.#names] = [sources, choice, names];
  }

  feed(positions: number): TargetFeed {
    const feeds = this.#sources.map((source) => source?.feed(positions));
    const names = this.#names;
    const inputs = names
      ? new Map(
        feeds.flatMap((feed, i) =>
          [...feed?.inputs ?? []].map(([name, data]) => [inputOf(names[i]!, name), data])
        ),
      )
      : feeds.find((feed) => feed !== undefined)!.inputs;
    return { inputs, fill: (batch, marked) => this.#fill(batch, marked, feeds, inputs, positions) };
  }

  async #fill(
    batch: PackedBatch,
    marked: MarkedBatch,
    feeds: readonly (TargetFeed | undefined)[],
    inputs: TargetFeed["inputs"],
    positions: number,
  ): Promise<void> {
    for (const [i, feed] of feeds.entries()) {
      const own = this.#choice ? markedOf(marked, batch, this.#choice, i) : marked;
      const rows = countedPositions(own, 0, batch.tokens.length);
      if (!feed || rows.length === 0) continue;
      await feed.fill(batch, own);
      // Inputs of its own, or the first feed's, which all others are put into.
      if (this.#names || feed.inputs === inputs) continue;
      for (const [name, to] of inputs) {
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
