/**
 * Trying a model: what the OpenAI API calls completions and chat completions.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { InferenceEvent, InferenceRequest } from "../../runs/child/inference.ts";
import type { App } from "../http/app_env.ts";
import { errorBody, HttpError, toHttpError } from "../http/http_error.ts";
import { otherwise } from "../schemas.ts";
import type { Service } from "../service.ts";
import { sourceOf } from "./model_source.ts";

/** Fields that are taken only where they change nothing: what they would ask for is not possible here. */
const neutral = {
  n: z.literal(1).nullish(),
  best_of: z.literal(1).nullish(),
  frequency_penalty: z.literal(0).nullish(),
  presence_penalty: z.literal(0).nullish(),
  logit_bias: z.strictObject({}).nullish(),
  user: z.string().nullish(),
  store: z.boolean().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
};

const common = {
  model: z.string().min(1).max(256).openapi({ description: "As GET /v1/models names it, such as run:ID" }),
  temperature: z.number().min(0).max(2).nullish().openapi({
    description: "0 takes the likeliest token; 1 when absent",
  }),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.number().int().min(0).nullish().openapi({ description: "0, when absent, is all" }),
  seed: z.number().int().min(0).max(0xffff_ffff).nullish(),
  stop: z.union([z.string(), z.array(z.string().max(256)).max(4)]).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_usage: z.boolean().nullish() }).nullish(),
  ...neutral,
};

const completionRequest = z.strictObject({
  ...common,
  prompt: z.union([z.string(), z.array(z.string()).length(1)]).openapi({
    description: "The text to continue",
  }),
  max_tokens: z.number().int().min(1).nullish().openapi({ description: "16 when absent" }),
  echo: z.literal(false).nullish(),
  logprobs: z.literal(0).nullish(),
  suffix: z.null().optional(),
}).openapi("CompletionRequest");

const part = z.strictObject({ type: z.literal("text"), text: z.string() });

const chatRequest = z.strictObject({
  ...common,
  messages: z.array(z.strictObject({
    role: z.enum(["system", "developer", "user", "assistant"]),
    content: z.union([z.string(), z.array(part).min(1)]),
    name: z.string().optional(),
  })).min(1).max(256),
  max_tokens: z.number().int().min(1).nullish(),
  max_completion_tokens: z.number().int().min(1).nullish(),
  logprobs: z.literal(false).nullish(),
}).openapi("ChatRequest");

const usage = z.object({
  prompt_tokens: z.number().int(),
  completion_tokens: z.number().int(),
  total_tokens: z.number().int(),
});
const finishReason = z.enum(["stop", "length"]);
const answer = <T extends z.ZodRawShape>(object: string, choice: T) =>
  z.object({
    id: z.string(),
    object: z.literal(object),
    created: z.number().int(),
    model: z.string(),
    choices: z.array(
      z.object({ index: z.number().int(), finish_reason: finishReason, logprobs: z.null(), ...choice }),
    ),
    usage,
  });

const streamed = { "text/event-stream": { schema: z.string() } };

const completions = createRoute({
  method: "post",
  path: "/v1/completions",
  operationId: "complete",
  summary: "Continue a text",
  description:
    "A run in progress has the GPU: then the answer is 503, and Retry-After says when to try again.",
  tags: ["try"],
  request: { body: { required: true, content: { "application/json": { schema: completionRequest } } } },
  responses: {
    200: {
      description: "The continuation; with stream: true as server-sent events",
      content: {
        "application/json": { schema: answer("text_completion", { text: z.string() }).openapi("Completion") },
        ...streamed,
      },
    },
    ...otherwise,
  },
});

const chat = createRoute({
  method: "post",
  path: "/v1/chat/completions",
  operationId: "chat",
  summary: "Answer a conversation",
  description: "Needs a model with a chat template.",
  tags: ["try"],
  request: { body: { required: true, content: { "application/json": { schema: chatRequest } } } },
  responses: {
    200: {
      description: "The answer; with stream: true as server-sent events",
      content: {
        "application/json": {
          schema: answer("chat.completion", {
            message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
          }).openapi("ChatCompletion"),
        },
        ...streamed,
      },
    },
    ...otherwise,
  },
});

