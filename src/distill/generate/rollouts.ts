/**
 * On-policy distillation: every few steps the student, as it then is, answers prompts of the training data, and its answers take the place
 * of samples of the next batches (GKD, Agarwal et al., arXiv 2306.13649, algorithm 1; there a whole batch is either the one or the other).
 *
 * What is asked, and every random number, follows from the seed and the step. Answers that steps to come will learn from are part of a
 * checkpoint, since the student that wrote them is not there any more.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../../base/random.ts";
import { type Batches, upcoming } from "../../text/batch_stream.ts";
import type { PackedBatch } from "../../text/packing.ts";
import type { RolloutState } from "../checkpoint/checkpoint.ts";
import { ROLLOUT, rolloutBlocks, rolloutOptions } from "../program/written/rollout_blocks.ts";
import type { Trainer } from "../program/trainer.ts";
import type { OnPolicyRecipe } from "../recipe/recipe.ts";
import { Generator } from "./generator.ts";
import {
  type RolloutAlarm,
  rolloutAlarms,
  type RolloutStatistics,
  rolloutStatistics,
} from "./rollout_statistics.ts";
import { type Answer, rolloutWindow, withAnswers } from "./rollout_window.ts";

/** What the student has written for some steps. */
export interface RolloutReport {
  readonly statistics: RolloutStatistics;
  /** Those that the rollout before did not give. */
  readonly alarms: readonly RolloutAlarm[];
  readonly seconds: number;
}

/** Tells these random numbers from those of other users of a seed. */
const SITE = 0x74657874;

/** The student's own texts in a run. */
export class Rollouts {
  readonly #trainer: Trainer;
  readonly #recipe: OnPolicyRecipe;
  readonly #stopTokens: readonly number[];
  readonly #generator: Generator;
  #state: RolloutState = { told: [] };

  private constructor(
    trainer: Trainer,
    recipe: OnPolicyRecipe,
    stopTokens: readonly number[],
    generator: Generator,
  ) {
    [this.#trainer, this.#recipe, this.#stopTokens] = [trainer, recipe, stopTokens];
    this.#generator = generator;
  }

  /** Makes the blocks of a trainer's program ready that the student writes with; undefined where its recipe has no rollouts. */
  static async open(trainer: Trainer, stopTokens: readonly number[]): Promise<Rollouts | undefined> {
    const { executable, setup } = trainer;
    const { onPolicy } = setup.recipe.train;
    if (!onPolicy) return undefined;
    for (const block of rolloutBlocks(trainer.planned.plan)) await executable.ready(block);
    const generator = Generator.within(executable, setup.student, rolloutOptions(setup), ROLLOUT);
    return new Rollouts(trainer, onPolicy, stopTokens, generator);
  }

  /** Whether answers are to be written before a step. */
  isDue(step: number): boolean {
    return step % this.#recipe.every === 0;
  }

  /**
   * Lets the student answer, for this step and those up to the next rollout. Waits for all queued work.
   *
   * @param step Steps done
   * @param batches Stand before the first batch of the step
   */
  async write(step: number, batches: Batches, onSlice: () => void = () => {}): Promise<RolloutReport> {
    const begun = performance.now();
    const { train, data } = this.#trainer.setup.recipe;
    const { every, temperature, topK, topP, alarms: limits } = this.#recipe;
    const steps = Math.min(every, train.steps - step);
    const { leaving, requests } = rolloutWindow(upcoming(batches, steps * train.accumulation), {
      ...this.#recipe,
      ...{ contextLength: data.contextLength, seed: train.seed, step },
      privilegedTokens: this.#trainer.planned.choices.privileged?.tokens,
    });
    const [high, low] = philox4x32([step, 0, 0, SITE], splitSeed(train.seed));
    const texts = await this.#generator.generate(requests.map(({ prompt }) => prompt), {
      ...{ temperature, topK, topP, stopTokens: this.#stopTokens, onSlice },
      seed: high * 2 ** 21 + (low >>> 11),
      maxTokens: requests.map(({ limit }) => limit),
    });
    const statistics = rolloutStatistics(texts, limits.ngram);
    const alarms = rolloutAlarms(statistics, limits);
    const isNew = ({ code }: RolloutAlarm) => !this.#state.told.includes(code);
    const report = {
      ...{ statistics, alarms: alarms.filter(isNew) },
      seconds: (performance.now() - begun) / 1000,
    };
    this.#state = {
      told: alarms.map(({ code }) => code),
      waiting: leaving.map((members, i) => ({
        leaving: [...members],
        answers: requests.flatMap(({ batch, member }, r): Answer[] => {
          if (batch !== i) return [];
          const { tokens, stopToken, logProbabilities } = texts[r]!;
          return [{
            member,
            tokens: stopToken === undefined ? [...tokens] : [...tokens, stopToken],
            logProbabilities: [...logProbabilities],
          }];
        }),
      })),
    };
    return report;
  }

  /** The next batch with the answers that were written for it. */
  next(batch: PackedBatch): PackedBatch {
    const [first, ...waiting] = this.#state.waiting ?? [];
    this.#state = { told: this.#state.told, ...(waiting.length > 0 ? { waiting } : {}) };
    return first ? withAnswers(batch, first.leaving, first.answers, this.#recipe.promptTokens) : batch;
  }

  /** What a checkpoint keeps of it. */
  state(): RolloutState {
    return this.#state;
  }

  /** Continues where a checkpoint was written. */
  restore(state: RolloutState): void {
    this.#state = state;
  }

  /** Frees what is its own. */
  close(): void {
    this.#generator.destroy();
  }
}
