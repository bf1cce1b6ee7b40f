/**
 * The entry of a process that writes text: opens one model, and writes what it is asked for until its orders end.
 *
 * @module
 */
import { builtins } from "../../../plugins/mod.ts";
import { TextWriter } from "../../distill/generate/text_writer.ts";
import { InputError } from "../../base/errors.ts";
import { Registry } from "../../registry/registry.ts";
import { loadPlugins, type PluginModule } from "../../registry/exported_plugins.ts";
import type { InferenceMessage, InferenceOrder, InferenceRequest } from "./inference_protocol.ts";
import { readLines } from "./training.ts";
import { StopText } from "../../distill/generate/stop_text.ts";
import { tellError } from "./told_error.ts";

/** Longest sequence, prompt included, where the model allows more: its cache takes memory. */
const LONGEST = 2048;
const HEARTBEAT_MS = 2000;

/** Writes what the lines on stdin ask for, and ends the process when they end. */
export async function main(modules: readonly PluginModule[]): Promise<never> {
  // Stdout carries messages only.
  console.log = console.info = console.debug = console.error;
  try {
    const lines = readLines(Deno.stdin.readable);
    const { value } = await lines.next();
    const writer = await open(JSON.parse(value ?? "null"), modules);
    const contextLength = Math.min(writer.model.config.contextLength, LONGEST);
    await writer.prepare({ sequences: 1, length: contextLength });
    send({ ready: { contextLength } });
    await new Desk(writer).work(lines);
  } catch (error) {
    send({ id: null, error: tellError(error) });
  }
  // GPU objects may keep the process alive.
  Deno.exit(0);
}

async function open(order: InferenceOrder | null, modules: readonly PluginModule[]): Promise<TextWriter> {
  if (!order || !("start" in order)) throw new InputError("the process got no model on stdin");
  const { start } = order;
  if ("path" in start) return await TextWriter.open(start.path);
  const registry = new Registry().addAll(builtins);
  for (const module of modules) registry.addAll(await loadPlugins(module), module.path);
  return await TextWriter.open({ folder: start.folder, recipe: start.recipe, registry });
}

/** Requests, one after another. */
class Desk {
  readonly #writer: TextWriter;
  readonly #cancelled = new Set<number>();
  #last: Promise<void> = Promise.resolve();

  constructor(writer: TextWriter) {
    this.#writer = writer;
  }

  /** Fulfilled when there are no more orders. What is not written by then will not be. */
  async work(lines: AsyncIterable<string>): Promise<void> {
    for await (const line of lines) {
      const order: InferenceOrder = JSON.parse(line);
      if ("cancel" in order) this.#cancelled.add(order.cancel);
      else if ("id" in order) this.#last = this.#last.then(() => this.#one(order.id, order.request));
    }
  }

  async #one(id: number, request: InferenceRequest): Promise<void> {
    let beat = performance.now();
    try {
      const { prompt } = request;
      const ids = typeof prompt === "string" ? this.#writer.encode(prompt) : this.#writer.encodeChat(prompt);
      const stop = new StopText(request.stop);
      const say = (text: string) => {
        if (text !== "") send({ id, event: { type: "text", text } });
      };
      const [written] = await this.#writer.write([ids], {
        ...request,
        onText: (_, piece) => {
          say(stop.push(piece));
          if (performance.now() - beat > HEARTBEAT_MS) {
            beat = performance.now();
            send({ alive: true });
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
      send({
        id,
        event: { type: "end", finishReason, promptTokens: ids.length, completionTokens: written!.tokens },
      });
    } catch (error) {
      send({ id, error: tellError(error) });
    } finally {
      this.#cancelled.delete(id);
    }
  }
}

function send(message: InferenceMessage): void {
  const bytes = new TextEncoder().encode(JSON.stringify(message) + "\n");
  try {
    for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
  } catch {
    // Nobody listens any more.
    Deno.exit(0);
  }
}
