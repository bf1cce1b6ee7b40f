/**
 * A server of the OpenAI API with a model of its own making behind it, which misbehaves as it is told.
 *
 * @module
 */
import { philox4x32 } from "../../src/base/random.ts";

/** What goes wrong with one request. */
export type Fault =
  | { readonly status: number; readonly retryAfter?: number; readonly message?: string }
  | "cut"
  | "html"
  | "redirect"
  | "nan"
  | "null"
  | "other tokens"
  | "fewer"
  | "too likely"
  | "shorter"
  | "never";

/** How it behaves. */
export interface FakeOptions {
  /** Tokens of its vocabulary. */
  readonly vocabulary: number;
  /** What it speaks; the others it does not know. */
  readonly dialects?: readonly ("prompt_logprobs" | "echo")[];
  /** Token texts, with which it answers where it is not asked for ids or does not know how. */
  readonly texts?: (id: number) => string;
  /** Whether it knows `return_tokens_as_token_ids`. */
  readonly tellsIds?: boolean;
  /** Divides its logits by the temperature of the request before it tells log-probabilities. */
  readonly scales?: boolean;
  /** Most log-probabilities that it gives. */
  readonly most?: number;
  /** What it makes of a text. */
  readonly encode?: (text: string) => number[];
  /** Whether it takes texts alone, and refuses ids. */
  readonly textsOnly?: boolean;
  /** The key that it wants. */
  readonly key?: string;
  /** Of the n-th request, from 0. */
  readonly fault?: (n: number, body: Record<string, unknown>) => Fault | undefined;
}

/** A fake server that runs. */
export interface FakeServer {
  readonly url: string;
  /** Bodies of all requests. */
  readonly seen: Record<string, unknown>[];
  /** Tokens of all answers, as it charges them. */
  readonly charged: () => number;
  /** Requests that were under way at once. */
  readonly most: () => number;
  close(): Promise<void>;
}

/** Logits of what follows some tokens. */
export function fakeLogits(vocabulary: number, before: readonly number[]): number[] {
  const [a, b] = [before.at(-1) ?? 0, before.at(-2) ?? 0];
  return Array.from({ length: vocabulary }, (_, id) => philox4x32([id, a, b, 7], [1, 2])[0]! / 2 ** 32 * 6);
}

/** Their log-probabilities. */
export function fakeLogProbabilities(
  vocabulary: number,
  before: readonly number[],
  temperature = 1,
): number[] {
  const logits = fakeLogits(vocabulary, before).map((z) => z / temperature);
  const sum = Math.log(logits.reduce((total, z) => total + Math.exp(z), 0));
  return logits.map((z) => z - sum);
}

