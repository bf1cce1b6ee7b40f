/**
 * A fine-tuning job as it is asked for, and the recipe that it means.
 *
 * A job's `model` is what is trained. With `method: {type: "supervised"}`, or none, it learns the data alone. With
 * `method: {type: "distillation", distillation: {teacher, layers?, objective?, adapter?}}` it learns from a teacher.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { HttpError } from "../http/http_error.ts";
import { metadata } from "../schemas.ts";
import type { Service } from "../service.ts";

const autoOr = <T extends z.ZodType>(value: T) => z.union([z.literal("auto"), value]).optional();

const hyperparameters = z.strictObject({
  n_epochs: autoOr(z.number().gt(0).max(100)),
  batch_size: autoOr(z.number().int().min(1).max(4096)),
  learning_rate_multiplier: autoOr(z.number().gt(0).max(1000)),
});

/** What begins a job. */
export const jobRequest = z.strictObject({
  model: z.string().min(1).openapi({ description: "The model that is trained, as GET /v1/models names it" }),
  training_file: z.string().min(1).openapi({
    description: "Id of an uploaded file, or the name of a dataset",
  }),
  validation_file: z.string().min(1).nullish(),
  hyperparameters: hyperparameters.nullish(),
  method: z.discriminatedUnion("type", [
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

/** What begins a job, as it was sent. */
export type JobRequest = z.output<typeof jobRequest>;

/** Bytes of a dataset that make a token, about. */
const BYTES_A_TOKEN = 4;
const TOKENS_A_STEP = 1024;
const LEARNING_RATE = 2e-4;

/**
 * The recipe that a job means.
 *
 * @throws {HttpError} 400 there is no such file
 */
export async function recipeOf(service: Service, request: JobRequest): Promise<Record<string, unknown>> {
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
