/**
 * The entry of a process that writes text: opens one model, and writes what it is asked for until its orders end.
 *
 * @module
 */
import { familiesOf } from "../../../registry/families.ts";
import { builtins } from "../../../../plugins/mod.ts";
import { TextWriter } from "../../../distill/generate/text_writer.ts";
import { type PluginModule, registryOf } from "../../../registry/exported_plugins.ts";
import type { InferenceMessage, InferenceModel, InferenceOrder, InferenceRequest } from "../inference.ts";
import { type Port, serve } from "./port.ts";
import { StopText } from "../../../distill/generate/stop_text.ts";
import { tellError } from "../told_error.ts";

/** Longest sequence, prompt included, where the model allows more: its cache takes memory. */
const LONGEST = 2048;
const HEARTBEAT_MS = 2000;

/** Writes what the orders after the first ask for, and ends the process when they end. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return serve<InferenceModel>(async (model, port) => {
    const writer = await open(model, modules);
    const length = Math.min(writer.model.config.contextLength, LONGEST);
    await writer.prepare({ sequences: 1, length });
    const desk = new Desk(writer, port);
    desk.say({ type: "ready" });
    await desk.work();
  });
}

async function open(model: InferenceModel, modules: readonly PluginModule[]): Promise<TextWriter> {
  const registry = await registryOf(builtins, modules);
  if ("path" in model) return await TextWriter.open(model.path, familiesOf(registry));
  return await TextWriter.open({ ...model, registry });
}

/** Requests, one after another. */
class Desk {
  readonly #writer: TextWriter;
  readonly #port: Port;
  readonly #cancelled = new Set<number>();
  #last: Promise<void> = Promise.resolve();

  constructor(writer: TextWriter, port: Port) {
    this.#writer = writer;
    this.#port = port;
  }

  /** Says something. Where nobody listens any more, there is nothing left to do. */
  say(message: InferenceMessage): void {
    if (!this.#port.say(message)) Deno.exit(0);
  }

  /** Fulfilled when there are no more orders. What is not written by then will not be. */
  async work(): Promise<void> {
    for await (const order of this.#port.orders as AsyncIterable<InferenceOrder>) {
      if ("cancel" in order) this.#cancelled.add(order.cancel);
      else this.#last = this.#last.then(() => this.#one(order.id, order.request));
    }
  }

  async #one(id: number, request: InferenceRequest): Promise<void> {
    let beat = performance.now();
    try {
      const { prompt } = request;
      const ids = typeof prompt === "string" ? this.#writer.encode(prompt) : this.#writer.encodeChat(prompt);
      const stop = new StopText(request.stop);
      const say = (text: string) => {
        if (text !== "") this.say({ type: "event", id, event: { type: "text", text } });
      };
      const [written] = await this.#writer.write([ids], {
        ...request,
        onText: (_, piece) => {
          say(stop.push(piece));
          if (performance.now() - beat > HEARTBEAT_MS) {
            beat = performance.now();
            this.say({ type: "alive" });
          }
          return !stop.stopped && !this.#cancelled.has(id);
        },
      });
      say(stop.end(written!.text));
      const finishReason = this.#cancelled.has(id) && !stop.stopped
        ? "cancelled"
        : written!.finished || stop.stopped
        ? "stop"
        : "length";
      const [promptTokens, completionTokens] = [ids.length, written!.tokens];
      this.say({ type: "event", id, event: { type: "end", finishReason, promptTokens, completionTokens } });
    } catch (error) {
      this.say({ type: "failed", id, error: tellError(error) });
    } finally {
      this.#cancelled.delete(id);
    }
  }
}
