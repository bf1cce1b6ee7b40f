/**
 * Requests of a process that writes text: what is written one after another, and what is scored alone several at once.
 *
 * @module
 */
import { InputError } from "../../../base/errors.ts";
import type { TextScores } from "../../../distill/generate/scorer.ts";
import { StopText } from "../../../distill/generate/stop_text.ts";
import type { TextWriter } from "../../../distill/generate/text_writer.ts";
import { TextStream } from "../../../text/text_stream.ts";
import { TokenTexts } from "../../../text/token_texts.ts";
import type { InferenceEvent, InferenceMessage, InferenceOrder, InferenceRequest } from "../inference.ts";
import { LONGEST_LINE } from "../lines.ts";
import { tellError } from "../told_error.ts";
import { MOST_TOLD, tellScores } from "../told_scores.ts";
import type { Port } from "./port.ts";

const HEARTBEAT_MS = 2000;

/** A request that waits for its turn. */
interface Request {
  readonly id: number;
  readonly request: InferenceRequest;
}

/** Requests, one after another; those that are scored alone several at once. */
export class Desk {
  readonly #writer: TextWriter;
  readonly #texts: TokenTexts;
  readonly #writeHead: (path: string) => Promise<void>;
  readonly #port: Port;
  readonly #cancelled = new Set<number>();
  readonly #queue: Request[] = [];
  #working = false;
  #beat = performance.now();

  /** @param writeHead writes the head's folder */
  constructor(writer: TextWriter, writeHead: (path: string) => Promise<void>, port: Port) {
    [this.#writer, this.#writeHead, this.#port] = [writer, writeHead, port];
    this.#texts = new TokenTexts(writer.tokenizer);
  }

  /** Says something. Where nobody listens any more, there is nothing left to do. */
  say(message: InferenceMessage): void {
    if (!this.#port.say(message)) Deno.exit(0);
  }

  /** Fulfilled when there are no more orders. What is not written by then will not be. */
  async work(): Promise<void> {
    for await (const order of this.#port.orders as AsyncIterable<InferenceOrder>) {
      if ("cancel" in order) this.#cancelled.add(order.cancel);
      else {
        this.#queue.push(order);
        void this.#drain();
      }
    }
  }

  async #drain(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (this.#queue.length > 0) {
      const first = this.#queue.shift()!;
      if (first.request.instead) {
        await this.#telling(first.id, () => this.#giveInstead(first));
        continue;
      }
      if (!scoresAlone(first.request)) {
        await this.#telling(first.id, () => this.#write(first));
        continue;
      }
      const together = [first];
      for (let i = 0; i < this.#queue.length && together.length < MOST_TOGETHER;) {
        if (scoresAlone(this.#queue[i]!.request)) together.push(...this.#queue.splice(i, 1));
        else i++;
      }
      await this.#score(together);
    }
    this.#working = false;
  }

  /** Does a part of the work for a request, whose error is that request's alone. */
  async #telling<T>(id: number, work: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.say({ type: "failed", id, error: tellError(error) });
      return undefined;
    } finally {
      this.#alive();
    }
  }

  #alive(): void {
    if (performance.now() - this.#beat <= HEARTBEAT_MS) return;
    this.#beat = performance.now();
    this.say({ type: "alive" });
  }

