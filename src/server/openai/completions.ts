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
import {
  choiceOf,
  promptsOf,
  reasonOf,
  streamedChoices,
  sumOf,
  usageOf,
  wantedOf,
  whole,
} from "./choices.ts";
import { completionLogProbabilities, promptLogProbabilities } from "./log_probabilities.ts";
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

/** Prompts of one request. */
const MOST_PROMPTS = 256;

const tokenIds = z.array(z.number().int().min(0).max(0x7fff_ffff)).min(1);

const completionRequest = z.strictObject({
  ...common,
  prompt: z.union([
    z.string(),
    tokenIds,
    z.array(z.string()).min(1).max(MOST_PROMPTS),
    z.array(tokenIds).min(1).max(MOST_PROMPTS),
  ]).openapi({
    description:
      `The text to continue, or its token ids; or several, at most ${MOST_PROMPTS}, each with a choice`,
  }),
  max_tokens: z.number().int().min(0).nullish().openapi({
    description: "16 when absent; 0 writes nothing, for log-probabilities of the prompt alone",
  }),
  echo: z.boolean().nullish().openapi({ description: "Begins the answer with the prompt" }),
  logprobs: z.number().int().min(0).max(20).nullish().openapi({
    description:
      "Log-probabilities of the tokens, with so many of the likeliest at each place; streamed once the text is whole",
  }),
  prompt_logprobs: z.number().int().min(0).max(256).nullish().openapi({
    description:
      "Log-probabilities of the prompt by token id, with so many of the likeliest at each place; as vLLM has them",
  }),
  return_tokens_as_token_ids: z.boolean().nullish().openapi({
    description: "Writes the tokens of logprobs as token_id:ID; as vLLM does",
  }),
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
const answer = <T extends z.ZodRawShape, L extends z.ZodType>(object: string, logprobs: L, choice: T) =>
  z.object({
    id: z.string(),
    object: z.literal(object),
    created: z.number().int(),
    model: z.string(),
    choices: z.array(
      z.object({ index: z.number().int(), finish_reason: finishReason, logprobs, ...choice }),
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
        "application/json": {
          schema: answer("text_completion", completionLogProbabilities.nullable(), {
            text: z.string(),
            prompt_logprobs: promptLogProbabilities.optional(),
          }).openapi("Completion"),
        },
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
          schema: answer("chat.completion", z.null(), {
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
    const prompts = promptsOf(body.prompt);
    const most = body.max_tokens ?? 16;
    const wanted = wantedOf(body);
    // Whoever leaves, or one prompt that cannot be continued, ends them all.
    const leaving = new AbortController();
    const signal = AbortSignal.any([c.req.raw.signal, leaving.signal]);
    const head = {
      id: `cmpl-${crypto.randomUUID()}`,
      object: "text_completion" as const,
      created: now(),
      model: body.model,
    };
    const begun = (prompt: InferenceRequest["prompt"]) =>
      begin(service, body, prompt, most, signal, { texts: prompts.length, scores: wanted.scores });
    if (!body.stream) {
      try {
        const answers = await Promise.all(prompts.map(async (prompt) => await whole(await begun(prompt))));
        const choices = answers.map((answer, index) => choiceOf(answer, prompts[index]!, wanted, index));
        return c.json({ ...head, choices, usage: sumOf(answers.map(({ usage }) => usage)) }, 200);
      } finally {
        leaving.abort();
      }
    }
    const first = await begun(prompts[0]!);
    async function* chunks(): AsyncGenerator<unknown> {
      const used: ReturnType<typeof usageOf>[] = [];
      try {
        for (const [index, prompt] of prompts.entries()) {
          const events = index === 0 ? first : await begun(prompt);
          for await (const choice of streamedChoices(events, prompt, wanted, index)) {
            if ("usage" in choice) used.push(choice.usage);
            else yield { ...head, choices: [choice] };
          }
        }
        if (body.stream_options?.include_usage) yield { ...head, choices: [], usage: sumOf(used) };
      } finally {
        await first.return(undefined);
        leaving.abort();
      }
    }
    return serverSent(service, chunks());
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
    async function* chunks(): AsyncGenerator<unknown> {
      yield chunk({ role: "assistant", content: "" }, null);
      for await (const event of events) {
        if (event.type === "text") yield chunk({ content: event.text }, null);
        if (event.type !== "end") continue;
        yield chunk({}, reasonOf(event.finishReason));
        if (!body.stream_options?.include_usage) return;
        yield { ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(event) };
      }
    }
    return serverSent(service, chunks());
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
  { texts = 1, scores }: { texts?: number; scores?: number | undefined } = {},
): Promise<AsyncGenerator<InferenceEvent>> {
  const source = await sourceOf(service, model);
  if (maxTokens * texts > service.caps.generatedTokens) {
    throw new HttpError(
      400,
      `${maxTokens} tokens${
        texts > 1 ? ` of each of ${texts} texts` : ""
      } are more than this service allows, ${service.caps.generatedTokens}`,
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
    ...(scores === undefined ? {} : { scores }),
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

/** A stream of server-sent events, one for each chunk. */
function serverSent(service: Service, chunks: AsyncGenerator<unknown>): Response {
  const encoder = new TextEncoder();
  const data = (value: unknown) =>
    encoder.encode(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { value, done } = await chunks.next();
        controller.enqueue(data(done ? "[DONE]" : value));
        if (done) controller.close();
      } catch (error) {
        controller.enqueue(data(errorBody(toHttpError(error, service.catalogue.hide))));
        controller.close();
      }
    },
    async cancel() {
      await chunks.return(undefined);
    },
  });
  return new Response(body, {
    headers: { "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no" },
  });
}

function now(): number {
  return Math.floor(Date.now() / 1000);
}
