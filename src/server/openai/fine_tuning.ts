/**
 * Runs under the names of the OpenAI API's fine-tuning jobs, so that its stock clients drive Limbeck.
 *
 * A job's `model` is what is trained. With `method: {type: "supervised"}`, or none, it learns the data alone. With
 * `method: {type: "distillation", distillation: {teacher, layers?, objective?, adapter?}}` it learns from a teacher.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { RunEvent } from "../../distill/run/events.ts";
import { eventText } from "../../runs/report/event_text.ts";
import type { StoredRun } from "../../runs/store/store.ts";
import { stateNow } from "../../runs/store/run_summary.ts";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import { type Hide, hideIn } from "../run_view.ts";
import { json, metadata, otherwise, wholeNumberOr } from "../schemas.ts";
import type { Service } from "../service.ts";
import { submitRun } from "../submit.ts";
import { act, find, mustControl } from "../routes/runs.ts";

const autoOr = <T extends z.ZodType>(value: T) => z.union([z.literal("auto"), value]).optional();

const hyperparameters = z.looseObject({
  n_epochs: autoOr(z.number().gt(0).max(100)),
  batch_size: autoOr(z.number().int().min(1).max(4096)),
  learning_rate_multiplier: autoOr(z.number().gt(0).max(1000)),
});

const jobRequest = z.strictObject({
  model: z.string().min(1).openapi({ description: "The model that is trained, as GET /v1/models names it" }),
  training_file: z.string().min(1).openapi({
    description: "Id of an uploaded file, or the name of a dataset",
  }),
  validation_file: z.string().min(1).nullish(),
  hyperparameters: hyperparameters.nullish(),
  method: z.union([
    z.strictObject({
      type: z.literal("supervised"),
      supervised: z.strictObject({ hyperparameters: hyperparameters.nullish() }).nullish(),
    }),
    z.strictObject({
      type: z.literal("distillation"),
      distillation: z.strictObject({
        teacher: z.string().min(1),
        layers: z.array(z.number().int().min(0)).optional(),
        objective: z.array(z.record(z.string(), z.unknown())).optional(),
        adapter: z.union([z.record(z.string(), z.unknown()), z.literal("none")]).optional(),
        train: z.record(z.string(), z.unknown()).optional(),
        data: z.record(z.string(), z.unknown()).optional(),
        hyperparameters: hyperparameters.nullish(),
      }),
    }),
  ]).nullish(),
  seed: z.number().int().min(0).max(0xffff_ffff).nullish(),
  suffix: z.string().max(64).nullish(),
  metadata: metadata.nullish(),
  integrations: z.array(z.unknown()).max(0, "no integrations are known").nullish(),
}).openapi("FineTuningRequest");

type JobRequest = z.output<typeof jobRequest>;

const jobSchema = z.looseObject({
  id: z.string(),
  object: z.literal("fine_tuning.job"),
  status: z.string(),
  model: z.string(),
  fine_tuned_model: z.string().nullable(),
}).openapi("FineTuningJob");

const listOf = <T extends z.ZodType>(item: T) =>
  z.object({ object: z.literal("list"), data: z.array(item), has_more: z.boolean() });

const jobId = z.object({ id: z.string().min(1).max(64) });
const paging = (otherwise: number) =>
  z.object({ after: z.string().min(1).max(96).optional(), limit: wholeNumberOr(otherwise, 1, 100) });

const route = <M extends "get" | "post", P extends string, R extends object, S extends z.ZodType>(
  method: M,
  path: P,
  operationId: string,
  summary: string,
  request: R,
  answer: S,
) =>
  createRoute({
    method,
    path,
    operationId,
    summary,
    tags: ["fine-tuning"],
    request,
    responses: { 200: json(answer, summary), ...otherwise },
  });

const JOBS = "/v1/fine_tuning/jobs";

const create = route("post", JOBS, "createJob", "Begin a job", {
  body: { required: true as const, content: { "application/json": { schema: jobRequest } } },
}, jobSchema);
const list = route(
  "get",
  JOBS,
  "listJobs",
  "List jobs, the newest first",
  { query: paging(20) },
  listOf(jobSchema),
);
const get = route("get", `${JOBS}/{id}`, "getJob", "Show a job", { params: jobId }, jobSchema);
const events = route(
  "get",
  `${JOBS}/{id}/events`,
  "listJobEvents",
  "List what a job said, the newest first",
  { params: jobId, query: paging(20) },
  listOf(z.looseObject({ id: z.string(), object: z.literal("fine_tuning.job.event") })),
);
const checkpoints = route(
  "get",
  `${JOBS}/{id}/checkpoints`,
  "listJobCheckpoints",
  "List a job's checkpoints, the newest first",
  { params: jobId, query: paging(10) },
  listOf(z.looseObject({ id: z.string(), object: z.literal("fine_tuning.job.checkpoint") })),
);
const actions = (["cancel", "pause", "resume"] as const).map((action) =>
  [
    action,
    route(
      "post",
      `${JOBS}/{id}/${action}`,
      `${action}Job`,
      `${action[0]!.toUpperCase()}${action.slice(1)} a job`,
      {
        params: jobId,
      },
      jobSchema,
    ),
  ] as const
);

/** Adds the routes. */
export function addFineTuningRoutes(app: App, service: Service): void {
  const { store, catalogue } = service;

  app.openapi(create, async (c) => {
    const request = c.req.valid("json");
    const recipe = await recipeOf(service, request);
    const run = await submitRun(
      service,
      c.get("identity")!,
      {
        recipe,
        metadata: { ...request.metadata, ...(request.suffix ? { suffix: request.suffix } : {}) },
      },
      undefined,
      "",
    );
    return c.json(job(run, await catalogue.hide()), 200);
  });

  app.openapi(list, async (c) => {
    const { after, limit } = c.req.valid("query");
    const page = await store.list({ limit, ...(after ? { after } : {}) });
    const hide = await catalogue.hide();
    return c.json({
      object: "list" as const,
      data: page.data.map((run) => job(run, hide)),
      has_more: page.hasMore,
    }, 200);
  });

  app.openapi(
    get,
    async (c) => c.json(job(await find(service, c.req.valid("param").id), await catalogue.hide()), 200),
  );

  for (const [action, route] of actions) {
    app.openapi(route, async (c) => {
      const run = await find(service, c.req.valid("param").id);
      mustControl(c.get("identity")!, run);
      await act(service, run, action);
      return c.json(job(await find(service, run.id), await catalogue.hide()), 200);
    });
  }

  app.openapi(events, async (c) => {
    const run = await find(service, c.req.valid("param").id);
    const { after, limit } = c.req.valid("query");
    const cursor = after === undefined ? 0 : Number(/^ftevent-.*-(\d{1,15})$/.exec(after)?.[1] ?? NaN);
    if (Number.isNaN(cursor)) {
      throw new HttpError(400, `"${after}" is no event of this job`, { param: "after" });
    }
    const found = cursor === 1
      ? []
      : await store.events(run.id, { newestFirst: true, after: cursor, limit: limit + 1 });
    const hide = await catalogue.hide();
    const data = found.slice(0, limit).map((event) => jobEvent(run.id, hideIn(event, hide)));
    return c.json({ object: "list" as const, data, has_more: found.length > limit }, 200);
  });

  app.openapi(checkpoints, async (c) => {
    const run = await find(service, c.req.valid("param").id);
    const { after, limit } = c.req.valid("query");
    const all = (await store.checkpoints(run.id)).toReversed();
    const first = after === undefined
      ? 0
      : all.findIndex(({ step }) => checkpointId(run.id, step) === after) + 1;
    const losses = await store.events(run.id, { types: ["metrics", "evaluation"], holding: true });
    const data = all.slice(first, first + limit).map(({ step, time }) => ({
      id: checkpointId(run.id, step),
      object: "fine_tuning.job.checkpoint" as const,
      created_at: seconds(time)!,
      fine_tuning_job_id: run.id,
      fine_tuned_model_checkpoint: `run:${run.id}:step-${step}`,
      step_number: step,
      metrics: {
        step,
        ...lossAt(losses, "metrics", "train_loss", step),
        ...lossAt(losses, "evaluation", "full_valid_loss", step),
      },
    }));
    return c.json({ object: "list" as const, data, has_more: all.length > first + limit }, 200);
  });
}

