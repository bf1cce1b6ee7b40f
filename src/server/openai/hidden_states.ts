/**
 * Hidden states of models, and their heads: what another Limbeck needs to learn from a model here with any loss over logits.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { InferenceEvent, InferenceRequest } from "../../runs/child/inference.ts";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import { otherwise } from "../schemas.ts";
import type { Service } from "../service.ts";
import { sourceOf } from "./model_source.ts";

/** Texts of one request. */
const MOST_TEXTS = 32;

const ids = z.array(z.number().int().min(0).max(0x7fff_ffff)).min(1);
const model = z.string().min(1).max(256).openapi({ description: "As GET /v1/models names it" });

const states = createRoute({
  method: "post",
  path: "/v1/hidden_states",
  operationId: "hiddenStates",
  summary: "What a model's head reads at each token of texts, after the final norm",
  tags: ["try"],
  request: {
    body: {
      required: true,
      content: {
        "application/json": {
          schema: z.strictObject({
            model,
            prompt: z.union([ids, z.array(ids).min(1).max(MOST_TEXTS)]).openapi({
              description: `Token ids of a text, or of several, at most ${MOST_TEXTS}`,
            }),
          }).openapi("HiddenStatesRequest"),
        },
      },
    },
  },
  responses: {
    200: {
      description: "The states",
      content: {
        "application/json": {
          schema: z.object({
            object: z.literal("hidden_states"),
            model: z.string(),
            width: z.number().int().openapi({ description: "Values of a state" }),
            data: z.array(z.object({
              index: z.number().int(),
              tokens: z.number().int(),
              states: z.string().openapi({
                description: "f32 of little-endian bytes, one state after another, base64",
              }),
            })),
            usage: z.object({ prompt_tokens: z.number().int(), total_tokens: z.number().int() }),
          }).openapi("HiddenStates"),
        },
      },
    },
    ...otherwise,
  },
});

const head = createRoute({
  method: "get",
  path: "/v1/hidden_states/head",
  operationId: "modelHead",
  summary: "What makes logits of a model's hidden states",
  description:
    "The files of a model folder, cut to one layer, as lines of JSON: `{name, bytes}` where a file begins, then `{piece}` with its " +
    "bytes in base64, and `{}` at the very end.",
  tags: ["try"],
  request: { query: z.strictObject({ model }) },
  responses: {
    200: {
      description: "Its files, line by line",
      content: { "application/octet-stream": { schema: z.string().openapi({ format: "binary" }) } },
    },
    ...otherwise,
  },
});

const REQUEST = { maxTokens: 0, temperature: 1, topK: 0, topP: 1, seed: 0, stop: [] } as const;

/** Adds the routes. */
export function addHiddenStateRoutes(app: App, service: Service): void {
  const begin = async (name: string, request: InferenceRequest, signal: AbortSignal) =>
    service.inference.generate(name, await sourceOf(service, name), request, signal);

  app.openapi(states, async (c) => {
    const { model, prompt } = c.req.valid("json");
    const texts = (typeof prompt[0] === "number" ? [prompt] : prompt) as number[][];
    const leaving = new AbortController();
    const signal = AbortSignal.any([c.req.raw.signal, leaving.signal]);
    try {
      const found = await Promise.all(texts.map(async (ids) => {
        const request = { ...REQUEST, prompt: { ids }, instead: "hidden states" } as const;
        return await statesOf(await begin(model, request, signal));
      }));
      const tokens = texts.reduce((sum, { length }) => sum + length, 0);
      return c.json({
        object: "hidden_states" as const,
        ...{ model, width: found[0]!.width },
        data: found.map(({ states }, index) => ({ index, tokens: texts[index]!.length, states })),
        usage: { prompt_tokens: tokens, total_tokens: tokens },
      }, 200);
    } finally {
      leaving.abort();
    }
  });

  app.openapi(head, async (c) => {
    const { model } = c.req.valid("query");
    const request = { ...REQUEST, prompt: "", instead: "head" } as const;
    const events = await begin(model, request, c.req.raw.signal);
    // Errors that come before the first file are told as such.
    const first = await events.next();
    return new Response(ReadableStream.from(lines(first, events)), {
      headers: { "Content-Type": "application/octet-stream", "Cache-Control": "no-store" },
    });
  });
}

async function statesOf(
  events: AsyncIterable<InferenceEvent>,
): Promise<Extract<InferenceEvent, { type: "hidden" }>> {
  for await (const event of events) if (event.type === "hidden") return event;
  throw new HttpError(500, "there are no states", { code: "internal" });
}

async function* lines(
  first: IteratorResult<InferenceEvent>,
  events: AsyncGenerator<InferenceEvent>,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  const line = (value: unknown) => encoder.encode(JSON.stringify(value) + "\n");
  for (let next = first; !next.done; next = await events.next()) {
    const event = next.value;
    if (event.type === "file") yield line({ name: event.name, bytes: event.bytes });
    if (event.type === "piece") yield line({ piece: event.bytes });
  }
  yield line({});
}