/** Adds the routes. */
export function addCompletionRoutes(app: App, service: Service): void {
  app.openapi(completions, async (c) => {
    const body = c.req.valid("json");
    const prompt = typeof body.prompt === "string" ? body.prompt : body.prompt[0]!;
    const events = await begin(service, body, prompt, body.max_tokens ?? 16, c.req.raw.signal);
    const head = { id: `cmpl-${crypto.randomUUID()}`, created: now(), model: body.model };
    const choice = (
      text: string,
      reason: string | null,
    ) => [{ index: 0, text, finish_reason: reason, logprobs: null }];
    if (!body.stream) {
      const { text, reason, usage } = await whole(events);
      return c.json(
        { ...head, object: "text_completion", choices: choice(text, reason), usage },
        200,
      );
    }
    const stream = serverSent(service, events, {
      text: (text) => ({ ...head, object: "text_completion", choices: choice(text, null) }),
      end: (reason) => ({ ...head, object: "text_completion", choices: choice("", reason) }),
      usage: body.stream_options?.include_usage
        ? (usage) => ({ ...head, object: "text_completion", choices: [], usage })
        : undefined,
    });
    return stream;
  });

  app.openapi(chat, async (c) => {
    const body = c.req.valid("json");
    const messages = body.messages.map(({ role, content }) => ({
      role: role === "developer" ? "system" : role,
      content: typeof content === "string" ? content : content.map(({ text }) => text).join(""),
    }));
    const most = body.max_completion_tokens ?? body.max_tokens ?? 256;
    const events = await begin(service, body, messages, most, c.req.raw.signal);
    const head = { id: `chatcmpl-${crypto.randomUUID()}`, created: now(), model: body.model };
    const chunk = (delta: object, reason: string | null) => ({
      ...head,
      object: "chat.completion.chunk",
      choices: [{ index: 0, delta, finish_reason: reason, logprobs: null }],
    });
    if (!body.stream) {
      const { text, reason, usage } = await whole(events);
      const message = { role: "assistant", content: text, refusal: null };
      const choices = [{ index: 0, message, finish_reason: reason, logprobs: null }];
      return c.json({ ...head, object: "chat.completion", choices, usage }, 200);
    }
    const stream = serverSent(service, events, {
      first: chunk({ role: "assistant", content: "" }, null),
      text: (text) => chunk({ content: text }, null),
      end: (reason) => chunk({}, reason),
      usage: body.stream_options?.include_usage
        ? (usage) => ({ ...head, object: "chat.completion.chunk", choices: [], usage })
        : undefined,
    });
    return stream;
  });
}

type Common = Pick<
  z.output<typeof completionRequest>,
  "model" | "temperature" | "top_p" | "top_k" | "seed" | "stop"
>;

/** Begins to write; errors that come before the first word are thrown here. */
async function begin(
  service: Service,
  { model, temperature, top_p, top_k, seed, stop }: Common,
  prompt: InferenceRequest["prompt"],
  maxTokens: number,
  signal: AbortSignal,
): Promise<AsyncGenerator<InferenceEvent>> {
  const source = await sourceOf(service, model);
  if (maxTokens > service.caps.generatedTokens) {
    throw new HttpError(
      400,
      `${maxTokens} tokens are more than this service allows, ${service.caps.generatedTokens}`,
      {
        param: "max_tokens",
        code: "cap",
      },
    );
  }
  const events = service.inference.generate(model, source, {
    prompt,
    maxTokens,
    temperature: temperature ?? 1,
    topP: top_p ?? 1,
    topK: top_k ?? 0,
    seed: seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!,
    stop: typeof stop === "string" ? [stop] : stop ?? [],
  }, signal);
  const first = await events.next();
  return (async function* () {
    try {
      if (!first.done) yield first.value;
      yield* events;
    } finally {
      await events.return(undefined);
    }
  })();
}

async function whole(events: AsyncIterable<InferenceEvent>) {
  let text = "";
  for await (const event of events) {
    if (event.type === "text") text += event.text;
    else return { text, reason: reasonOf(event.finishReason), usage: usageOf(event) };
  }
  throw new HttpError(500, "the text has no end", { code: "internal" });
}

function reasonOf(reason: string): string {
  return reason === "length" ? "length" : "stop";
}

function usageOf({ promptTokens, completionTokens }: Extract<InferenceEvent, { type: "end" }>) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}

/** What a stream is made of. */
interface Chunks {
  first?: unknown;
  text: (text: string) => unknown;
  end: (reason: string) => unknown;
  usage: ((usage: ReturnType<typeof usageOf>) => unknown) | undefined;
}

function serverSent(service: Service, events: AsyncGenerator<InferenceEvent>, chunks: Chunks): Response {
  const encoder = new TextEncoder();
  const data = (value: unknown) =>
    encoder.encode(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      if (chunks.first) controller.enqueue(data(chunks.first));
    },
    async pull(controller) {
      try {
        const { value: event, done } = await events.next();
        if (done) {
          controller.enqueue(data("[DONE]"));
          return controller.close();
        }
        if (event.type === "text") return controller.enqueue(data(chunks.text(event.text)));
        controller.enqueue(data(chunks.end(reasonOf(event.finishReason))));
        if (chunks.usage) controller.enqueue(data(chunks.usage(usageOf(event))));
      } catch (error) {
        controller.enqueue(data(errorBody(toHttpError(error, service.catalogue.hide))));
        controller.close();
      }
    },
    async cancel() {
      await events.return(undefined);
    },
  });
  return new Response(body, {
    headers: { "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no" },
  });
}

function now(): number {
  return Math.floor(Date.now() / 1000);
}