/** Bytes of a dataset that make a token, about. */
const BYTES_A_TOKEN = 4;
const TOKENS_A_STEP = 1024;
const LEARNING_RATE = 2e-4;

/** The recipe that a job means. */
async function recipeOf(service: Service, request: JobRequest): Promise<Record<string, unknown>> {
  const { model, training_file, validation_file, method, seed } = request;
  const distillation = method?.type === "distillation" ? method.distillation : undefined;
  const given = distillation?.hyperparameters ??
    (method?.type === "supervised" ? method.supervised?.hyperparameters : undefined) ??
    request.hyperparameters ?? {};
  const number = (value: number | "auto" | undefined, otherwise: number) =>
    value === undefined || value === "auto" ? otherwise : value;
  const accumulation = number(given.batch_size, 1);
  const path = await service.catalogue.dataset(training_file);
  if (path === undefined) {
    throw new HttpError(400, `there is no file "${training_file}"; POST /v1/files uploads one`, {
      code: "unknown_file",
      param: "training_file",
    });
  }
  const tokens = (await Deno.stat(path)).size / BYTES_A_TOKEN;
  const epochs = number(given.n_epochs, 3);
  const steps = Math.max(1, Math.ceil(epochs * tokens / (TOKENS_A_STEP * accumulation)));
  return {
    teacher: { model: distillation?.teacher ?? model },
    student: {
      model: distillation === undefined || distillation.teacher === model ? "teacher" : model,
      ...(distillation?.layers ? { layers: distillation.layers } : {}),
    },
    data: {
      contextLength: 512,
      ...distillation?.data,
      train: training_file,
      ...(validation_file ? { heldOut: validation_file } : {}),
    },
    objective: distillation
      ? distillation.objective ??
        [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }]
      : [{ loss: "cross-entropy" }],
    ...(distillation?.adapter === undefined ? {} : { adapter: distillation.adapter }),
    train: {
      steps: Math.min(steps, service.caps.steps),
      tokensPerMicroBatch: TOKENS_A_STEP,
      accumulation,
      learningRate: LEARNING_RATE * number(given.learning_rate_multiplier, 1),
      ...(seed === undefined || seed === null ? {} : { seed }),
      ...distillation?.train,
    },
  };
}

