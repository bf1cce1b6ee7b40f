/**
 * Lets a device choose its kernels: those of a plan's choices that look fastest on paper are timed against the one that stands first, and
 * against the best so far.
 *
 * @module
 */
import { DeviceError } from "../base/errors.ts";
import type { Gpu } from "../gpu/device.ts";
import { AIMED_SECONDS, timeInTurn } from "../gpu/stopwatch.ts";
import type { ChosenKernel } from "../tensor/variants.ts";
import { distance, planTrial, Trial, type TrialOutputs, workOf } from "./trial.ts";
import { TrialData } from "./trial_data.ts";
import { kernelTexts, type TriedKernel, type TunedChoice } from "./tuned.ts";

/** How much is tried. */
export interface TuneOptions {
  /**
   * Kernels that are timed for a choice, beside the one that stands first (default {@linkcode TRIALS}); with `Infinity` even those that can
   * hardly win.
   */
  readonly trials?: number;
  /** Seconds after which no further kernel is tried (default none); one is, however little time there is. */
  readonly seconds?: number;
  /** Bytes that trials may take (default 2 GiB); choices that need more keep the kernel that stands first. */
  readonly bytes?: number;
  /** Told before each trial how far the work is. */
  readonly onProgress?: (progress: TuneProgress) => void;
  /** Asked before each trial; the choice in the middle of which it stops is not made. */
  readonly stopped?: () => boolean;
}

/** How far the work is. */
export interface TuneProgress {
  /** Trials so far, and of all choices, if none is cut short. */
  readonly done: number;
  readonly total: number;
  /** What is tried. */
  readonly key: string;
  readonly kernel: string;
}

/** What was found. */
export interface Tuning {
  readonly choices: readonly TunedChoice[];
  /** Choices for which there was no time, or no memory, or nothing to compare: why, by key. */
  readonly left: Readonly<Record<string, string>>;
  readonly seconds: number;
}

/** Kernels that are timed for a choice where nothing else is asked for: docs/tuning.md shows what more would give. */
export const TRIALS = 8;

/** The same in a run that has not asked for it, and the seconds after which that begins no further choice. */
export const RUN_BUDGET = { trials: 4, seconds: 8 } as const;

const DEFAULT_BYTES = 2 * 2 ** 30;

/** Rounds of what is timed in turn. */
const ROUNDS = 5;

/** The same where all programs of a machine share the processor that plays the GPU, for passes of so many seconds at most. */
const SHARED_ROUNDS = 15;
const SHARED_PASS = 0.02;

/** A kernel that takes so much longer at first sight is not looked at again. */
const FAR_OFF = 1.6;

/** A kernel has to be so much better than the best so far: what is less may be chance. */
const MARGIN = 0.97;

/**
 * How far numbers may be from those of the kernel that stands first, over their size: ten times what rounding in another order comes to
 * over the longest sums.
 */
const CLOSE = 1e-4;

/** Most runs of a kernel in one pass. */
const MOST_TURNS = 64;

/** The most seconds that one pass should take. */
const LONGEST_PASS = 0.25;

/**
 * Finds the best kernel for each choice. The work is the same each time, what is found is not.
 *
 * @throws {DeviceError} if the device is lost
 */
export async function tuneKernels(
  gpu: Gpu,
  choices: Iterable<ChosenKernel>,
  options: TuneOptions = {},
): Promise<Tuning> {
  const { trials = TRIALS, seconds = Infinity, stopped = () => false } = options;
  const begun = performance.now();
  const elapsed = () => (performance.now() - begun) / 1000;
  const several = [...choices].filter(({ candidates }) => candidates.length > 1);
  // Where most of the time goes comes first, should there be no time for all.
  several.sort((a, b) => weight(b) - weight(a));
  const wanted = several.map((choice) => byCost(choice, trials === Infinity).slice(0, trials));
  const total = wanted.reduce((sum, names) => sum + names.length, 0);
  const [found, left]: [TunedChoice[], Record<string, string>] = [[], {}];
  const data = new TrialData();
  const late = () => elapsed() > seconds;
  let done = 0;
  for (const [i, choice] of several.entries()) {
    const { key } = choice;
    const work = {
      ...{ data, stopped, late, names: wanted[i]!, bytes: options.bytes ?? DEFAULT_BYTES },
      begin: (kernel: string) => options.onProgress?.({ done: done++, total, key, kernel }),
    };
    const outcome = i > 0 && late() ? "there was no time for it" : await contest(gpu, choice, work);
    if (typeof outcome === "string") left[key] = outcome;
    else found.push(outcome);
  }
  return { choices: found, left, seconds: elapsed() };
}

/** Seconds that a choice accounts for on paper. */
function weight({ candidates, uses }: ChosenKernel): number {
  return candidates[0]!.cost * uses;
}

/** What costs so much more on paper than the cheapest is not tried: costs are rough, but not as rough as that. */
const HOPELESS = 4;

/**
 * Candidates but the first, the fastest on paper at the front.
 *
 * @param hopeless Whether those that can hardly win are among them
 */
export function byCost({ candidates }: ChosenKernel, hopeless = false): string[] {
  const least = Math.min(...candidates.map(({ cost }) => cost));
  return candidates.slice(1).filter(({ cost }) => hopeless || cost <= HOPELESS * least)
    .toSorted((a, b) => a.cost - b.cost).map(({ name }) => name);
}

interface Contest {
  readonly data: TrialData;
  readonly names: readonly string[];
  readonly bytes: number;
  begin(kernel: string): void;
  stopped(): boolean;
  late(): boolean;
}

