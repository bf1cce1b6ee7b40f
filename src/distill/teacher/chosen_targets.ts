/**
 * What is stored of several teachers, of which each sample has one.
 *
 * @module
 */
import type { PackedBatch } from "../../text/packing.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { countedPositions, type MarkedBatch } from "../objective/token_masks.ts";
import { markedOf, type SampleChoice } from "../program/sample_choice.ts";
import type { TargetFeed, TargetSource } from "../program/teacher_rows.ts";

/** Fills each position from what is stored of its sample's teacher. */
export class ChosenTargets implements TargetSource {
  readonly #sources: readonly (TargetSource | undefined)[];
  readonly #choice: SampleChoice;

  /**
   * @param sources By the teacher's number in the recipe; all store their rows in one form. Undefined where no sample has the teacher
   * @param choice Of all samples that will come
   */
  constructor(sources: readonly (TargetSource | undefined)[], choice: SampleChoice) {
    [this.#sources, this.#choice] = [sources, choice];
  }

  feed(positions: number): TargetFeed {
    const feeds = this.#sources.map((source) => source?.feed(positions));
    const inputs = feeds.find((feed) => feed !== undefined)!.inputs;
    return { inputs, fill: (batch, marked) => this.#fill(batch, marked, feeds, inputs, positions) };
  }

  /** Rows go into the inputs of the first feed, whose own are there already. */
  async #fill(
    batch: PackedBatch,
    marked: MarkedBatch,
    feeds: readonly (TargetFeed | undefined)[],
    inputs: TargetFeed["inputs"],
    positions: number,
  ): Promise<void> {
    for (const [i, feed] of feeds.entries()) {
      const own = markedOf(marked, batch, this.#choice, i);
      const rows = countedPositions(own, 0, batch.tokens.length);
      if (!feed || rows.length === 0) continue;
      await feed.fill(batch, own);
      if (feed.inputs === inputs) continue;
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
