/**
 * The cross-entropy of a teacher over the supervised tokens of each sample: of one whose weights are here by running it; of one behind a
 * server as it said, or by its head from the hidden states that it gave.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu } from "../../gpu/device.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { IGNORED_LABEL, type PackedBatch, packSequential } from "../../text/packing.ts";
import { InputError } from "../../base/errors.ts";
import { type Model, uploadWeights } from "../inputs/models.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { hiddenPrecision } from "../objective/cache.ts";
import { chunkedLoss, targetLosses } from "../objective/chunked_loss.ts";
import type { MarkedBatch } from "../objective/token_masks.ts";
import { hiddenTarget } from "../program/fed/hidden_target.ts";
import { labelInput, writeBatch } from "../program/metrics/measure.ts";
import type { PlanChoices, TrainingSetup } from "../program/plan_training.ts";
import { runInSlices } from "../program/slices.ts";
import {
  streamedSide,
  type StreamedTeacher,
  streamTeacher,
  traceStreamedTeacher,
  waitingCounts,
} from "../program/streamed/streamed_teacher.ts";
import { TeacherStream } from "../program/streamed/teacher_stream.ts";
import { headInput, traceModel } from "../program/traced_model.ts";
import { openCache } from "./cache.ts";
import { CacheFolder } from "./cache_folder.ts";
import { wantedCache } from "./make_cache.ts";
import { keptLosses, lossesOf } from "./sample_losses.ts";
import { missingAnswers } from "./served.ts";

const [BLOCK, ROWS] = ["teacher", "row losses"] as const;

/** How teachers are measured. */
export interface MeasuringSizes {
  /** Folders of caches, where the recipe names none; the first is the run's own. */
  readonly caches: readonly string[];
  readonly choices: Pick<PlanChoices, "tokens" | "chunkRows">;
  /** Bytes that there are on the GPU, where that is known. */
  readonly availableBytes?: number | undefined;
}

/**
 * Sums of the cross-entropy over the supervised tokens of each sample, nats. What positions come to is f32 on the GPU, their sums f64.
 *
 * @param prepared A run with this teacher as its only one, and `setup` likewise
 * @param onSlice Called several times a batch. What it throws ends the work
 * @throws {InputError} its logits are not finite; or, of one behind a server, what it says of a sample has not been asked
 */
export async function sampleLosses(
  gpu: Gpu,
  prepared: PreparedRun,
  setup: TrainingSetup,
  samples: readonly EncodedSample[],
  sizes: MeasuringSizes,
  onSlice: () => void,
): Promise<readonly number[]> {
  const { server, cache } = setup.recipe.teacher;
  if (!server) return await runOver(gpu, setup, samples, sizes, onSlice);
  const wanted = (await wantedCache(prepared, setup, sizes.caches))!;
  const folder = await CacheFolder.open(wanted.place, wanted.origin);
  const precision = hiddenPrecision(cache);
  if (!precision) {
    const found = lossesOf(await keptLosses(folder), samples);
    const missing = found.filter((loss) => loss === undefined).length;
    if (missing > 0) throw missingAnswers(folder.path, missing);
    return found as number[];
  }
  const keys = new Map(samples.map((sample) => [sample, wanted.keys.get(sample)!]));
  const missing =
    keys.values().filter(({ hash, positions }) => positions.length > 0 && folder.entry(hash) === undefined)
      .toArray().length;
  if (missing > 0) throw missingAnswers(folder.path, missing);
  const rows = await openCache(folder, keys, { heldOut: [], texts: null }, onSlice);
  const program = new Program();
  const graph = program.block(BLOCK);
  const { tokens, chunkRows } = sizes.choices;
  const losses = setup.objective.rowLosses(setup.objective.crossEntropy, graph);
  const target = hiddenTarget(
    graph,
    setup.teacher,
    { tokens, positions: setup.recipe.data.contextLength },
    precision,
  );
  graph.output(
    ROWS,
    targetLosses(graph, { target, ...labelInput(graph, tokens, losses), losses, chunkRows }),
  );
  const planned = plan(program, gpu.description);
  const weights = await uploadWeights(gpu, planned, [setup.teacher], onSlice);
  const opened: { destroy(): void }[] = [...weights.values()];
  try {
    const executable = await compile(gpu, planned, { weights, onProgress: onSlice });
    opened.unshift(executable);
    const feed = rows.feed(tokens);
    return await lossesOfBatches(executable, setup, samples, sizes, {
      async write(batch, marked) {
        writeBatch(executable, batch, marked);
        await feed.fill(batch, marked);
        for (const [name, data] of feed.inputs) executable.write(name, data);
      },
      run: () => runInSlices(executable, BLOCK, onSlice),
    });
  } finally {
    rows.close();
    for (const one of opened) one.destroy();
  }
}

