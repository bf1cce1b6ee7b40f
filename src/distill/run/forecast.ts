/**
 * How long a run will take, measured: two steps and a little evaluation on the device itself.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import { packSequential } from "../../text/packing.ts";
import { BatchStream } from "../../text/batch_stream.ts";
import { Rollouts } from "../generate/rollouts.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { mixtureOf } from "../inputs/sample_sets.ts";
import { type SampleChoice } from "../program/sample_choice.ts";
import { Trainer } from "../program/trainer.ts";
import { otherTokens, type PlannedTraining, type TrainingSetup } from "../program/plan_training.ts";
import { teachersBySample } from "../recipe/teachers.ts";

/** Seconds of a run. */
export interface Forecast {
  /** Until the first step can begin: uploading, compiling. */
  readonly setUp: number;
  readonly step: number;
  /** One measurement on all held-out samples. */
  readonly evaluation: number;
  /** What the student writes at once to learn from, at its longest; absent where it writes nothing. */
  readonly rollout?: number;
  /** The whole run without samples and exports. */
  readonly total: number;
}

/** Held-out samples that are measured for the forecast. */
const SAMPLES = 8;

/**
 * Runs the beginning of a run and throws it away. Needs as much memory as the run.
 *
 * @throws {DeviceError} if memory does not suffice
 */
export async function forecast(
  gpu: Gpu,
  prepared: PreparedRun,
  setup: TrainingSetup,
  planned: PlannedTraining,
): Promise<Forecast> {
  const { train } = prepared.recipe;
  const { tokens } = planned.choices;
  const beside = otherTokens(planned.choices);
  const choice = anyChoice(prepared, setup);
  const [trainer, created] = await timed(() => Trainer.create(gpu, setup, planned, { choice }));
  try {
    trainer.setState((await setup.trainables.initialValues(train.seed)).trained);
    const { sets, recipe: { data } } = prepared;
    const mixture = mixtureOf(data, sets.train);
    const stream = new BatchStream(prepared.train, {
      ...{ tokensPerBatch: tokens, seed: train.seed, ...mixture },
      ...(beside === undefined ? {} : { otherTokens: beside }),
    });
    const rollouts = await Rollouts.open(trainer, prepared.stopTokens);
    let rollout = 0;
    if (rollouts) {
      // Drivers put off work until a kernel is first used, so that only the second one counts.
      for (let i = 0; i < 2; i++) [, rollout] = await timed(() => rollouts.write(0, stream));
      rollouts.close();
    }
    const step = async (done: number) => {
      await trainer.step(done, Array.from({ length: train.accumulation }, () => stream.next()));
      await trainer.collect();
    };
    // Drivers put off work until a kernel is first used.
    const [, first] = await timed(() => step(0));
    const [, second] = await timed(() => step(1));
    const some = prepared.heldOut.slice(0, SAMPLES);
    const [, measured] = await timed(() => trainer.evaluate(some));
    const batches = (samples: PreparedRun["heldOut"]) => packSequential(samples, tokens, beside).length;
    const measuredBatches = sets.heldOut.reduce(
      (sum, { samples, report }) => sum + batches(samples) * report.samples / samples.length,
      0,
    );
    const evaluation = measured / batches(some) * measuredBatches;
    // The teacher alone takes less, and is counted as one more measurement of the student.
    const between = train.evaluateEvery > 0 ? Math.ceil(train.steps / train.evaluateEvery) - 1 : 0;
    const setUp = created + Math.max(0, first - second);
    return {
      setUp,
      step: second,
      evaluation,
      ...(rollouts ? { rollout } : {}),
      total: setUp + train.steps * second + (3 + between) * evaluation +
        rollout * Math.ceil(train.steps / (train.onPolicy?.every ?? 1)),
    };
  } finally {
    trainer.destroy();
  }
}

/** Where each sample has one of several teachers and which is not known yet: one after another. */
function anyChoice({ train, heldOut }: PreparedRun, { recipe }: TrainingSetup): SampleChoice {
  const teachers = teachersBySample(recipe.teacher);
  return new Map(teachers === 0 ? [] : [...train, ...heldOut].map((sample, i) => [sample, i % teachers]));
}

async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const begin = performance.now();
  const result = await work();
  return [result, (performance.now() - begin) / 1000];
}
