/**
 * Planning the one pass of the teacher over all samples: its program, with the teacher's layers on the GPU or from disk.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import type { SparseTarget } from "../../losses/sparse_target.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { rows } from "../../tensor/ops/views.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import { splitSeed } from "../../base/random.ts";
import { hiddenPrecision } from "../objective/cache.ts";
import { chunkedLoss, type HeadInput } from "../objective/chunked_loss.ts";
import { lossSums } from "../objective/loss_sums.ts";
import { labelInput } from "../program/metrics/measure.ts";
import { memoryError, type RunMemory, runMemory } from "../program/memory.ts";
import { LOSS_SUMS } from "../objective/loss_sets.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import type { TeacherCacheRecipe } from "../recipe/recipe.ts";
import { countRows } from "./payload_sizes.ts";
import { keepsHidden, type PayloadFormat, rowStorage } from "./payload.ts";
import type { RowFormat } from "./cached_rows.ts";
import { teacherRows } from "../program/fed/teacher_rows.ts";
import {
  streamedSide,
  type StreamedTeacher,
  streamTeacher,
  traceStreamedTeacher,
  waitingCounts,
} from "../program/streamed/streamed_teacher.ts";
import type { LayerSource } from "../program/streamed/streamed_layers.ts";
import { headInput, traceModel } from "../program/traced_model.ts";
import type { PlanChoices, TrainingSetup } from "../program/plan_training.ts";

/** The block that runs the teacher, and the one that measures it too where that is more work. */
export const BLOCKS = { rows: "teacher", measured: "teacher.measured" } as const;
/** i32 [T]: 0, or -100 for positions of which nothing is kept. */
export const KEPT = "kept";
/** u32 [T]: what draws are counted by. */
export const COUNTERS = "counters";
/** f32 [T, H]: what the head reads. */
export const HIDDEN = "hidden";

/** What a run keeps of its teacher, of several of that which the setup is of, and how; undefined where it has no cache. */
export function keptOf(
  { recipe, objective, teacher }: TrainingSetup,
): { cache: TeacherCacheRecipe; format: PayloadFormat } | undefined {
  const { cache } = recipe.teacher;
  if (!cache) return undefined;
  const { hiddenSize: width, vocabularySize: vocabulary } = teacher.config;
  const hidden = hiddenPrecision(cache);
  if (hidden) return { cache, format: { width, precision: hidden } };
  const precision = cache.precision as RowFormat["precision"];
  return { cache, format: { target: objective.target!, precision, vocabulary } };
}

/** Bytes that the run's cache takes on disk, headers left out; undefined where it has none. */
export function cacheBytes(
  setup: TrainingSetup,
  { train, heldOut }: Pick<PreparedRun, "train" | "heldOut">,
): { row: number; total: number } | undefined {
  const kept = keptOf(setup);
  if (!kept) return undefined;
  const row = rowStorage(kept.format).bytes;
  return { row, total: row * countRows([...train, ...heldOut], setup.objective) };
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
  choices: Pick<PlanChoices, "tokens" | "chunkRows">,
  streamed: StreamedTeacher | undefined,
): Program {
  const { format } = keptOf(setup)!;
  const program = new Program();
  if (streamed) traceStreamedTeacher(program, streamed, passStream(setup, choices));
  if (keepsHidden(format)) {
    // Of hidden states alone no logits are made.
    const graph = program.block(BLOCKS.rows);
    graph.output(HIDDEN, passSide(graph, setup, choices, streamed).hidden);
    tracePass(program.block(BLOCKS.measured), setup, choices, streamed);
  } else tracePass(program.block(BLOCKS.rows), setup, choices, streamed);
  return program;
}

function passStream({ recipe }: TrainingSetup, { tokens }: Pick<PlanChoices, "tokens">) {
  return { tokens, positions: recipe.data.contextLength };
}

function passSide(
  graph: Graph,
  setup: TrainingSetup,
  choices: Pick<PlanChoices, "tokens">,
  streamed: StreamedTeacher | undefined,
): HeadInput {
  const sizes = passStream(setup, choices);
  return streamed ? streamedSide(graph, streamed, sizes) : headInput(
    traceModel(graph, "teacher", setup.teacher, sizes.tokens, { length: sizes.positions }),
    false,
  );
}

/** Traces the teacher with its cross-entropy and what is kept of it. */
function tracePass(
  graph: Graph,
  setup: TrainingSetup,
  choices: Pick<PlanChoices, "tokens" | "chunkRows">,
  streamed: StreamedTeacher | undefined,
): void {
  const { objective } = setup;
  const { tokens, chunkRows } = choices;
  const { cache, format } = keptOf(setup)!;
  const learner = passSide(graph, setup, choices, streamed);
  const losses = objective.rowLosses(objective.crossEntropy, graph);
  const labels = labelInput(graph, tokens, losses);
  const part = (t: Tensor, first: number) => rows(t, first, chunkRows);
  const keep = (logits: Tensor, first: number, target: SparseTarget) => {
    const kept = graph.input(KEPT, [tokens], "i32");
    const draws = target.kind === "samples"
      ? { counters: part(graph.input(COUNTERS, [tokens], "u32"), first), seed: splitSeed(cache.seed) }
      : undefined;
    const made = teacherRows(part(kept, first), logits, target, draws);
    made.forEach((t, i) => graph.output(`${PARTS[i]} ${first}`, t));
  };
  const { values } = chunkedLoss(graph, {
    ...{ learner, ...labels, losses, chunkRows, gradient: false },
    ...(keepsHidden(format) ? {} : { onLogits: (logits, first) => keep(logits, first, format.target) }),
  });
  if (keepsHidden(format)) graph.output(HIDDEN, learner.hidden);
  lossSums(
    values,
    graph.state(LOSS_SUMS.teacher, [losses.valueCount], "f32", "program"),
    graph.scalar("accumulate"),
  );
}

/** Outputs of a chunk: ids, values, tails. */
export const PARTS = ["ids", "values", "tails"] as const;