  #encode({ prompt, maxTokens, scores }: InferenceRequest): Int32Array {
    const writer = this.#writer;
    const ids = typeof prompt === "string"
      ? writer.encode(prompt)
      : "ids" in prompt
      ? writer.checkIds(prompt.ids, "prompt")
      : writer.encodeChat(prompt);
    if (scores === undefined && maxTokens > 0) return ids;
    const most = writer.length;
    if (ids.length > most || maxTokens > 1 && ids.length >= most) {
      throw new InputError(
        `the prompt has ${ids.length} tokens; it must have at most ${maxTokens > 1 ? most - 1 : most}`,
      );
    }
    if (scores !== undefined && (ids.length + maxTokens) * scores > MOST_TOLD) {
      throw new InputError(
        `${scores} log-probabilities at each of ${ids.length + maxTokens} tokens are more than ${MOST_TOLD}`,
        { hint: "Ask for fewer log-probabilities, or send a shorter prompt." },
      );
    }
    return ids;
  }

  /** Scores prompts of which at most the likeliest next token is wanted. */
  async #score(requests: readonly Request[]): Promise<void> {
    const encoded: { one: Request; ids: Int32Array }[] = [];
    for (const one of requests) {
      const ids = await this.#telling(one.id, () => this.#encode(one.request));
      if (ids) encoded.push({ one, ids });
    }
    const wanted = encoded.filter(({ one: { id, request } }) => {
      return request.scores !== undefined && !this.#cancelled.has(id);
    });
    const top = Math.max(
      0,
      ...wanted.map(({ one: { request } }) => Math.max(request.scores!, request.maxTokens)),
    );
    let found: TextScores[] = [];
    try {
      found = await this.#writer.score(wanted.map(({ ids }) => ids), top, () => this.#alive());
    } catch (error) {
      // Nobody knows whose it is.
      for (const { one } of wanted) this.say({ type: "failed", id: one.id, error: tellError(error) });
      for (const one of wanted) encoded.splice(encoded.indexOf(one), 1);
    }
    for (const each of encoded) {
      const { one: { id, request }, ids } = each;
      await this.#telling(id, () => {
        const scores = found[wanted.indexOf(each)];
        const next = request.maxTokens > 0 && scores ? scores.topIds[ids.length * scores.top] : undefined;
        const isStop = next !== undefined && this.#writer.stopTokens.includes(next);
        const stop = new StopText(request.stop);
        const text = next === undefined || isStop ? "" : this.#text(ids, [next]);
        this.#sayText(id, stop.push(text) + stop.end(text));
        if (scores) {
          this.#sayScores(id, request, scores, [...ids, ...(next === undefined ? [] : [next])], ids);
        }
        const finishReason = this.#cancelled.has(id)
          ? "cancelled"
          : isStop || stop.stopped
          ? "stop"
          : "length";
        const completionTokens = next === undefined || isStop ? 0 : 1;
        this.#sayEnd(id, finishReason, ids.length, completionTokens);
      });
      this.#cancelled.delete(id);
    }
  }

  async #giveInstead({ id, request }: Request): Promise<void> {
    if (request.instead === "head") {
      await this.#giveHead(id);
      return this.#sayEnd(id, "stop", 0, 0);
    }
    const ids = this.#encode({ ...request, maxTokens: 0 });
    const [states] = await this.#writer.hiddenStates([ids], () => this.#alive());
    const bytes = new Uint8Array(states!.buffer).toBase64();
    const width = this.#writer.model.config.hiddenSize;
    if (bytes.length > LONGEST_LINE / 2) {
      throw new InputError(`the hidden states of ${ids.length} tokens are too much for one answer`, {
        hint: "Send fewer tokens at once.",
      });
    }
    this.say({ type: "event", id, event: { type: "hidden", width, states: bytes } });
    this.#sayEnd(id, "stop", ids.length, 0);
  }

  /** The files of the head's folder, piece by piece. The folder lies in that of this process, which goes with it. */
  async #giveHead(id: number): Promise<void> {
    const folder = `head-${id}`;
    await this.#writeHead(folder);
    try {
      for await (const { name } of Deno.readDir(folder)) {
        const { size } = await Deno.stat(`${folder}/${name}`);
        this.say({ type: "event", id, event: { type: "file", name, bytes: size } });
        using file = await Deno.open(`${folder}/${name}`);
        const piece = new Uint8Array(HEAD_PIECE);
        for (let count; (count = await file.read(piece)) !== null && !this.#cancelled.has(id);) {
          const bytes = piece.subarray(0, count).toBase64();
          this.say({ type: "event", id, event: { type: "piece", bytes } });
        }
      }
    } finally {
      this.#cancelled.delete(id);
      await Deno.remove(folder, { recursive: true });
    }
  }

  async #write({ id, request }: Request): Promise<void> {
    const ids = this.#encode(request);
    const stop = new StopText(request.stop);
    const [written] = await this.#writer.write([ids], {
      ...request,
      onText: (_, piece) => {
        this.#sayText(id, stop.push(piece));
        this.#alive();
        return !stop.stopped && !this.#cancelled.has(id);
      },
    });
    this.#sayText(id, stop.end(written!.text));
    if (request.scores !== undefined && !this.#cancelled.has(id)) {
      const tokens = Int32Array.from([...ids, ...written!.ids]);
      const [scores] = await this.#writer.score([tokens], request.scores, () => this.#alive());
      this.#sayScores(id, request, scores!, [...tokens], ids);
    }
    const finishReason = this.#cancelled.has(id) && !stop.stopped
      ? "cancelled"
      : written!.finished || stop.stopped
      ? "stop"
      : "length";
    this.#cancelled.delete(id);
    this.#sayEnd(id, finishReason, ids.length, written!.tokens);
  }

  #text(after: Int32Array, ids: readonly number[]): string {
    const stream = new TextStream(this.#writer.tokenizer, { after });
    return ids.map((id) => stream.push(id)).join("") + stream.end();
  }

  #sayText(id: number, text: string): void {
    if (text !== "") this.say({ type: "event", id, event: { type: "text", text } });
  }

  #sayScores(
    id: number,
    { scores: top }: InferenceRequest,
    scores: TextScores,
    tokens: number[],
    { length: promptTokens }: Int32Array,
  ): void {
    const stream = new TextStream(this.#writer.tokenizer);
    const pieces = tokens.map((token) => stream.push(token));
    const offsets = [0];
    for (const piece of pieces) offsets.push(offsets.at(-1)! + piece.length);
    const text = { offsets, promptText: pieces.slice(0, promptTokens).join(""), promptTokens };
    const told = tellScores(
      scores,
      tokens,
      Math.min(top!, scores.top),
      text,
      (token) => this.#texts.of(token),
    );
    this.say({ type: "event", id, event: { type: "scores", scores: told } });
  }

  #sayEnd(
    id: number,
    finishReason: Extract<InferenceEvent, { type: "end" }>["finishReason"],
    promptTokens: number,
    completionTokens: number,
  ): void {
    this.say({ type: "event", id, event: { type: "end", finishReason, promptTokens, completionTokens } });
  }
}

/** Bytes of a file that are told at once; a multiple of 3. */
const HEAD_PIECE = 3 << 20;

/** Most prompts that are scored together. */
const MOST_TOGETHER = 64;

/** Whether all that is wanted of a text follows from scores of its prompt: nothing is written, or the likeliest token alone. */
function scoresAlone({ maxTokens, temperature, scores }: InferenceRequest): boolean {
  return maxTokens === 0 || maxTokens === 1 && temperature === 0 && scores !== undefined;
}