const STATUS: Readonly<Record<string, string>> = { interrupted: "queued" };

function job(run: StoredRun, hide: Hide) {
  const named = run.named as {
    teacher?: { model?: string };
    student?: { model?: string };
    data?: Record<string, string>;
  };
  const { teacher, student, data } = named ?? {};
  const state = stateNow(run);
  const model = student?.model === "teacher" || student?.model === undefined ? teacher?.model : student.model;
  return {
    id: run.id,
    object: "fine_tuning.job" as const,
    created_at: seconds(run.manifest.createdAt)!,
    finished_at: state === "paused" ? null : seconds(run.finishedAt),
    estimated_finish: null,
    status: STATUS[state] ?? state,
    model: model ?? hide(run.recipe.teacher.model),
    fine_tuned_model: state === "succeeded" ? `run:${run.id}` : null,
    organization_id: run.owner,
    training_file: data?.train ?? hide(run.recipe.data.train),
    validation_file: data?.heldOut ?? null,
    result_files: [],
    hyperparameters: {
      n_epochs: "auto",
      batch_size: run.recipe.train.accumulation,
      learning_rate_multiplier: "auto",
    },
    trained_tokens: null,
    seed: run.recipe.train.seed,
    error: run.error && state === "failed"
      ? { code: run.error.code, message: hide(run.error.message), param: null }
      : null,
    integrations: [],
    metadata: { ...run.metadata },
  };
}

function jobEvent(id: string, event: RunEvent) {
  const level = event.type === "error" ? "error" : event.type === "warning" ? "warn" : "info";
  return {
    id: `ftevent-${id}-${event.seq}`,
    object: "fine_tuning.job.event" as const,
    created_at: seconds(event.time)!,
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

function checkpointId(id: string, step: number): string {
  return `ftckpt-${id}-${step}`;
}

function seconds(time: string | null): number | null {
  return time === null ? null : Math.floor(Date.parse(time) / 1000);
}