/** Of a teacher that is here. */
async function runOver(
  gpu: Gpu,
  setup: TrainingSetup,
  samples: readonly EncodedSample[],
  sizes: MeasuringSizes,
  onSlice: () => void,
): Promise<number[]> {
  const { choices, availableBytes } = sizes;
  const { teacher: model } = setup;
  const { plan, streamed } = planOne(setup, gpu.description, choices, availableBytes);
  const weights = await uploadWeights(gpu, plan, [model], onSlice);
  const opened: { destroy(): void }[] = [...weights.values()];
  let stream: TeacherStream | undefined;
  try {
    const executable = await compile(gpu, plan, { weights, onProgress: onSlice });
    opened.unshift(executable);
    const run = (block: string) => runInSlices(executable, block, onSlice);
    stream = streamed && new TeacherStream(executable, streamed, weights, run, onSlice);
    return await lossesOfBatches(executable, setup, samples, sizes, {
      ...(stream ? { ahead: { most: stream.most, run: (batches) => stream!.pass(batches) } } : {}),
      write(batch, marked, i) {
        writeBatch(executable, batch, marked);
        stream?.select(i);
        return Promise.resolve();
      },
      run: () => run(BLOCK),
    });
  } finally {
    stream?.close();
    for (const one of opened) one.destroy();
  }
}

/** How a batch goes through a program that leaves the loss of each position. */
interface BatchRunner {
  readonly ahead?: { readonly most: number; run(batches: readonly PackedBatch[]): Promise<void> };
  /** Puts a batch into the program's inputs; `i` is its place among those of `ahead`. */
  write(batch: PackedBatch, marked: MarkedBatch, i: number): Promise<void>;
  run(): Promise<void>;
}

async function lossesOfBatches(
  executable: Executable,
  { objective, teacher }: TrainingSetup,
  samples: readonly EncodedSample[],
  { choices }: MeasuringSizes,
  { ahead, write, run }: BatchRunner,
): Promise<number[]> {
  objective.setEvaluationScalars(executable);
  const found: number[] = [];
  const batches = packSequential(samples, choices.tokens);
  for (const [n, batch] of batches.entries()) {
    const i = n % (ahead?.most ?? 1);
    if (i === 0) await ahead?.run(batches.slice(n, n + ahead.most));
    await write(batch, objective.masks.mark(batch), i);
    await run();
    const losses = (await executable.read([ROWS], BLOCK)).get(ROWS)!.data as Float32Array;
    const sums = batch.members.map(() => 0);
    batch.label.forEach((label, t) => {
      if (label !== IGNORED_LABEL) sums[batch.segment[t]!]! += losses[t]!;
    });
    found.push(...sums);
  }
  checkFinite(found, samples, teacher);
  return found;
}

function checkFinite(losses: readonly number[], samples: readonly EncodedSample[], { path }: Model): void {
  const bad = losses.findIndex((loss) => !Number.isFinite(loss));
  if (bad < 0) return;
  const { file, line } = samples[bad]!.source;
  throw new InputError("the teacher's logits are not finite numbers here", {
    where: `${file}:${line}`,
    hint: `The weights of ${path} are damaged, or too large for f32: check the model.`,
  });
}

/** With the layers on the GPU, or from disk where the recipe keeps its teachers and one does not fit. */
function planOne(
  setup: TrainingSetup,
  device: DeviceDescription,
  choices: MeasuringSizes["choices"],
  availableBytes = Infinity,
): { plan: Plan; streamed: StreamedTeacher | undefined } {
  const { recipe: { teacher: { cache, stream }, limits }, teacher: model } = setup;
  const isStreamable = cache !== undefined && stream !== false && model !== setup.student;
  const ways = [undefined, ...(isStreamable ? waitingCounts(model, choices.tokens, 1, device) : [])];
  let last: { plan: Plan; streamed: StreamedTeacher | undefined } | undefined;
  for (const waiting of ways) {
    const streamed = waiting === undefined
      ? undefined
      : streamTeacher(setup, choices.tokens, waiting, device);
    last = { plan: plan(programOne(setup, choices, streamed), device), streamed };
    if (last.plan.totalBytes <= Math.min(limits.gpuBytes ?? Infinity, availableBytes)) break;
  }
  return last!;
}

function programOne(
  { recipe, teacher: model, objective }: TrainingSetup,
  { tokens, chunkRows }: MeasuringSizes["choices"],
  streamed: StreamedTeacher | undefined,
): Program {
  const program = new Program();
  const graph = program.block(BLOCK);
  const sizes = { tokens, positions: recipe.data.contextLength };
  if (streamed) traceStreamedTeacher(program, streamed, sizes);
  const learner = streamed
    ? streamedSide(graph, streamed, sizes)
    : headInput(traceModel(graph, "teacher", model, tokens, { length: sizes.positions }), false);
  const losses = objective.rowLosses(objective.crossEntropy, graph);
  const { values } = chunkedLoss(graph, {
    ...{ learner, losses, chunkRows, gradient: false },
    ...labelInput(graph, tokens, losses),
  });
  // One loss: the rows of one chunk follow those of the one before.
  graph.output(ROWS, values);
  return program;
}
