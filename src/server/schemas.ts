/**
 * What requests and answers look like, as schemas from which the OpenAPI document is made.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { RUN_STATES } from "../runs/store/run_states.ts";
import { RUN_TASKS } from "../runs/task/run_recipe.ts";
import type { RunState } from "../distill/run/events.ts";

function wholeText(least: number, most: number) {
  return z.string().regex(/^\d{1,15}$/, "must be a whole number").transform(Number)
    .pipe(z.number().int().min(least).max(most));
}

/** A whole number in a query that may be absent. */
export function wholeNumber(least: number, most: number) {
  return wholeText(least, most).optional().openapi({ type: "integer", minimum: least, maximum: most });
}

/** A whole number in a query with a default. */
export function wholeNumberOr(otherwise: number, least: number, most: number) {
  return wholeText(least, most).default(otherwise)
    .openapi({ type: "integer", minimum: least, maximum: most, default: otherwise });
}

/** Whatever text names a run in a path. */
export const runId = z.object({
  id: z.string().min(1).max(64).openapi({ description: "Id of a run", example: "20260724-153012-k7wq" }),
});

/** What a run may be found by. */
export const metadata = z.record(z.string().min(1).max(64), z.string().max(512))
  .refine((value) => Object.keys(value).length <= 16, "at most 16 entries")
  .openapi("Metadata", { description: "Up to 16 texts to find a run by" });

/**
 * A recipe with names in place of paths. Its rules are checked by the recipe's own schema, which the document shows.
 */
export const namedRecipe = z.custom<Record<string, unknown>>(
  // As it is: a record would leave a field named __proto__ out, which then nobody would refuse.
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  "must be an object",
).openapi({
  type: "object",
  additionalProperties: {},
  "x-schema": "Recipe",
  description: "A recipe whose models and data are names that GET /v1/models and /v1/files list",
});

/** The same, or a task: what a run may be asked to do. */
export const namedRunRecipe = namedRecipe.openapi({
  type: "object",
  additionalProperties: {},
  "x-schema": "RunRecipe",
  description:
    "A recipe that distils, or a task, whose models and data are names that GET /v1/models and /v1/files list",
});

/** An error. */
const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable().openapi({ description: "Path in the request, such as recipe.train.steps" }),
    code: z.string().nullable(),
    problems: z.array(z.object({ param: z.string(), message: z.string() })).optional(),
  }),
}).openapi("Error");

/** A state of a run. */
const runState = z.enum(RUN_STATES as [RunState, ...RunState[]]).openapi("RunState");

const text = z.string();
const time = z.string().openapi({ format: "date-time" });

/** A run. */
export const runSchema = z.object({
  id: text,
  object: z.literal("run"),
  task: z.enum(RUN_TASKS).openapi({ description: "What it does" }),
  state: runState,
  asked: z.enum(["checkpoint", "pause", "cancel"]).nullable().openapi({
    description: "What was asked of it and has not happened yet",
  }),
  createdAt: time,
  startedAt: time.nullable(),
  finishedAt: time.nullable(),
  step: z.number().int(),
  steps: z.number().int().openapi({ description: "Optimiser steps; of a task the hundredths of its work" }),
  loss: z.number().nullable(),
  attempt: z.number().int(),
  restarts: z.number().int(),
  lastEvent: z.number().int().openapi({ description: "Number of its last event" }),
  worker: z.enum(["command", "service"]),
  owner: text,
  metadata,
  recipe: namedRunRecipe,
  result: z.record(z.string(), z.unknown()).nullable(),
  error: z.object({ code: text, message: text, hint: text.optional(), exitCode: z.number().int() })
    .nullable(),
}).openapi("Run");

/** A run's event. Further fields depend on its type. */
export const eventSchema = z.looseObject({
  seq: z.number().int(),
  time,
  attempt: z.number().int(),
  type: text,
}).openapi("Event");

/** A part of a list. */
export function pageOf<T extends z.ZodType>(item: T) {
  return z.object({ object: z.literal("list"), data: z.array(item), hasMore: z.boolean() });
}

/** The answer that every route may give instead. */
export const otherwise = {
  default: { description: "What is wrong", content: { "application/json": { schema: errorSchema } } },
} as const;

/** An answer of JSON. */
export function json<T extends z.ZodType>(schema: T, description: string) {
  return { description, content: { "application/json": { schema } } } as const;
}