/** Starts one. */
export function fakeServer(options: FakeOptions): FakeServer {
  const seen: Record<string, unknown>[] = [];
  const closing = Promise.withResolvers<void>();
  let [charged, working, most] = [0, 0, 0];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const n = seen.length;
    const body = await request.json();
    seen.push(body);
    most = Math.max(most, ++working);
    try {
      // Others get their chance to come in between.
      await new Promise((resolve) => setTimeout(resolve, 2));
      if (options.key !== undefined && request.headers.get("Authorization") !== `Bearer ${options.key}`) {
        const message = `no such key: ${request.headers.get("Authorization")}`;
        return Response.json({ error: { message } }, { status: 401 });
      }
      if (options.textsOnly && body.prompt !== undefined && typeof body.prompt !== "string") {
        return Response.json({ error: { message: "prompt must be a string" } }, { status: 400 });
      }
      const fault = options.fault?.(n, body);
      const refused = fault === undefined ? undefined : refusalOf(fault);
      if (refused) return refused;
      const { answer, tokens } = answerOf(options, body, fault);
      charged += tokens;
      if (fault === "never") {
        await closing.promise;
        return new Response();
      }
      const text = JSON.stringify(answer);
      if (fault === "nan") {
        return json(text.replace(/"logprob":[^,}]+|(?<="token_logprobs":\[null,)[^,]+/, (m) => {
          return m.startsWith('"') ? '"logprob":NaN' : "NaN";
        }));
      }
      if (fault === "cut") return cut(text);
      return json(text);
    } finally {
      working--;
    }
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}/v1`,
    seen,
    charged: () => charged,
    most: () => most,
    close() {
      closing.resolve();
      return server.shutdown();
    },
  };
}

function json(text: string): Response {
  return new Response(text, { headers: { "Content-Type": "application/json" } });
}

/** Half of what is announced. */
function cut(text: string): Response {
  const bytes = new TextEncoder().encode(text);
  return new Response(
    new ReadableStream({
      start(controller) {
        controller.enqueue(bytes.subarray(0, bytes.length >> 1));
        controller.close();
      },
    }),
    { headers: { "Content-Length": String(bytes.length) } },
  );
}

function refusalOf(fault: Fault): Response | undefined {
  if (typeof fault === "object") {
    return Response.json({ error: { message: fault.message ?? "not now" } }, {
      status: fault.status,
      headers: fault.retryAfter === undefined ? {} : { "Retry-After": String(fault.retryAfter) },
    });
  }
  if (fault === "html") return new Response("<html>hello</html>");
  if (fault === "redirect") {
    return new Response(null, { status: 307, headers: { Location: "https://elsewhere/" } });
  }
  return undefined;
}

function answerOf(
  options: FakeOptions,
  body: Record<string, unknown>,
  fault: Fault | undefined,
): { answer: unknown; tokens: number } {
  const { vocabulary, dialects = ["prompt_logprobs"], scales = false, most = 20, tellsIds = true } = options;
  const { texts = (id) => `<${id}>` } = options;
  if (body.messages !== undefined) {
    const text = `answer to ${JSON.stringify(body.messages)}`;
    const usage = { prompt_tokens: 9, completion_tokens: 4, total_tokens: 13 };
    return {
      answer: {
        choices: [{ message: { content: fault === "null" ? null : text }, finish_reason: "stop" }],
        usage,
      },
      tokens: 13,
    };
  }
  let ids = typeof body.prompt === "string" ? options.encode!(body.prompt) : body.prompt as number[];
  if (fault === "other tokens") ids = ids.map((id, i) => i === 2 ? (id + 1) % vocabulary : id);
  if (fault === "shorter") ids = ids.slice(0, -1);
  const temperature = scales ? body.temperature as number : 1;
  const name = (id: number) => tellsIds && body.return_tokens_as_token_ids ? `token_id:${id}` : texts(id);
  const at = (i: number, wanted: number) => {
    const all = fakeLogProbabilities(vocabulary, ids.slice(0, i), temperature);
    const count = Math.min(wanted, fault === "fewer" ? 2 : most, vocabulary);
    const order = [...all.keys()].sort((a, b) => all[b]! - all[a]!);
    const shown = order.slice(0, count);
    if (i < ids.length && !shown.includes(ids[i]!)) shown.push(ids[i]!);
    const more = fault === "too likely" ? 1 : 0;
    return shown.map((id) => ({ id, logprob: Math.min(0, all[id]! + more), rank: order.indexOf(id) + 1 }));
  };
  const tokens = ids.length + 1;
  const usage = { prompt_tokens: ids.length, completion_tokens: 1, total_tokens: tokens };
  const asNames = (list: { id: number; logprob: number }[]) =>
    Object.fromEntries(list.map(({ id, logprob }) => [name(id), logprob]));
  const next = fakeLogProbabilities(vocabulary, ids, temperature);
  const last = next.indexOf(Math.max(...next));
  const choice: Record<string, unknown> = { index: 0, text: texts(last), finish_reason: "length" };
  if (dialects.includes("prompt_logprobs") && typeof body.prompt_logprobs === "number") {
    choice.prompt_logprobs = ids.map((_, i) =>
      i === 0 ? null : Object.fromEntries(
        at(i, body.prompt_logprobs as number).map(({ id, ...rest }) => [
          id,
          { ...rest, ...(fault === "null" ? { logprob: null } : {}), decoded_token: texts(id) },
        ]),
      )
    );
  }
  if (typeof body.logprobs === "number") {
    const wanted = body.logprobs;
    const from = body.echo && dialects.includes("echo") ? 0 : ids.length;
    const places = [...ids, last].map((id, i) => ({ id, i })).slice(from);
    choice.logprobs = {
      tokens: places.map(({ id }) => name(id)),
      token_logprobs: places.map(({ id, i }) =>
        i === 0
          ? null
          : fault === "null"
          ? null
          : fakeLogProbabilities(vocabulary, ids.slice(0, i), temperature)[id]
      ),
      top_logprobs: places.map(({ i }) => i === 0 ? null : asNames(at(i, wanted))),
      text_offset: places.map(() => 0),
    };
  }
  return { answer: { choices: [choice], usage }, tokens };
}
