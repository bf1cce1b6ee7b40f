/**
 * Runs as fine-tuning jobs: the job, its events and its checkpoints.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import type { RunEvent } from "../../distill/run/events.ts";
import { eventText } from "../../runs/report/event_text.ts";
import { stateNow } from "../../runs/store/run_summary.ts";
import type { StoredCheckpoint, StoredRun } from "../../runs/store/store.ts";
import { distillationOf } from "../../runs/task/run_recipe.ts";
import { runModelName } from "../run_model.ts";
import { type Hide, hideIn, shownRecipe } from "../run_view.ts";
import { resultFiles } from "./step_metrics.ts";

const STATUS: Readonly<Record<string, string>> = { interrupted: "queued" };

/** A job names one file; of several it gets the names, with commas. */
const fileOrSets = z.union([
  z.string(),
  z.array(z.looseObject({ path: z.string() })).transform((sets) => sets.map(({ path }) => path).join(", ")),
]);

/** What a job tells of its recipe. */
const jobRecipe = z.looseObject({
  teacher: z.looseObject({ model: z.string() }),
  student: z.looseObject({ model: z.string().optional(), layers: z.unknown().optional() }).optional(),
  data: z.looseObject({ train: fileOrSets, heldOut: fileOrSets.optional() }),
  objective: z.unknown().optional(),
  adapter: z.unknown().optional(),
});

/** A run as a job. */
export function jobView(run: StoredRun, hide: Hide, trainedTokens: number | null) {
  const recipe = jobRecipe.parse(shownRecipe(run, hide));
  const { train } = distillationOf(run.recipe, run.folder);
  const { teacher, student, data } = recipe;
  const state = stateNow(run);
  const hyperparameters = {
    n_epochs: "auto" as const,
    batch_size: train.accumulation,
    learning_rate_multiplier: "auto" as const,
  };
  return {
    id: run.id,
    object: "fine_tuning.job" as const,
    created_at: seconds(run.manifest.createdAt),
    finished_at: state === "paused" || run.finishedAt === null ? null : seconds(run.finishedAt),
    estimated_finish: null,
    status: STATUS[state] ?? state,
    model: student?.model === undefined || student.model === "teacher" ? teacher.model : student.model,
    fine_tuned_model: state === "succeeded" ? runModelName(run.id) : null,
    organization_id: run.owner,
    training_file: data.train,
    validation_file: data.heldOut ?? null,
    result_files: resultFiles(run),
    hyperparameters,
    method: methodOf(run, recipe, hyperparameters),
    trained_tokens: trainedTokens,
    seed: train.seed,
    error: run.error && state === "failed"
      ? { code: run.error.code, message: hide(run.error.message), param: null }
      : null,
    integrations: [],
    metadata: { ...run.metadata },
  };
}

/** How a run learns, in the words of a job: from the data alone, or from a teacher. */
function methodOf(
  run: StoredRun,
  { teacher, student, objective, adapter }: z.output<typeof jobRecipe>,
  hyperparameters: object,
) {
  const recipe = distillationOf(run.recipe, run.folder);
  const learnsDataAlone = recipe.objective.every(({ loss }) => loss === "cross-entropy");
  if (
    learnsDataAlone && recipe.student.model === "teacher" && recipe.student.layers === undefined &&
    recipe.student.shape === undefined
  ) {
    return { type: "supervised" as const, supervised: { hyperparameters } };
  }
  return {
    type: "distillation" as const,
    distillation: {
      teacher: teacher.model,
      ...(student?.layers === undefined ? {} : { layers: student.layers }),
      ...(objective === undefined ? {} : { objective }),
      ...(adapter === undefined ? {} : { adapter }),
      hyperparameters,
    },
  };
}

/** An event of a run as one of its job. */
export function jobEventView(id: string, stored: RunEvent, hide: Hide) {
  const event = hideIn(stored, hide);
  const level = event.type === "error" ? "error" : event.type === "warning" ? "warn" : "info";
  return {
    id: eventId(id, event.seq),
    object: "fine_tuning.job.event" as const,
    created_at: seconds(event.time),
    level,
    message: eventText(event),
    type: event.type === "metrics" || event.type === "evaluation" ? "metrics" : "message",
    data: event.type === "metrics"
      ? { step: event.step, train_loss: event.loss, ...event.losses }
      : event.type === "evaluation"
      ? { step: event.step, model: event.model, full_valid_loss: event.loss, ...event.losses }
      : event,
  };
}

/** The number of the event with an id; undefined where it is none of the run. */
export function eventNumber({ id, seq }: StoredRun, given: string): number | undefined {
  const number = Number(/-(\d{1,15})$/.exec(given)?.[1] ?? NaN);
  return number >= 1 && number <= seq && given === eventId(id, number) ? number : undefined;
}

/**
 * A checkpoint of a run as one of its job.
 *
 * @param losses the run's metrics and evaluations that hold
 */
export function jobCheckpointView(id: string, { step, time }: StoredCheckpoint, losses: readonly RunEvent[]) {
  return {
    id: checkpointId(id, step),
    object: "fine_tuning.job.checkpoint" as const,
    created_at: seconds(time),
    fine_tuning_job_id: id,
    fine_tuned_model_checkpoint: runModelName(id, step),
    step_number: step,
    metrics: {
      step,
      ...lossAt(losses, "metrics", "train_loss", step),
      ...lossAt(losses, "evaluation", "full_valid_loss", step),
    },
  };
}

function lossAt(
  events: readonly RunEvent[],
  type: string,
  name: string,
  step: number,
): Record<string, number> {
  const found = events.findLast((event) =>
    event.type === type && "step" in event && event.step === step &&
    (!("model" in event) || event.model === "student")
  );
  const loss = found && "loss" in found ? found.loss : null;
  return loss === null ? {} : { [name]: loss };
}

/** Id of a run's checkpoint among those of its job. */
export function checkpointId(id: string, step: number): string {
  return `ftckpt-${id}-${step}`;
}

function eventId(id: string, seq: number): string {
  return `ftevent-${id}-${seq}`;
}

function seconds(time: string): number {
  return Math.floor(Date.parse(time) / 1000);
}