/** Times the kernels of one choice; says why where that cannot be. */
async function contest(
  gpu: Gpu,
  choice: ChosenKernel,
  { data, names, bytes, begin, stopped, late }: Contest,
): Promise<TunedChoice | string> {
  const stop = "it was stopped";
  if (stopped()) return stop;
  const first = choice.candidates[0]!.name;
  const planned = planTrial(choice, first, gpu.description);
  // The best so far and one other are there at a time, and what they share is counted twice.
  if (2 * planned.plan.totalBytes > bytes) return "it would take more memory than there is for it";
  const weights = await data.weights(gpu, planned.plan);
  const open = async (kernel: string) => {
    const trial = await Trial.open(gpu, planTrial(choice, kernel, gpu.description), weights, data);
    try {
      return { trial, outputs: await trial.outputs() };
    } catch (error) {
      trial.destroy();
      throw error;
    }
  };
  let best: Contender | undefined;
  try {
    const begun = await gpu.apart(`the kernel ${first}`, () => open(first)).catch(told);
    if (typeof begun === "string") return begun;
    best = { trial: begun.trial, seconds: await oneRun(gpu, begun.trial), ratio: 1 };
    if (Number.isNaN(distance(begun.outputs, begun.outputs))) return "its trial gives nothing to compare";
    const tried: TriedKernel[] = [];
    for (const kernel of names) {
      if (stopped()) return stop;
      // The best of those tried is worth having; `limbeck tune` tries the others.
      if (tried.length > 0 && late()) break;
      begin(kernel);
      const outcome = await gpu.apart(`the kernel ${kernel}`, async () => {
        const { trial, outputs } = await open(kernel);
        return await against(gpu, trial, outputs, best!, begun.outputs);
      }).catch(told);
      // A device that is lost refuses everything.
      gpu.check();
      if (typeof outcome === "string") {
        tried.push({ kernel, refused: outcome });
        continue;
      }
      tried.push({ kernel, ratio: outcome.ratio });
      if (outcome.ratio < MARGIN * best.ratio) {
        best.trial.destroy();
        best = outcome;
      } else outcome.trial.destroy();
    }
    const seconds = await alone(gpu, best);
    return {
      ...{ key: choice.key, text: await kernelTexts(choice, gpu), kernel: best.trial.kernel, first },
      ...{ seconds, firstSeconds: seconds / best.ratio, ...workOf(planned) },
      ...{ candidates: choice.candidates.length, tried },
    };
  } finally {
    best?.trial.destroy();
    weights.forEach((buffer) => buffer.destroy());
  }
}

/** A kernel that may be the best. */
interface Contender {
  readonly trial: Trial;
  /** Of one run. */
  readonly seconds: number;
  /** Seconds over those of the kernel that stands first. */
  readonly ratio: number;
}

/** Times a kernel beside the best so far, or says why it is out of the question. */
async function against(
  gpu: Gpu,
  trial: Trial,
  outputs: TrialOutputs,
  best: Contender,
  wanted: TrialOutputs,
): Promise<Contender | string> {
  try {
    const off = distance(outputs, wanted);
    if (!(off < CLOSE)) {
      trial.destroy();
      return `its numbers are off by ${Number.isFinite(off) ? off.toExponential(1) : "any amount"}`;
    }
    const many = turns(gpu, best.seconds);
    const inTurn = async (rounds: number): Promise<Contender> => {
      const times = await timeInTurn(gpu, [best.trial.track(many), trial.track(many)], rounds);
      // The least of each: what else the machine does only ever adds.
      const [others, mine] = times.map((seconds) => Math.min(...seconds)) as [number, number];
      return { trial, seconds: mine, ratio: best.ratio * mine / others };
    };
    const atFirstSight = await inTurn(2);
    if (atFirstSight.ratio > FAR_OFF * best.ratio) return atFirstSight;
    const rounds = roundsOf(gpu, many * atFirstSight.seconds);
    const found = await inTurn(rounds);
    if (found.ratio >= MARGIN * best.ratio) return found;
    // Who is to take the other's place must win twice.
    const again = await inTurn(rounds);
    return again.ratio > found.ratio ? again : found;
  } catch (error) {
    trial.destroy();
    throw error;
  }
}

/** Seconds of a run, at first sight: nothing that is done once is in them. */
async function oneRun(gpu: Gpu, trial: Trial): Promise<number> {
  const [[seconds]] = await timeInTurn(gpu, [trial.track(1)], 2) as [number[]];
  const many = turns(gpu, seconds!);
  if (many === 1) return seconds!;
  const [times] = await timeInTurn(gpu, [trial.track(many)], 2) as [number[]];
  return Math.min(...times);
}

function roundsOf({ adapter }: Gpu, passSeconds: number): number {
  return adapter.info.isFallbackAdapter && passSeconds <= SHARED_PASS ? SHARED_ROUNDS : ROUNDS;
}

/** Seconds of a run of the best, as good as they get. */
async function alone(gpu: Gpu, { trial, seconds }: Contender): Promise<number> {
  const [times] = await timeInTurn(gpu, [trial.track(turns(gpu, seconds))], 3) as [number[]];
  return Math.min(...times);
}

/** Runs in a pass, so that it takes long enough to be measured. */
function turns(gpu: Gpu, seconds: number): number {
  const aim = gpu.features.has("timestamp-query") ? AIMED_SECONDS.timestamps : AIMED_SECONDS.wall;
  const most = Math.min(MOST_TURNS, Math.floor(LONGEST_PASS / seconds));
  return Math.max(1, Math.min(most, Math.ceil(aim / seconds)));
}

/** What a device refused, in words. An error of another kind is nobody's to hide. */
function told(error: unknown): string {
  if (error instanceof DeviceError) return error.message;
  throw error;
}
