/**
 * Planning the one pass of the teacher over all samples: its program, with the teacher's layers on the GPU or from disk.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { rows } from "../../tensor/ops/views.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import { splitSeed } from "../../base/random.ts";
import { RowCodec, type RowFormat } from "./cached_rows.ts";
import { chunkedLoss } from "../objective/chunked_loss.ts";
import { lossSums } from "../objective/loss_sums.ts";
import { labelInput } from "../program/measure.ts";
import { memoryError, type RunMemory, runMemory } from "../program/memory.ts";
import { LOSS_SUMS } from "../objective/loss_sets.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import type { TeacherCacheRecipe } from "../recipe/recipe.ts";
import { cachedSamples } from "./cache.ts";
import { teacherRows } from "../program/teacher_rows.ts";
import {
  streamedSide,
  type StreamedTeacher,
  streamTeacher,
  traceStreamedTeacher,
  waitingCounts,
} from "../program/streamed_teacher.ts";
import type { LayerSource } from "../program/streamed_layers.ts";
import { headInput, traceModel } from "../program/traced_model.ts";
import type { PlanChoices, TrainingSetup } from "../program/plan_training.ts";

/** The block that runs it. */
export const BLOCK = "teacher";
/** i32 [T]: 0, or -100 for positions of which nothing is kept. */
export const KEPT = "kept";
/** u32 [T]: what draws are counted by. */
export const COUNTERS = "counters";

/** What a run keeps of its teacher, and how; undefined where it has no cache. */
export function keptOf(
  { recipe, objective, teacher }: TrainingSetup,
): { cache: TeacherCacheRecipe; format: RowFormat } | undefined {
  const { cache } = recipe.teacher;
  if (!cache || !objective.target) return undefined;
  const vocabulary = teacher.config.vocabularySize;
  return { cache, format: { target: objective.target, precision: cache.precision, vocabulary } };
}

/** Bytes that the run's cache takes on disk, headers left out; undefined where it has none. */
export function cacheBytes(
  setup: TrainingSetup,
  { train, heldOut }: Pick<PreparedRun, "train" | "heldOut">,
): { row: number; total: number } | undefined {
  const kept = keptOf(setup);
  if (!kept) return undefined;
  const row = new RowCodec(kept.format).bytes;
  const rows = cachedSamples([...train, ...heldOut], setup.objective.masks).offsets.at(-1)!;
  return { row, total: row * rows };
}

/** The pass, planned. */
export interface PlannedPass {
  readonly plan: Plan;
  /** What it takes on the GPU. */
  readonly memory: RunMemory;
  /** Where the teacher's layers come from disk. */
  readonly streamed?: StreamedTeacher;
}

/** What a pass is planned for. */
export interface PassSizes {
  readonly choices: Pick<PlanChoices, "tokens" | "chunkRows">;
  readonly texts: { bytes(streamed?: LayerSource): number } | undefined;
  /** Bytes that there are for it, where that is known. */
  readonly availableBytes?: number | undefined;
}

/**
 * Plans the pass for streams like the training's. Pure: needs no GPU.
 *
 * @throws {DeviceError} with the numbers and what can be turned, where the recipe allows less
 */
export function planTeacherPass(
  setup: TrainingSetup,
  device: DeviceDescription,
  { choices, texts, availableBytes = Infinity }: PassSizes,
): PlannedPass {
  const { teacher, recipe } = setup;
  const { stream } = recipe.teacher;
  const allowed = recipe.limits.gpuBytes ?? Infinity;
  const counts = stream === false ? [] : waitingCounts(teacher, choices.tokens, 1, device);
  let last: PlannedPass | undefined;
  for (const waiting of [...(stream ? [] : [undefined]), ...counts]) {
    const streamed = waiting && streamTeacher(setup, choices.tokens, waiting, device) || undefined;
    const planned = plan(passProgram(setup, choices, streamed), device);
    const memory = runMemory(planned, texts?.bytes(streamed) ?? 0);
    last = { plan: planned, memory, ...(streamed ? { streamed } : {}) };
    if (memory.total <= Math.min(allowed, availableBytes)) return last;
  }
  const { memory } = last!;
  if (memory.total <= allowed) return last!;
  throw memoryError(memory, { bytes: allowed, name: "limits.gpuBytes" }, recipe, true);
}

function passProgram(
  setup: TrainingSetup,
  { tokens, chunkRows }: Pick<PlanChoices, "tokens" | "chunkRows">,
  streamed: StreamedTeacher | undefined,
): Program {
  const { recipe, teacher: model, objective } = setup;
  const { cache, format: { target } } = keptOf(setup)!;
  const program = new Program();
  const graph = program.block(BLOCK);
  const positions = recipe.data.contextLength;
  if (streamed) traceStreamedTeacher(program, streamed, { tokens, positions });
  const learner = streamed
    ? streamedSide(graph, streamed, { tokens, positions })
    : headInput(traceModel(graph, "teacher", model, tokens, { length: positions }), false);
  const losses = objective.rowLosses(objective.crossEntropy, graph);
  const labels = labelInput(graph, tokens, losses);
  const kept = graph.input(KEPT, [tokens], "i32");
  const part = (t: Tensor, first: number) => rows(t, first, chunkRows);
  const keep = (logits: Tensor, first: number) => {
    const draws = target.kind === "samples"
      ? { counters: part(graph.input(COUNTERS, [tokens], "u32"), first), seed: splitSeed(cache.seed) }
      : undefined;
    const made = teacherRows(part(kept, first), logits, target, draws);
    made.forEach((t, i) => graph.output(`${PARTS[i]} ${first}`, t));
  };
  const { values } = chunkedLoss(graph, {
    ...{ learner, ...labels, losses, chunkRows, gradient: false },
    onLogits: keep,
  });
  lossSums(
    values,
    graph.state(LOSS_SUMS.teacher, [losses.valueCount], "f32", "program"),
    graph.scalar("accumulate"),
  );
  return program;
}

/** Outputs of a chunk: ids, values, tails. */
export const PARTS = ["ids", "values", "tails"] as const;
